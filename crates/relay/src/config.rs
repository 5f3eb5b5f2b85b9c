//! The relay's settings file, and where each setting came from.
//!
//! The file holds the options of `hearth relay` by name, without the dashes. The command line and
//! the environment take precedence. Values of the file are appended to the command line and parsed
//! with it, so that options are declared and parsed in one place.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, parser::ValueSource};
use telemetry::fixed::comments;
use url::Url;

use crate::{Args, fixed};

/// Options that the file cannot contain.
const NOT_IN_FILE: [&str; 2] = ["config", "print-config"];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        why: io::Error,
    },
    /// The file is not valid TOML.
    #[error("{}, line {line}: {problem}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong, without quoting the line.
        problem: String,
    },
    /// A key is not an option, or its value is not valid for that option.
    #[error("{}: `{key}` {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key as written in the file.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The relay's settings file.
#[derive(Debug, Default)]
pub struct Config {
    path: PathBuf,
    values: BTreeMap<String, Vec<String>>,
}

impl Config {
    /// Reads the file that `--config` names, or `usual` if it exists.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the key.
    pub fn read(given: &ArgMatches, usual: Option<PathBuf>) -> Result<Self, ConfigError> {
        let named = given.get_one::<PathBuf>("config");
        let Some(path) = named.cloned().or(usual) else {
            return Ok(Self::default());
        };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                Ok(Self::default())
            }
            Err(why) => Err(ConfigError::File { path, why }),
        }
    }

    /// Returns the path of the file; empty if there is none.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's value of an option that takes a single value.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.values.get(option)?.first().map(String::as_str)
    }

    pub(crate) fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => {
                // The error's own `Display` quotes the line, which may contain a secret.
                let at = error.span().map_or(0, |span| span.start.min(text.len()));
                let before = text.as_bytes()[..at].iter();
                return Err(ConfigError::Toml {
                    path,
                    line: before.filter(|byte| **byte == b'\n').count() + 1,
                    problem: error.message().to_owned(),
                });
            }
        };
        let options = options();
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let option = options
                .get_arguments()
                .find(|option| option.get_long() == Some(key.as_str()))
                .filter(|_| !NOT_IN_FILE.contains(&key.as_str()));
            let read = match option {
                None => Err("is not an option of `hearth relay`; see `hearth relay --help`"),
                Some(option) => texts(option, &value),
            };
            match read {
                Ok(read) => drop(values.insert(key, read)),
                Err(problem) => return Err(ConfigError::Key { path, key, problem }),
            }
        }
        Ok(Self { path, values })
    }

    /// Returns the program's arguments followed by the file's options. Options that `given` has
    /// from the command line or the environment are left out.
    pub fn behind(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        given: &ArgMatches,
    ) -> Vec<OsString> {
        let mut all: Vec<OsString> = arguments.into_iter().collect();
        for option in options().get_arguments() {
            let Some(name) = option.get_long() else {
                continue;
            };
            if is_given(given, option) {
                continue;
            }
            for value in self.values.get(name).into_iter().flatten() {
                let takes_none = matches!(option.get_action(), ArgAction::SetTrue);
                all.push(if takes_none {
                    format!("--{name}").into()
                } else {
                    format!("--{name}={value}").into()
                });
            }
        }
        all
    }

    /// Lists every option with its value and source, and the main limits that no option sets.
    /// Secrets are hidden. `all` are the options including those of the file.
    #[must_use]
    pub fn explain(&self, given: &ArgMatches, all: &ArgMatches) -> String {
        let mut text = String::new();
        for option in options().get_arguments() {
            let Some(name) = option.get_long() else {
                continue;
            };
            if NOT_IN_FILE.contains(&name) {
                continue;
            }
            let id = option.get_id().as_str();
            let values = all.get_raw(id).into_iter().flatten();
            let values: Vec<_> = values
                .map(|value| shown(&value.to_string_lossy()))
                .collect();
            let from = match given.value_source(id) {
                Some(ValueSource::CommandLine) => format!("--{name}"),
                Some(ValueSource::EnvVariable) => option
                    .get_env()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                Some(_) | None if self.values.contains_key(name) => self.path.display().to_string(),
                Some(_) | None => "default".to_owned(),
            };
            // Hidden and missing values are commented out, so that the output is a valid settings
            // file.
            let is_hidden = values.iter().any(|(_, is_hidden)| *is_hidden);
            let values: Vec<_> = values.into_iter().map(|(value, _)| value).collect();
            let mark = if is_hidden || values.is_empty() {
                "# "
            } else {
                ""
            };
            let values = written(option, values);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{mark}{name} = {values} # {from}");
        }
        text + &comments(fixed::all())
    }
}

