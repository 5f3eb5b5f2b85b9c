use std::{fmt, io, path::PathBuf, time::Duration};

use engine::{EngineTimes, Spec, Url, parse_host};
use proto::WorkerId;
use secrecy::SecretString;
use telemetry::fixed::comments;

use crate::{
    Args, AtLogin, Folders, Language, Relay,
    file::File,
    fixed,
    folders::NoFolders,
    host_name::host_name,
    origin::{Line, Origin, Resolver},
    relay::{engine_key, relay},
    times,
};

pub use ::status::HTTP_PORTS;

/// Check interval of an engine that has no relay to work for.
const ENGINE_LOOK: Duration = Duration::from_secs(15);
/// The default model of the built-in engine, in the cache folder.
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// All settings, resolved from the flags, the environment, `hearth.toml` and the defaults, in this
/// order of precedence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The relay to work for; the agent also runs without one.
    pub relay: Option<Relay>,
    /// The engine.
    pub engine: Spec,
    /// The key of an OpenAI-compatible engine, from its file or `HEARTH_ENGINE_KEY`.
    pub engine_key: Option<SecretString>,
    /// The address where Ollama is expected.
    pub ollama: Url,
    /// The model file of the built-in engine.
    pub model: PathBuf,
    /// Ports of the status hub, in the order of trial.
    pub status_ports: Vec<u16>,
    /// Ports of the local HTTP server, in the order of trial.
    pub http_ports: Vec<u16>,
    /// Maximum number of concurrent jobs.
    pub slots: u32,
    /// Timeouts of an engine in another process.
    pub engine_times: EngineTimes,
    /// Maximum time of one job on the engine; `None` for no limit.
    pub job_limit: Option<Duration>,
    /// Whether keys with the scope `admin` may change the engine's models.
    pub allow_model_changes: bool,
    /// The name of this machine at the relay.
    pub name: WorkerId,
    /// The language of tray and overlay.
    pub language: Language,
    /// Origins of web pages that may connect, besides Hearth's own.
    pub origins: Vec<String>,
    /// The folders of this user.
    pub folders: Folders,
    /// The address of the system bus with wake-up signals, from `DBUS_SYSTEM_BUS_ADDRESS`; `None`
    /// for the default.
    pub system_bus: Option<String>,
    /// Interval at which the engine is checked without a relay: 15 s.
    pub engine_look: Duration,
    /// Whether only `--print-config` was asked for.
    pub print_config: bool,
    /// The options that a start at login repeats.
    pub at_login: AtLogin,
    pub(crate) lines: Vec<Line>,
}

/// The reason why the settings are invalid, with the setting and its source.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No home folder.
    #[error(transparent)]
    Folders(#[from] NoFolders),
    /// The settings file cannot be read.
    #[error("{} cannot be read: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The settings file is not valid.
    #[error("{}, line {line}: {problem}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The problem; names the key, never its value.
        problem: String,
    },
    /// A setting is not valid.
    #[error("`{name}` ({from}): {problem}")]
    Value {
        /// The name of the setting.
        name: &'static str,
        /// Where it was set.
        from: Origin,
        /// The problem.
        problem: String,
    },
}

impl TryFrom<Args> for Settings {
    type Error = SettingsError;

    /// Resolves the settings of this process from its arguments, environment and files.
    fn try_from(args: Args) -> Result<Self, SettingsError> {
        Self::resolve(args, &|name| std::env::var(name).ok(), Folders::of_user()?)
    }
}

