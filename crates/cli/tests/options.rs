//! The options of `hearth`: help texts, environment, settings file, and errors.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::process::{Command, Output};

use tests::process::{Home, Process};

fn hearth(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_explains_itself() {
    let help = text(&hearth(&["--help"]).stdout);
    for command in [
        "relay", "key", "user", "agent", "ask", "jobs", "status", "pause", "resume", "doctor",
        "pair",
    ] {
        assert!(help.contains(&format!("  {command}")), "{help}");
        let output = hearth(&[command, "--help"]);
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn the_settings_are_explained_with_their_origin_and_without_secrets() {
    let args = [
        "agent",
        "--relay",
        "http://127.0.0.1:1",
        "--key",
        "very-secret",
        "--print-config",
    ];
    let output = hearth(&args);
    let explained = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(explained.contains("http://127.0.0.1:1"), "{explained}");
    assert!(explained.contains("status-port"), "{explained}");
    assert!(!explained.contains("very-secret"), "{explained}");
}

#[test]
fn what_is_wrong_is_said_in_one_line_and_fails() {
    for (args, word) in [
        (&["status", "--timeout", "0"][..], "no agent is running"),
        (&["pause"][..], "no agent is running"),
        (
            &["ask", "--relay", "http://127.0.0.1:1", "hello"][..],
            "cannot be reached",
        ),
        (
            &["ask", "--relay", "nonsense", "hello"][..],
            "\"nonsense\" is not a URL",
        ),
        (
            &["ask", "--key-file", "/nowhere/key", "hello"][..],
            "/nowhere/key",
        ),
        (&["key", "list", "--store", "mysql:x"][..], "sqlite:PATH"),
        (
            &["jobs", "list", "--relay", "http://127.0.0.1:1"],
            "cannot be reached",
        ),
        (&["jobs", "show", "what"], "32 hexadecimal"),
        (&["jobs", "list", "--state", "gone"], "dead"),
        (&["user", "list", "--store", "memory:"][..], "sqlite:PATH"),
        (&["relay", "--store", "nonsense"][..], "sqlite:PATH"),
        (&["agent", "--engine", "steam"][..], "steam"),
    ] {
        let output = hearth(args);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
}

#[test]
fn doctor_names_the_broken_hop_and_what_to_do() {
    let output = hearth(&["doctor", "--relay", "http://127.0.0.1:1"]);
    assert!(!output.status.success());
    let said = text(&output.stdout);
    assert!(
        said.contains("BROKEN  relay") && said.contains("hearth relay"),
        "{said}"
    );
}

#[test]
fn the_relays_settings_come_from_options_the_environment_and_a_file_and_say_so() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("relay.toml");
    std::fs::write(&file, "lease = 90\nheartbeat = 9\npad-after = 30\n").unwrap();
    let told = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["relay", "--heartbeat", "7", "--print-config"])
            .args(more)
            .env_clear()
            .env("HOME", home.path())
            .env("HEARTH_LEASE", "80")
            .env("HEARTH_RELAY_CONFIG", &file)
            .output()
            .unwrap()
    };
    let explained = text(&told(&[]).stdout);
    let from_file = format!("pad-after = 30 # {}\n", file.display());
    for line in [
        "lease = 80 # HEARTH_LEASE\n",
        "heartbeat = 7 # --heartbeat\n",
        "listen = \"127.0.0.1:8787\" # default\n",
        &from_file,
    ] {
        assert!(explained.contains(line), "{line} in {explained}");
    }
    std::fs::write(&file, "leese = 90\n").unwrap();
    let refused = told(&[]);
    assert!(!refused.status.success());
    let error = text(&refused.stderr);
    assert!(error.contains("`leese` is not an option"), "{error}");
    std::fs::write(&file, "account-queued-max = \"many\"\n").unwrap();
    let error = text(&told(&[]).stderr);
    let place = file.display().to_string();
    assert!(
        error.contains(&place) && error.contains("'many'"),
        "{error}"
    );
    let missing = told(&["--config", "/nowhere/relay.toml"]);
    assert!(text(&missing.stderr).contains("/nowhere/relay.toml cannot be read"));
    assert!(!home.path().join("hearth-relay.db").exists());
}

#[test]
fn what_was_explained_is_a_settings_file_for_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let told = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args([&["relay", "--print-config"], args].concat())
            .env_clear()
            .env("HOME", home.path())
            .output()
            .unwrap()
    };
    let file = home.path().join("relay.toml");
    let explained = told(&["--lease", "77"]).stdout;
    std::fs::write(&file, &explained).unwrap();
    let again = told(&["--config", &file.display().to_string()]);
    let again = text(&again.stdout) + &text(&again.stderr);
    assert!(again.contains("lease = 77 # "), "{again}");
    let store = "/.local/share/hearth/relay.db\" # ";
    assert!(again.contains(store), "where the user's data are: {again}");
}

