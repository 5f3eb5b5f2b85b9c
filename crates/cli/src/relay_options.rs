//! Parses the command line. The options of `hearth relay` may also come from its settings file;
//! `hearth key` and `hearth user` read the store from the same file.

use std::io::Write as _;

use clap::{
    ArgMatches, Command, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use relay::{Config, ConfigError};

use super::Hearth;

/// Parses the command line; `None` if the command was only to print its settings.
pub(crate) fn parsed() -> anyhow::Result<Option<Hearth>> {
    let given = command(None).try_get_matches().unwrap_or_else(|error| {
        drop(error.print());
        if let Some(variable) = variable_of(&error) {
            drop(writeln!(
                std::io::stderr(),
                "\nthe value comes from {variable}"
            ));
        }
        std::process::exit(error.exit_code())
    });
    let options = match given.subcommand() {
        Some(("relay", options)) => options,
        Some(("key" | "user", action)) => return read_with_store(action, &given).map(Some),
        Some(_) | None => return Ok(Some(read(&given))),
    };
    let config = config(options)?;
    let arguments = config.behind(std::env::args_os(), options);
    let all = command(None).try_get_matches_from(arguments);
    // The options were valid without the file, so the error is the file's.
    let all =
        all.map_err(|error| anyhow::anyhow!("{}: {}", config.path().display(), in_short(&error)))?;
    if options.get_flag("print_config")
        && let Some((_, all)) = all.subcommand()
    {
        write!(std::io::stdout(), "{}", config.explain(options, all))?;
        return Ok(None);
    }
    Ok(Some(read(&all)))
}

/// Parses `hearth key` or `hearth user`. Without --store, the store is the one in the relay's
/// settings file, as for the relay.
fn read_with_store(action: &ArgMatches, given: &ArgMatches) -> anyhow::Result<Hearth> {
    let store = match action.subcommand() {
        // A mistake in a file that is not needed must not keep a key from being revoked.
        Some((_, options))
            if matches!(
                options.value_source("store"),
                None | Some(ValueSource::DefaultValue)
            ) =>
        {
            config(options)?.value("store").map(str::to_owned)
        }
        Some(_) | None => None,
    };
    let Some(store) = store else {
        return Ok(read(given));
    };
    Ok(read(&command(Some(store)).get_matches()))
}

/// Reads the settings file that the options name, or else the user's own.
fn config(options: &ArgMatches) -> Result<Config, ConfigError> {
    let usual = agent::Folders::of_user().ok();
    Config::read(options, usual.map(|user| user.config.join("relay.toml")))
}

/// The command with its default store: `usual`, or else `relay.db` in the user's data folder. The
/// default is the same for the relay and for `hearth key` and `hearth user`.
fn command(usual: Option<String>) -> Command {
    let command = Hearth::command();
    let folders = agent::Folders::of_user().ok();
    let own = folders.map(|user| format!("sqlite:{}", user.data.join("relay.db").display()));
    let Some(usual) = usual.or(own) else {
        return command;
    };
    let store = |command: Command| {
        let usual = usual.clone();
        command.mut_arg("store", |store| store.required(false).default_value(usual))
    };
    command
        .mut_subcommand("relay", store)
        .mut_subcommand("key", |key| key.mut_subcommands(store))
        .mut_subcommand("user", |user| user.mut_subcommands(store))
}

/// The first line of a clap error, without the usage hints.
fn in_short(error: &clap::Error) -> String {
    let told = error.to_string();
    let first = told.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// The environment variable with the invalid value; `None` if the value is on the command line.
fn variable_of(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(_) | None => None,
    };
    let option = text(ContextKind::InvalidArg)?;
    let option = option.split(' ').next()?.to_owned();
    let is_said = |word: String| word == option || word.starts_with(&format!("{option}="));
    if std::env::args().any(is_said) {
        return None;
    }
    let name = option.trim_start_matches('-').replace('-', "_");
    let variable = format!("HEARTH_{}", name.to_uppercase());
    let value = text(ContextKind::InvalidValue)?;
    (std::env::var(&variable).ok()? == value).then_some(variable)
}

fn read(matches: &ArgMatches) -> Hearth {
    Hearth::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}
