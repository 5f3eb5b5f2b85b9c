//! `hearth user` on its own store, run as an operator does.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn user(folder: &Path, args: &[&str], input: &str) -> Output {
    let store = format!("sqlite:{}", folder.join("relay.db").display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .arg("user")
        .args(args)
        .env_clear()
        .env("HOME", folder)
        .env("HEARTH_STORE", store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no password may have ended already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn a_user_is_made_listed_changed_and_removed_and_no_password_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str], input: &str| {
        let output = user(folder.path(), args, input);
        let said = said(&output);
        assert!(!said.contains("correct"), "{said}");
        let said = said
            .lines()
            .filter(|line| !line.starts_with("store sqlite:"));
        let said = said.map(|line| format!("{line}\n")).collect::<String>();
        (output.status.success(), said)
    };
    let create = [
        "create",
        "--name",
        "worker",
        "--role",
        "service",
        "--password-stdin",
    ];
    let (done, told) = run(&create, "correct horse\n");
    assert!(done, "{told}");
    assert_eq!(
        told,
        "created user worker: id 1; role service; account default\n"
    );
    let (done, told) = run(&create, "correct horse\n");
    assert!(!done && told.contains("worker already exists"), "{told}");
    let (_, told) = run(&["list"], "");
    assert!(
        told.contains("worker") && told.contains("last login never"),
        "{told}"
    );
    let (_, told) = run(&["list", "--json"], "");
    let users: Value = serde_json::from_str(&told).unwrap();
    assert!(users[0]["created_at"].as_i64() > Some(1_700_000_000_000));
    assert_eq!(
        users,
        json!([{"id": 1, "name": "worker", "role": "service", "account": "default",
            "created_at": users[0]["created_at"], "last_login_at": null}])
    );
    let (done, told) = run(
        &["password", "--password-stdin", "worker"],
        "correct battery",
    );
    assert!(done && told == "changed the password of worker\n", "{told}");
    let (done, told) = run(&["logout", "worker"], "");
    assert!(done && told == "logged out worker\n", "{told}");
    let (done, told) = run(&["logout", "--all"], "");
    assert!(
        done && told.starts_with("logged out all users (1)"),
        "{told}"
    );
    for wrong in [&["logout"][..], &["logout", "--all", "worker"]] {
        let (done, told) = run(wrong, "");
        assert!(!done && told.contains("NAME"), "{told}");
    }
    let (done, told) = run(&["remove", "worker"], "");
    assert!(done && told == "removed worker\n", "{told}");
    let (done, told) = run(&["remove", "worker"], "");
    assert!(!done && told.contains("no user named \"worker\""), "{told}");
}

#[test]
fn a_bad_name_or_password_makes_no_user() {
    let folder = tempfile::tempdir().unwrap();
    for (name, input, word) in [
        ("two words", "correct horse", "a user's name must have"),
        ("worker", "1234567\n", "at least 8 characters"),
        ("worker", "", "at least 8 characters"),
        ("worker", "correct horse\nbattery\n", "more than one line"),
    ] {
        let args = ["create", "--name", name, "--password-stdin"];
        let output = user(folder.path(), &args, input);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(word), "{said}");
    }
    let output = user(folder.path(), &["create", "--name", "worker"], "");
    assert!(
        said(&output).contains("--password-stdin"),
        "{}",
        said(&output)
    );
    let listed = said(&user(folder.path(), &["list"], ""));
    assert!(
        listed.contains("there is no store"),
        "none was made: {listed}"
    );
}
