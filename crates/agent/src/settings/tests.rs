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
