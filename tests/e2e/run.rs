//! The README's first command, as a new user runs it.

use std::path::Path;

use hearth_tests::{
    process::{Home, Process, binary, finish},
    scripted_ollama::ScriptedOllama,
    test_bed::client,
};
use tokio::process::Command;

/// `./x run` with the existing build, in its own home and on its own ports.
async fn run(home: &Home, once: bool) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = home.command(root.join("x"));
    command.arg("run").args(once.then_some("--once"));
    command.env("HEARTH_BIN_DIR", binary("hearth").parent().unwrap());
    // No other program takes the port between its release here and the relay's start.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    command.env("HEARTH_LISTEN", free.to_string());
    command
        .env("HEARTH_STATUS_PORT", "0")
        .env("HEARTH_HTTP_PORT", "0");
    command
}

#[tokio::test]
async fn run_once_prints_the_answer_of_the_engine_that_is_there_and_ends_well_twice() {
    let (home, ollama) = (Home::new(), ScriptedOllama::start().await.unwrap());
    for _ in 0..2 {
        let mut command = run(&home, true).await;
        command
            .env("OLLAMA_HOST", ollama.url())
            .env("HEARTH_QUESTION", "Echo, please");
        let done = finish(command).await;
        assert!(done.status.success(), "{}\n{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("Echo, please"), "{}", done.stdout);
        assert!(done.stderr.contains("headless agent"), "{}", done.stderr);
    }
    assert_eq!(ollama.requests_for("/api/chat").len(), 2);
}

#[tokio::test]
async fn a_broken_hop_is_named_and_the_command_fails() {
    let (home, ollama) = (Home::new(), ScriptedOllama::start().await.unwrap());
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = run(&home, true).await;
    command.env("OLLAMA_HOST", ollama.url());
    command.env("HEARTH_LISTEN", taken.local_addr().unwrap().to_string());
    let done = finish(command).await;
    assert!(!done.status.success());
    assert!(
        done.stderr.contains("run: the relay is broken"),
        "{}",
        done.stderr
    );
}

#[tokio::test]
async fn run_stays_up_says_where_everything_listens_and_ends_all_at_a_signal() {
    let (home, ollama) = (Home::new(), ScriptedOllama::start().await.unwrap());
    let mut command = run(&home, false).await;
    command.env("OLLAMA_HOST", ollama.url());
    let mut up = Process::start("./x run", command);
    let relay = up.says("  relay      ").await;
    let dashboard = up.says("  dashboard  ").await;
    assert_eq!(dashboard, format!("{relay}/"));
    let hub = up.says("  status     ws://").await;
    let health = client();
    let answer = health.get(format!("{relay}/healthz")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    up.terminate().await;
    assert!(
        tokio::net::TcpStream::connect(&hub).await.is_err(),
        "the agent ended"
    );
    assert!(
        health.get(format!("{relay}/healthz")).send().await.is_err(),
        "the relay ended"
    );
}
