//! The options of `hearth relay`, which may also stand in a file.

use std::io::Write as _;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use relay::Config;

use super::Hearth;

/// What the program was asked for; `None` if only its settings were to be printed.
pub(crate) fn parsed() -> anyhow::Result<Option<Hearth>> {
    let given = Hearth::command().get_matches();
    let Some(("relay", options)) = given.subcommand() else {
        return Ok(Some(read(&given)));
    };
    let usual = agent::Folders::of_user().ok();
    let config = Config::read(options, usual.map(|user| user.config.join("relay.toml")))?;
    let arguments = config.behind(std::env::args_os(), options);
    let all = Hearth::command().get_matches_from(arguments);
    if options.get_flag("print_config")
        && let Some((_, all)) = all.subcommand()
    {
        write!(std::io::stdout(), "{}", config.explain(options, all))?;
        return Ok(None);
    }
    Ok(Some(read(&all)))
}

fn read(matches: &ArgMatches) -> Hearth {
    Hearth::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}
