//! The options that a start at login must repeat, and the key that it needs.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use status::private_file;

use engine::Spec;

use crate::{
    Origin, Settings,
    origin::{Line, absolute},
};

/// The file with the key for the start at login, in the data folder.
const KEY_FILE: &str = "relay-key";

/// The options of a start at login: settings from the command line and the environment, which would
/// be missing otherwise. Settings in `hearth.toml` are read from there again.
#[derive(Debug, Clone, Default)]
pub struct AtLogin {
    /// The arguments after the program's name.
    pub options: Vec<String>,
    /// The key, if it is in no file of the owner's, and the file to write it to.
    key: Option<(SecretString, PathBuf)>,
    /// A setting that the start at login would need and cannot repeat.
    lacks: Option<&'static str>,
}

impl AtLogin {
    pub(crate) fn of(settings: &Settings, config: Option<&Path>) -> Self {
        let own_file = settings.folders.data.join(KEY_FILE);
        // An agent that was started at login already uses that key file.
        let is_own = |line: &&Line| {
            let value = absolute(Path::new(&line.value));
            line.name == "key-file" && is_said(line) && value == absolute(&own_file)
        };
        let lines = settings.lines.iter();
        let mut options: Vec<String> = lines
            .clone()
            .filter(|line| !is_own(line))
            .filter_map(repeated)
            .flatten()
            .collect();
        if let Some(config) = config {
            options.extend(["--config".to_owned(), absolute(config)]);
        }
        let is_loose = |line: &&Line| line.name == "key" && is_said(line);
        let is_kept = lines.clone().any(|line| is_loose(&line) || is_own(&line));
        let relay = settings.relay.as_ref().filter(|_| is_kept);
        let key = relay.map(|relay| (relay.key.clone(), own_file.clone()));
        if let Some((_, path)) = &key {
            options.extend(["--key-file".to_owned(), absolute(path)]);
        }
        let has_no_file = settings.lines.iter().any(|line| line.name == "engine-key");
        let lacks = (matches!(settings.engine, Spec::OpenAi(_)) && has_no_file).then_some(
            "the start at login cannot repeat the engine's key, which is only in HEARTH_ENGINE_KEY; \
             write it to a file and name that with --engine-key-file or HEARTH_ENGINE_KEY_FILE",
        );
        Self {
            options,
            key,
            lacks,
        }
    }

    /// Checks that a start at login can repeat all settings.
    pub(crate) fn check_possible(&self) -> Result<(), String> {
        self.lacks.map_or(Ok(()), |why| Err(why.to_owned()))
    }

    /// Writes the key to its file, mode 0600, if the start at login needs one.
    pub(crate) fn keep_key(&self) -> Result<(), String> {
        let Some((key, path)) = &self.key else {
            return Ok(());
        };
        private_file::write(path, key.expose_secret().as_bytes()).map_err(|error| {
            format!(
                "the key for the start at login cannot be saved in {}: {error}",
                path.display()
            )
        })
    }

    /// Removes the key file when it is no longer needed.
    pub(crate) fn forget_key(&self) {
        if let Some((_, path)) = &self.key
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "the key file of the start at login cannot be removed");
        }
    }
}

/// Whether the setting comes from the command line or the environment.
const fn is_said(line: &Line) -> bool {
    matches!(line.from, Origin::Flag(_) | Origin::Env(_))
}