fn options() -> Command {
    Args::augment_args(Command::new("relay"))
}

fn is_given(given: &ArgMatches, option: &Arg) -> bool {
    let source = given.value_source(option.get_id().as_str());
    matches!(
        source,
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    )
}

/// Converts a value of the file to command-line values, one for each time the option is given.
fn texts(option: &Arg, value: &toml::Value) -> Result<Vec<String>, &'static str> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        let truth = value.as_bool().ok_or("must be true or false")?;
        return Ok(if truth { vec![String::new()] } else { vec![] });
    }
    match value.as_array() {
        Some(several) if matches!(option.get_action(), ArgAction::Append) => {
            several.iter().map(text).collect()
        }
        Some(_) => Err("must be one value, not a list"),
        None => Ok(vec![text(value)?]),
    }
}

fn text(value: &toml::Value) -> Result<String, &'static str> {
    let text = value.as_str().map(str::to_owned);
    let number = || value.as_integer().map(|number| number.to_string());
    text.or_else(number).ok_or("must be a string or a number")
}

/// Formats values as they are written in the file.
fn written(option: &Arg, mut values: Vec<String>) -> String {
    let one = |value: String| match value.parse::<i64>() {
        Ok(number) => toml::Value::from(number),
        Err(_) => toml::Value::from(value),
    };
    match (option.get_action(), values.pop()) {
        (_, None) => "(not set)".to_owned(),
        (ArgAction::SetTrue, Some(value)) => value,
        (ArgAction::Append, Some(last)) => {
            let all: Vec<_> = values.into_iter().chain([last]).map(one).collect();
            toml::Value::from(all).to_string()
        }
        (_, Some(value)) => one(value).to_string(),
    }
}

/// Returns a value with a URL's password hidden, and whether it had one.
fn shown(value: &str) -> (String, bool) {
    match Url::parse(value) {
        Ok(mut url) if url.password().is_some() => match url.set_password(Some("***")) {
            Ok(()) => (url.to_string(), true),
            Err(()) => ("(set, not shown)".to_owned(), true),
        },
        Ok(_) | Err(_) => (value.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str, arguments: &[&str]) -> Result<String, String> {
        let config = Config::parse("relay.toml".into(), text).map_err(|error| error.to_string())?;
        let arguments = || arguments.iter().map(OsString::from);
        let command = || options().no_binary_name(true);
        let given = command().get_matches_from(arguments());
        let all = command().try_get_matches_from(config.behind(arguments(), &given));
        let all = all.map_err(|error| error.to_string())?;
        Ok(config.explain(&given, &all))
    }

    #[test]
    fn what_is_given_counts_more_than_the_file_and_the_file_more_than_defaults() {
        let file = "lease = 90\nheartbeat = 9\nwebhook-allow = [\"a.lan\", \"b.lan:80\"]\n\
                    insecure-dev = true\n";
        let told = explained(file, &["--heartbeat", "7"]).unwrap();
        for line in [
            "lease = 90 # relay.toml\n",
            "heartbeat = 7 # --heartbeat\n",
            "webhook-allow = [\"a.lan\", \"b.lan:80\"] # relay.toml\n",
            "insecure-dev = true # relay.toml\n",
            "\n# default-model = (not set) # default\n",
            "listen = \"127.0.0.1:8787\" # default\n",
        ] {
            assert!(told.contains(line), "{line} in {told}");
        }
        assert!(told.contains("\n# restart-grace = 30 (fixed)\n"), "{told}");
        assert!(!told.contains("print-config"), "{told}");
        let again = explained(&told, &[]).unwrap();
        let values = |told: &str| -> Vec<String> {
            let lines = told.lines().filter_map(|line| line.rsplit_once(" # "));
            lines.map(|(value, _)| value.to_owned()).collect()
        };
        assert_eq!(values(&again), values(&told), "it is a settings file");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_and_no_secret_quoted() {
        for (file, told) in [
            ("leese = 90", "relay.toml: `leese` is not an option"),
            ("print-config = true", "`print-config` is not an option"),
            ("lease = [1]", "`lease` must be one value"),
            ("lease = 1.5", "`lease` must be a string or a number"),
            ("insecure-dev = 1", "`insecure-dev` must be true or false"),
            ("lease = 1", "'1' for '--lease"),
        ] {
            let error = explained(file, &[]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let error = explained("lease = 90\nstore = \"postgres://a:secret@b", &[]).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let told = explained("store = \"postgres://hearth:secret@db/x\"", &[]).unwrap();
        assert!(
            told.contains("# store = \"postgres://hearth:***@db/x\" #"),
            "{told}"
        );
        let plain = "sqlite:/var/lib/x:y.db".to_owned();
        assert_eq!(shown(&plain), (plain, false));
    }
}
