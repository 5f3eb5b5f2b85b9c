//! What a start at login must repeat, and the key that it needs.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use status::private_file;

use crate::{
    Origin, Settings,
    origin::{Line, absolute},
};

/// The key's own file, in the data folder.
const KEY_FILE: &str = "relay-key";

/// The options of a start at login. What stands in `hearth.toml` is found there again; what was
/// said on the command line or in this environment would be missing.
#[derive(Debug, Clone, Default)]
pub struct AtLogin {
    /// Words after the program's name.
    pub options: Vec<String>,
    /// The key, if it stands in no file yet, and the file it goes into.
    key: Option<(SecretString, PathBuf)>,
}

impl AtLogin {
    pub(crate) fn of(settings: &Settings, config: Option<&Path>) -> Self {
        let mut options: Vec<String> = settings
            .lines
            .iter()
            .filter_map(repeated)
            .flatten()
            .collect();
        if let Some(config) = config {
            options.extend(["--config".to_owned(), absolute(config)]);
        }
        let is_loose = settings.lines.iter().any(|line| {
            line.name == "key" && matches!(line.from, Origin::Flag(_) | Origin::Env(_))
        });
        let relay = settings.relay.as_ref().filter(|_| is_loose);
        let key = relay.map(|relay| (relay.key.clone(), settings.folders.data.join(KEY_FILE)));
        if let Some((_, path)) = &key {
            options.extend(["--key-file".to_owned(), absolute(path)]);
        }
        Self { options, key }
    }

    /// Writes the key into its file, mode 0600, if it needs one.
    pub(crate) fn keep_key(&self) -> Result<(), String> {
        let Some((key, path)) = &self.key else {
            return Ok(());
        };
        private_file::write(path, key.expose_secret().as_bytes()).map_err(|error| {
            format!(
                "the key cannot be kept in {} for the start at login: {error}",
                path.display()
            )
        })
    }

    /// Takes the key's file away again: nothing starts with it any more.
    pub(crate) fn forget_key(&self) {
        if let Some((_, path)) = &self.key
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "the key's file cannot be removed");
        }
    }
}

/// The option that says the same, for what would be missing otherwise.
fn repeated(line: &Line) -> Option<Vec<String>> {
    if !matches!(line.from, Origin::Flag(_) | Origin::Env(_)) {
        return None;
    }
    let value = match line.name {
        // It takes no value.
        "allow-model-changes" | "plain-http" if line.value == "true" => {
            return Some(vec![format!("--{}", line.name)]);
        }
        "relay" | "engine" | "slots" | "name" => line.value.clone(),
        "key-file" => absolute(Path::new(&line.value)),
        // Any free port is another one at each start.
        "status-port" | "http-port" if line.value != "0" => line.value.clone(),
        _ => return None,
    };
    Some(vec![format!("--{}", line.name), value])
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Args, Folders};

    fn of(options: &[&str], env: &[(&str, &str)]) -> (AtLogin, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let words = ["hearth"].iter().chain(options);
        let find = |name: &str| {
            let found = env.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let args = Args::parse_from(words);
        let settings = Settings::resolve(args, &find, Folders::below(home.path())).unwrap();
        (settings.at_login, home)
    }

    #[test]
    fn what_was_said_for_this_start_alone_is_repeated() {
        assert!(of(&["--status-port", "0"], &[]).0.options.is_empty());
        let (start, home) = of(
            &[
                "--slots",
                "2",
                "--http-port",
                "5002",
                "--allow-model-changes",
                "--plain-http",
            ],
            &[
                ("HEARTH_RELAY", "https://relay.example:8787"),
                ("HEARTH_KEY", "k"),
            ],
        );
        for flag in ["--allow-model-changes", "--plain-http"] {
            assert!(start.options.contains(&flag.to_owned()), "{start:?}");
        }
        let key = home.path().join("data/relay-key").display().to_string();
        for pair in [
            ["--slots", "2"],
            ["--http-port", "5002"],
            ["--relay", "https://relay.example:8787"],
            ["--key-file", &key],
        ] {
            assert!(
                start.options.windows(2).any(|words| words == pair),
                "{pair:?}: {start:?}"
            );
        }
    }

    #[test]
    fn a_key_from_the_command_line_goes_into_a_file_of_its_owner_and_never_into_the_options() {
        let (start, home) = of(&["--relay", "https://r.example", "--key", "hunter2"], &[]);
        assert!(!format!("{start:?}").contains("hunter2"));
        private_file::make_folder(&home.path().join("data")).unwrap();
        start.keep_key().unwrap();
        let path = home.path().join("data/relay-key");
        assert_eq!(private_file::read(&path).unwrap().unwrap(), b"hunter2");

        let again: Vec<&str> = start.options.iter().map(String::as_str).collect();
        let (second, _home) = of(&again, &[]);
        assert_eq!(
            second.options, start.options,
            "a start at login says the same again"
        );
        start.forget_key();
        assert!(!path.exists());
    }

    #[test]
    fn a_key_that_has_a_file_already_is_not_written_again() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("key");
        std::fs::write(&file, "k").unwrap();
        let file = file.display().to_string();
        let (start, other) = of(&["--relay", "https://r.example", "--key-file", &file], &[]);
        assert!(start.options.contains(&file));
        start.keep_key().unwrap();
        assert!(!other.path().join("data/relay-key").exists());
    }
}