#[test]
fn a_wrong_value_in_the_environment_names_its_variable() {
    let home = tempfile::tempdir().unwrap();
    let asked = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args([&["relay"], args].concat())
            .env_clear()
            .env("HOME", home.path())
            .env("HEARTH_LEASE", "abc")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr)
    };
    let said = asked(&[]);
    assert!(said.contains("the value comes from HEARTH_LEASE"), "{said}");
    let said = asked(&["--lease", "abd"]);
    assert!(!said.contains("HEARTH_LEASE"), "{said}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking_into_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("typo.db");
    let store = format!("sqlite:{}", path.display());
    for args in [
        &["key", "list"][..],
        &["key", "revoke", "laptop"],
        &["user", "list"],
        &["user", "logout", "ann"],
        &["user", "remove", "ann"],
    ] {
        let output = hearth(&[args, &["--store", &store]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("there is no store at"), "{args:?}: {said}");
        assert!(said.contains(&store["sqlite:".len()..]), "{args:?}: {said}");
        assert!(!path.exists(), "{args:?}");
    }
}

#[test]
fn a_relay_without_a_key_names_its_store_and_one_without_a_certificate_does_not_say_it_listens() {
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(args)
            .env_clear()
            .env("HOME", home.path())
            .output()
            .unwrap()
    };
    let refused = run(&["relay", "--listen", "127.0.0.1:0"]);
    let said = text(&refused.stderr);
    let store = home.path().join(".local/share/hearth/relay.db");
    assert!(said.contains(&store.display().to_string()), "{said}");
    assert!(said.contains("hearth key create --store"), "{said}");

    // The default store is the same, though neither command names it.
    let made = run(&["key", "create", "--name", "laptop", "--scope", "read"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let tls = [
        "--tls-cert",
        "/nowhere/c.pem",
        "--tls-key",
        "/nowhere/k.pem",
    ];
    let refused = run(&[&["relay", "--listen", "127.0.0.1:0"][..], &tls].concat());
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("/nowhere/"), "{said}");
    assert_eq!(text(&refused.stdout), "", "nothing listens");
}

#[test]
fn keys_and_users_are_those_of_the_store_that_the_relays_settings_file_names_and_it_is_said() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/hearth");
    std::fs::create_dir_all(&config).unwrap();
    let [own, other] = ["own.db", "other.db"].map(|name| home.path().join(name));
    let says = |path: &std::path::Path| format!("store = \"sqlite:{}\"\n", path.display());
    std::fs::write(config.join("relay.toml"), says(&own)).unwrap();
    let named = home.path().join("named.toml");
    std::fs::write(&named, says(&other)).unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(args)
            .env_clear()
            .env("HOME", home.path())
            .output()
            .unwrap()
    };
    let done = |args: &[&str], store: &std::path::Path| {
        let output = run(args);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        let store = format!("store sqlite:{}\n", store.display());
        assert!(said.contains(&store), "{args:?}: {said}");
        text(&output.stdout)
    };

    // The relay has no key yet, so its error names the store.
    let refused = run(&["relay", "--listen", "127.0.0.1:0"]);
    let said = text(&refused.stderr);
    assert!(said.contains(&own.display().to_string()), "{said}");

    done(
        &["key", "create", "--name", "laptop", "--scope", "read"],
        &own,
    );
    let usual = home.path().join(".local/share/hearth/relay.db");
    assert!(!usual.exists(), "no store beside the one that is named");
    done(&["key", "revoke", "laptop"], &own);
    assert!(done(&["key", "list"], &own).contains("revoked"));
    done(&["user", "list"], &own);

    // `--config` and `--store` override the default file, and `--store` overrides the file.
    let file = named.display().to_string();
    let create = ["key", "create", "--name", "laptop", "--scope", "read"];
    done(&[&create[..], &["--config", &file]].concat(), &other);
    let listed = done(&["key", "list", "--config", &file], &other);
    assert!(listed.contains("active"), "{listed}");
    let store = format!("sqlite:{}", own.display());
    let listed = done(&["key", "list", "--config", &file, "--store", &store], &own);
    assert!(listed.contains("revoked"), "{listed}");

    std::fs::write(config.join("relay.toml"), "stoer = \"sqlite:x\"\n").unwrap();
    let refused = run(&["key", "list"]);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("`stoer` is not an option"),
        "{said}"
    );
    // With --store the file is not read, so an error in it does not prevent revoking.
    let store = format!("sqlite:{}", other.display());
    done(&["key", "revoke", "laptop", "--store", &store], &other);
}

#[tokio::test]
async fn the_log_is_filtered_as_the_help_says() {
    let help = text(&hearth(&["--help"]).stdout);
    let (_, example) = help.split_once("info,").unwrap();
    let target = example.split('=').next().unwrap();
    let home = Home::new();
    let mut relay = home.command(env!("CARGO_BIN_EXE_hearth"));
    relay.args(["relay", "--insecure-dev", "--listen", "127.0.0.1:0"]);
    relay.args(["--store", "memory:"]);
    relay.env("HEARTH_LOG", format!("off,{target}=info"));
    let mut relay = Process::start("the relay", relay);
    relay.says("the relay listens").await;
}