/// The option that repeats the setting, if it would be missing otherwise.
fn repeated(line: &Line) -> Option<Vec<String>> {
    if !is_said(line) {
        return None;
    }
    let value = match line.name {
        // These options take their value only in the same argument.
        "allow-model-changes" | "plain-http" => {
            return Some(vec![format!("--{}={}", line.name, line.value)]);
        }
        "relay" | "slots" | "name" | "language" | "ollama-host" | "job-limit"
        | "first-line-timeout" | "next-line-timeout" => line.value.clone(),
        "engine" => match line.value.split_once(':') {
            Some((kind @ "builtin", path)) => format!("{kind}:{}", absolute(Path::new(path))),
            _ => line.value.clone(),
        },
        "key-file" | "engine-key-file" | "model" => absolute(Path::new(&line.value)),
        // Port 0 picks a different port at each start.
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
        let settings = resolve(home.path(), options, env);
        (settings.at_login, home)
    }

    fn resolve(home: &Path, options: &[&str], env: &[(&str, &str)]) -> Settings {
        let words = ["hearth"].iter().chain(options);
        let find = |name: &str| {
            let found = env.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let args = Args::parse_from(words);
        Settings::resolve(args, &find, Folders::below(home)).unwrap()
    }

    #[test]
    fn whatever_the_environment_says_is_said_again_at_login_or_the_switch_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let engine_key = home.path().join("engine-key");
        std::fs::write(&engine_key, "hunter4").unwrap();
        let engine_key = engine_key.display().to_string();
        let env = [
            ("HEARTH_RELAY", "http://10.0.0.5:8787/"),
            ("HEARTH_KEY", "hunter2"),
            ("HEARTH_PLAIN_HTTP", "true"),
            ("HEARTH_ENGINE", "openai:http://127.0.0.1:1/v1"),
            ("HEARTH_MODEL", "/models/own.gguf"),
            ("OLLAMA_HOST", "10.0.0.6:11434"),
            ("HEARTH_STATUS_PORT", "7001"),
            ("HEARTH_HTTP_PORT", "7002"),
            ("HEARTH_SLOTS", "3"),
            ("HEARTH_JOB_LIMIT", "600"),
            ("HEARTH_FIRST_LINE_TIMEOUT", "300"),
            ("HEARTH_NEXT_LINE_TIMEOUT", "60"),
            ("HEARTH_ALLOW_MODEL_CHANGES", "false"),
            ("HEARTH_NAME", "box"),
            ("HEARTH_LANGUAGE", "pl"),
            ("HEARTH_ENGINE_KEY_FILE", &engine_key),
        ];
        let folders = Folders::below(home.path());
        private_file::make_folder(&folders.data).unwrap();
        private_file::make_folder(&folders.config).unwrap();
        let file = "allow-model-changes = true\nlanguage = \"ru\"\nslots = 9\n";
        std::fs::write(folders.config.join("hearth.toml"), file).unwrap();
        let first = resolve(home.path(), &[], &env);
        first.at_login.check_possible().unwrap();
        first.at_login.keep_key().unwrap();
        assert!(!format!("{:?}", first.at_login.options).contains("hunter2"));
        let options: Vec<&str> = first.at_login.options.iter().map(String::as_str).collect();
        let again = resolve(home.path(), &options, &[]);
        let lines = first.lines.iter().filter(|line| line.name != "origins");
        for line in lines.filter(|line| line.name != "key") {
            assert!(
                matches!(line.from, Origin::Env(_)),
                "not tried here: {line}"
            );
            let found = again.lines.iter().find(|found| found.name == line.name);
            assert_eq!(found.unwrap().value, line.value, "{line}");
        }
        assert_eq!(again.relay.unwrap().key.expose_secret(), "hunter2");
        assert_eq!(again.engine_key.unwrap().expose_secret(), "hunter4");

        let secret = ("HEARTH_ENGINE_KEY", "hunter3");
        let with_secret = resolve(home.path(), &[], &[env.as_slice(), &[secret]].concat());
        let options = format!("{:?}", with_secret.at_login.options);
        assert!(!options.contains("hunter3"));
        let why = with_secret.at_login.check_possible().unwrap_err();
        assert!(why.contains("HEARTH_ENGINE_KEY"), "{why}");
    }

    #[test]
    fn a_path_means_the_same_in_the_folder_where_a_session_starts() {
        let (start, _home) = of(&["--engine", "builtin:m.gguf", "--model", "n.gguf"], &[]);
        for (name, prefix) in [("--engine", "builtin:"), ("--model", "")] {
            let at = start.options.iter().position(|word| word == name).unwrap();
            let path = start.options[at + 1].strip_prefix(prefix).unwrap();
            assert!(Path::new(path).is_absolute(), "{start:?}");
        }
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
        for flag in ["--allow-model-changes=true", "--plain-http=true"] {
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
    fn who_was_started_at_login_takes_the_keys_file_away_again() {
        let home = tempfile::tempdir().unwrap();
        let env = [
            ("HEARTH_RELAY", "https://r.example"),
            ("HEARTH_KEY", "hunter2"),
        ];
        let first = resolve(home.path(), &[], &env).at_login;
        private_file::make_folder(&home.path().join("data")).unwrap();
        first.keep_key().unwrap();
        let options: Vec<&str> = first.options.iter().map(String::as_str).collect();
        let second = resolve(home.path(), &options, &[]).at_login;
        assert_eq!(second.options, first.options);
        let path = home.path().join("data/relay-key");
        second.forget_key();
        assert!(!path.exists(), "nothing starts with it any more");
        second.keep_key().unwrap();
        assert_eq!(private_file::read(&path).unwrap().unwrap(), b"hunter2");
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