impl Settings {
    /// Resolves the settings from these sources.
    ///
    /// # Errors
    /// [`SettingsError`] names the invalid setting.
    pub fn resolve(
        args: Args,
        env: &dyn Fn(&str) -> Option<String>,
        folders: Folders,
    ) -> Result<Self, SettingsError> {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let named = args
            .config
            .clone()
            .or_else(|| set("HEARTH_CONFIG").map(PathBuf::from));
        let system_bus = set("DBUS_SYSTEM_BUS_ADDRESS");
        let path = named
            .clone()
            .unwrap_or_else(|| folders.config.join("hearth.toml"));
        let file = File::read(&path, named.is_some())?;
        let mut from = Resolver::new(env, path);
        let text = |value: &dyn fmt::Display| value.to_string();

        let relay = relay(&args, &file, &mut from)?;
        let engine_key = engine_key(&args, &file, &mut from)?;
        let engine = from.pick("engine", args.engine, file.engine, |text| {
            Spec::parse(text).map_err(|error| error.to_string())
        })?;
        let engine = from.or(engine, "engine", "auto", Spec::Auto);
        let ollama = from.ollama(args.ollama_host, |text| {
            parse_host(text)
                .map(|host| host.url)
                .map_err(|error| error.to_string())
        })?;
        let model = file.model.as_deref().map(|model| text(&model.display()));
        let flag = args.model.as_deref().map(|model| text(&model.display()));
        let model = from.pick("model", flag, model, |text| Ok(PathBuf::from(text)))?;
        let usual_model = folders.cache.join(MODEL);
        let model = from.or(model, "model", &text(&usual_model.display()), usual_model);
        let port = |flag: Option<u16>| flag.map(|port| port.to_string());
        let status = from.pick(
            "status-port",
            port(args.status_port),
            port(file.status_port),
            number,
        )?;
        let status = status.map(|port| vec![port]);
        let status_ports = from.or(
            status,
            "status-port",
            "6001, else 6000",
            ::status::PORTS.to_vec(),
        );
        let http = from.pick(
            "http-port",
            port(args.http_port),
            port(file.http_port),
            number,
        )?;
        let http = http.map(|port| vec![port]);
        let http_ports = from.or(http, "http-port", "5001, else 5000", HTTP_PORTS.to_vec());
        let count = |n: Option<u32>| n.map(|n| n.to_string());
        let slots = from.pick("slots", count(args.slots), count(file.slots), slots)?;
        let slots = from.or(slots, "slots", "1", 1);
        let job_limit = times::job_limit(args.job_limit, file.job_limit, &mut from)?;
        let engine_times = times::of_engine(
            (args.first_line_timeout, file.first_line_timeout),
            (args.next_line_timeout, file.next_line_timeout),
            &mut from,
        )?;
        let flag = args.allow_model_changes.map(|allow| allow.to_string());
        let changes = file.allow_model_changes.map(|allow| allow.to_string());
        let changes = from.pick("allow-model-changes", flag, changes, |text| {
            text.parse().map_err(|_| "use true or false".to_owned())
        })?;
        let allow_model_changes = from.or(changes, "allow-model-changes", "false", false);
        let name = from.pick("name", args.name, file.name, |text| {
            WorkerId::new(text).map_err(|error| error.to_string())
        })?;
        let host = host_name();
        let name = from.or(name, "name", host.as_str(), host.clone());
        let language = from.pick("language", args.language, file.language, |text| {
            Language::of_locale(text).ok_or_else(|| "use en, pl or ru".to_owned())
        })?;
        let system = system_language(env);
        let language = from.or(language, "language", system.code(), system);
        from.note("origins", &file.origins.join(" "), file.origins.is_empty());

        let mut settings = Self {
            relay,
            engine,
            engine_key,
            ollama,
            model,
            status_ports,
            http_ports,
            slots,
            job_limit,
            engine_times,
            allow_model_changes,
            name,
            language,
            origins: file.origins,
            folders,
            system_bus,
            engine_look: ENGINE_LOOK,
            print_config: args.print_config,
            at_login: AtLogin::default(),
            lines: from.lines(),
        };
        settings.at_login = AtLogin::of(&settings, named.as_deref());
        Ok(settings)
    }

    /// Lists all settings with their sources, for `--print-config`, without secrets, and the limits
    /// that no option sets.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        for (name, folder) in [
            ("config", &self.folders.config),
            ("data", &self.folders.data),
            ("cache", &self.folders.cache),
        ] {
            text += &format!("# {name} folder: {}\n", folder.display());
        }
        text + &comments(fixed::all())
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "a port must be a number from 0 to 65535".to_owned())
}

fn slots(text: &str) -> Result<u32, String> {
    let slots = text.parse().ok().filter(|slots| (1..=64).contains(slots));
    slots.ok_or_else(|| "slots must be a number from 1 to 64".to_owned())
}

