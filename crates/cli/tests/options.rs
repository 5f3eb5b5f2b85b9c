//! The program's words: what it offers, and how it refuses.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::process::{Command, Output};

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
            "\"nonsense\" is not an address",
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
        "listen = 127.0.0.1:8787 # default\n",
        &from_file,
    ] {
        assert!(explained.contains(line), "{line} in {explained}");
    }
    std::fs::write(&file, "leese = 90\n").unwrap();
    let refused = told(&[]);
    assert!(!refused.status.success());
    let error = text(&refused.stderr);
    assert!(error.contains("`leese` is no option"), "{error}");
    let missing = told(&["--config", "/nowhere/relay.toml"]);
    assert!(text(&missing.stderr).contains("/nowhere/relay.toml cannot be read"));
    assert!(!home.path().join("hearth-relay.db").exists());
}