/// The language of the first variable that is set, in the system's order.
fn system_language(env: &dyn Fn(&str) -> Option<String>) -> Language {
    let mut set = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(env);
    let locale = set.find(|locale| !locale.is_empty()).unwrap_or_default();
    Language::of_locale(&locale).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret as _;

    use super::*;

    struct Given {
        home: tempfile::TempDir,
        env: Vec<(&'static str, &'static str)>,
        args: Args,
    }

    impl Given {
        fn new(toml: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            let config = Folders::below(home.path()).config;
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("hearth.toml"), toml).unwrap();
            Self {
                home,
                env: Vec::new(),
                args: Args::default(),
            }
        }

        fn resolve(&self) -> Result<Settings, SettingsError> {
            let env = |name: &str| {
                let found = self.env.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Settings::resolve(self.args.clone(), &env, Folders::below(self.home.path()))
        }

        fn error(&self) -> String {
            self.resolve().unwrap_err().to_string()
        }
    }

    #[test]
    fn without_any_source_the_defaults_hold() {
        let mut given = Given::new("");
        fs::remove_dir_all(given.home.path().join("config")).unwrap();
        given.env.push(("HEARTH_NAME", ""));
        let settings = given.resolve().unwrap();
        assert!(settings.relay.is_none());
        assert!(settings.explain().contains("relay = (not set) # default"));
        assert_eq!(settings.engine, Spec::Auto);
        assert_eq!(settings.status_ports, [6001, 6000]);
        assert_eq!(settings.http_ports, [5001, 5000]);
        assert_eq!(settings.slots, 1);
        assert!(settings.model.ends_with(MODEL));
        assert_eq!(settings.ollama.as_str(), "http://127.0.0.1:11434/");
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let mut given = Given::new("slots = 2");
        given.env = vec![
            ("HEARTH_CONFIG", ""),
            ("DBUS_SYSTEM_BUS_ADDRESS", ""),
            ("HEARTH_SLOTS", ""),
        ];
        let settings = given.resolve().unwrap();
        assert_eq!((settings.slots, settings.system_bus), (2, None));
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_beats_the_file() {
        let mut given = Given::new("slots = 2\nstatus-port = 7001\nlanguage = \"ru\"");
        let settings = given.resolve().unwrap();
        assert_eq!((settings.slots, settings.language), (2, Language::Russian));
        given.env = vec![("HEARTH_SLOTS", "3"), ("LANG", "pl_PL.UTF-8")];
        assert_eq!(given.resolve().unwrap().slots, 3);
        given.args.slots = Some(4);
        let settings = given.resolve().unwrap();
        assert_eq!(settings.slots, 4);
        assert_eq!(settings.status_ports, [7001]);
        let explained = settings.explain();
        for line in [
            "slots = 4 # --slots",
            "http-port = 5001, else 5000 # default",
            "language = \"ru\" # ",
            "status-port = 7001 # ",
            "# status-sockets-max = 1024 (fixed)\n",
        ] {
            assert!(explained.contains(line), "{line} in:\n{explained}");
        }
        assert!(explained.contains("hearth.toml"), "{explained}");
    }

    #[test]
    fn models_may_be_changed_only_where_it_was_said() {
        let mut given = Given::new("");
        let settings = given.resolve().unwrap();
        assert!(!settings.allow_model_changes);
        let explained = settings.explain();
        assert!(explained.contains("allow-model-changes = false # default"));
        given.env = vec![("HEARTH_ALLOW_MODEL_CHANGES", "true")];
        assert!(given.resolve().unwrap().allow_model_changes);
        given.env = vec![("HEARTH_ALLOW_MODEL_CHANGES", "perhaps")];
        assert!(given.error().contains("HEARTH_ALLOW_MODEL_CHANGES"));
        let mut given = Given::new("allow-model-changes = true");
        assert!(given.resolve().unwrap().allow_model_changes);
        given.env = vec![("HEARTH_ALLOW_MODEL_CHANGES", "false")];
        assert!(!given.resolve().unwrap().allow_model_changes);
        given.args.allow_model_changes = Some(true);
        let settings = given.resolve().unwrap();
        assert!(settings.allow_model_changes);
        let explained = settings.explain();
        let line = "allow-model-changes = true # --allow-model-changes";
        assert!(explained.contains(line), "{explained}");
    }

    #[test]
    fn what_is_explained_is_a_settings_file_that_says_the_same() {
        let said = "relay = \"https://relay.example\"\nslots = 2\nname = \"7\"\nplain-http = true\n\
                    origins = [\"https://a.example\", \"https://b.example\"]\n";
        let mut given = Given::new(said);
        given.env = vec![("HEARTH_KEY", "hunter2"), ("OLLAMA_HOST", "10.0.0.1")];
        let explained = given.resolve().unwrap().explain();
        let mut again = Given::new(&explained);
        again.env = vec![("HEARTH_KEY", "hunter2")];
        let again = again.resolve().unwrap();
        let relay = again.relay.unwrap();
        assert_eq!(relay.url.as_str(), "https://relay.example/");
        assert!(relay.plain_http);
        assert_eq!((again.slots, again.name.as_str()), (2, "7"));
        assert_eq!(again.origins, ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn the_language_is_the_systems_unless_set() {
        let mut given = Given::new("");
        given.env = vec![
            ("LC_ALL", ""),
            ("LC_MESSAGES", "pl_PL.UTF-8"),
            ("LANG", "ru_RU"),
        ];
        assert_eq!(given.resolve().unwrap().language, Language::Polish);
        given.env = vec![("LANG", "de_DE.UTF-8")];
        assert_eq!(given.resolve().unwrap().language, Language::English);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it_and_its_line_but_no_value() {
        let error = Given::new("slots = 2\nrelay-urll = \"hunter2\"").error();
        assert!(
            error.contains("relay-urll") && error.contains("line 2"),
            "{error}"
        );
        let error = Given::new("key = \"hunter2\"").error();
        assert!(!error.contains("hunter2"), "{error}");
        let error = Given::new("slots = \"hunter2").error();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_an_error_that_says_where_it_stands() {
        let mut given = Given::new("");
        given.env = vec![("HEARTH_SLOTS", "0")];
        let error = given.error();
        assert!(
            error.contains("slots") && error.contains("HEARTH_SLOTS"),
            "{error}"
        );
        given.env = vec![("HEARTH_ENGINE", "olama")];
        assert!(given.error().contains("olama"));
        given.env = Vec::new();
        given.args.name = Some("a b".into());
        assert!(given.error().contains("--name"));
        given.args = Args {
            config: Some("/nonexistent/hearth.toml".into()),
            ..Args::default()
        };
        assert!(given.error().contains("/nonexistent/hearth.toml"));
    }

    #[test]
    fn a_relay_needs_a_key_and_a_road_nobody_listens_on() {
        let mut given = Given::new("relay = \"https://relay.example\"");
        assert!(given.error().contains("--key-file"));
        given.env = vec![("HEARTH_KEY", "hunter2")];
        let relay = given.resolve().unwrap().relay.unwrap();
        assert_eq!(relay.key.expose_secret(), "hunter2");
        for (url, is_good) in [
            ("http://127.0.0.1:8787", true),
            ("http://[::1]:8787", true),
            ("http://relay.example", false),
            ("ftp://relay.example", false),
            ("https://user:pass@relay.example", false),
            ("relay.example", false),
        ] {
            given.args.relay = Some(url.into());
            assert_eq!(given.resolve().is_ok(), is_good, "{url}");
        }
        let mut plain = Given::new("plain-http = true\nrelay = \"http://relay.example\"");
        plain.env = vec![("HEARTH_KEY", "hunter2")];
        assert!(plain.resolve().unwrap().relay.unwrap().plain_http);
        let mut said = Given::new("relay = \"http://relay.example\"");
        said.env = vec![("HEARTH_KEY", "hunter2")];
        said.args.plain_http = Some(true);
        assert!(said.resolve().unwrap().relay.unwrap().plain_http);
    }

    #[test]
    fn the_key_comes_from_the_nearest_source_and_is_never_shown() {
        let mut given = Given::new("relay = \"https://relay.example\"");
        let path = given.home.path().join("key");
        fs::write(&path, "  from-file\n").unwrap();
        given.env = vec![("HEARTH_KEY", "from-env")];
        let key = |given: &Given| {
            given
                .resolve()
                .unwrap()
                .relay
                .unwrap()
                .key
                .expose_secret()
                .to_owned()
        };
        assert_eq!(key(&given), "from-env");
        given.args.key_file = Some(path.clone());
        assert_eq!(key(&given), "from-file");
        given.args.key_file = None;
        given.args.key = Some("from-flag".into());
        assert_eq!(key(&given), "from-flag");
        let settings = given.resolve().unwrap();
        let shown = format!("{settings:?}{}", settings.explain());
        assert!(!shown.contains("from-flag"), "{shown}");

        fs::write(&path, "\n").unwrap();
        given.args.key = None;
        given.args.key_file = Some(path);
        assert!(given.error().contains("empty"));
        given.args.key_file = Some(given.home.path().join("missing"));
        let error = given.error();
        assert!(
            error.starts_with("`key-file` (--key-file): ") && error.contains("missing"),
            "{error}"
        );
    }

    #[test]
    fn the_engines_key_comes_from_the_nearest_source_and_is_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = home.path().join(name);
            fs::write(&path, format!("  from-{name}\n")).unwrap();
            path
        };
        let (flag, env, toml) = (file("flag"), file("env"), file("toml"));
        let env = env.display().to_string().leak();
        let mut given = Given::new(&format!(
            "engine-key-file = {:?}",
            toml.display().to_string()
        ));
        let key = |given: &Given| {
            let settings = given.resolve().unwrap();
            let shown = format!("{settings:?}{}", settings.explain());
            let key = settings.engine_key.unwrap().expose_secret().to_owned();
            assert!(!shown.contains(&key), "{shown}");
            key
        };
        assert_eq!(key(&given), "from-toml");
        given.env = vec![("HEARTH_ENGINE_KEY_FILE", env)];
        assert_eq!(key(&given), "from-env");
        given.env.push(("HEARTH_ENGINE_KEY", "itself"));
        assert_eq!(key(&given), "itself");
        given.args.engine_key_file = Some(flag.clone());
        assert_eq!(key(&given), "from-flag");
        fs::write(&flag, " \n").unwrap();
        assert!(
            given.error().contains("engine-key-file"),
            "{}",
            given.error()
        );
    }
}
