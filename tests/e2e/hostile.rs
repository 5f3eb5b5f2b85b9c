//! Hostile requests: the relay refuses them and does not fail.

use std::time::Duration;

use hearth_tests::{
    hostile::{by_hand, by_the_document, operations, paths_beyond_use},
    scripted_ollama::Answer,
    test_bed::{TestBed, create_key},
};
use serde_json::{Value, json};

/// Disables the rate limits that would refuse most requests before they reach their target.
const OPEN: &[&str] = &["--failures-per-minute", "0"];

/// A key of each kind.
async fn keys(bed: &TestBed) -> Vec<String> {
    let mut keys = vec![bed.requester.clone(), bed.worker.clone()];
    for scope in ["enqueue", "read", "work", "admin"] {
        let name = format!("only-{scope}");
        keys.push(create_key(&bed.home, &["--name", &name, "--scope", scope]).await);
    }
    keys
}

#[tokio::test]
async fn hostile_requests_are_refused_and_break_nothing() {
    let (bed, ollama) = TestBed::scripted_with(OPEN, 1).await;
    let keys = keys(&bed).await;
    let operations = operations(&bed.http, bed.address).await.unwrap();
    let assault = by_hand(bed.address, &keys, &operations, 1_500, 3).await;
    assert_eq!(assault.requests, 1_500);
    assert!(assault.broken.is_empty(), "{assault}");
    assert_eq!(
        paths_beyond_use(&ollama),
        [""; 0],
        "an engine is asked for nothing else"
    );
    let healthy = bed.http.get(bed.url("/readyz")).send().await.unwrap();
    assert_eq!(healthy.status(), 200);
}

#[tokio::test]
async fn what_schemathesis_makes_of_the_document_is_answered_as_the_document_says() {
    let (bed, _ollama) = TestBed::scripted_with(OPEN, 1).await;
    let args = [
        "--name", "all", "--scope", "enqueue", "--scope", "read", "--scope", "work",
    ];
    let all = create_key(&bed.home, &[&args[..], &["--scope", "admin"]].concat()).await;
    let patience = Duration::from_secs(180);
    let assault = by_the_document(bed.address, Some(&all), 3, 5, patience)
        .await
        .unwrap();
    assert!(assault.broken.is_empty(), "{assault}");
    assert!(assault.requests > 100, "{assault}");
}

/// Words that would begin a line of a log, colour a terminal or reverse the text that follows.
const EVIL: &str = "evil\r\n{\"level\":\"ERROR\"}\u{1b}[31m\u{202e}\u{2028}";

/// Whether every line of a log is one event, and shows no character of [`EVIL`] as it is.
fn is_calm(log: &str) -> bool {
    let is_event = |line: &str| {
        let event: Option<Value> = serde_json::from_str(line).ok();
        let has_level = event.is_some_and(|event| event["level"].is_string());
        has_level && !line.contains(['\u{1b}', '\u{202e}', '\u{2028}'])
    };
    let mut lines = log.lines().filter(|line| line.starts_with('{')).peekable();
    lines.peek().is_some() && lines.all(is_event)
}

#[tokio::test]
async fn hostile_words_add_no_line_to_a_log_and_reverse_none() {
    let (mut bed, ollama) = TestBed::scripted_with(OPEN, 1).await;
    let error = json!({ "error": EVIL }).to_string();
    ollama.settle("/api/chat", Answer::json(500, &error));
    let message = json!([{ "role": "user", "content": EVIL }]);
    let user = json!({ "username": EVIL, "password": EVIL });
    for (path, body) in [
        ("/api/chat", json!({ "model": "tiny", "messages": message })),
        ("/api/chat", json!({ "model": EVIL, "messages": message })),
        (
            "/api/jobs",
            json!({ "op": EVIL, "body": { "model": EVIL } }),
        ),
        ("/api/sessions", user),
    ] {
        let asked = bed.http.post(bed.url(path)).bearer_auth(&bed.requester);
        asked.json(&body).send().await.unwrap();
    }
    let poll = json!({ "worker": EVIL, "slots": 1, "report": { "engine_version": EVIL } });
    let polled = bed.http.post(bed.url("/api/worker/v1/poll"));
    polled
        .bearer_auth(&bed.worker)
        .json(&poll)
        .send()
        .await
        .unwrap();
    let relay = bed.relay.take().unwrap();
    assert!(is_calm(&relay.log()), "{}", relay.log());

    // The agent does not trust the relay either.
    bed.agent.take().unwrap().kill().await;
    let refusal = json!({ "error": { "code": "busy", "message": EVIL } }).to_string();
    ollama.settle("/api/worker/v1", Answer::json(503, &refusal));
    bed.through = Some(ollama.url()["http://".len()..].parse().unwrap());
    let mut agent = bed.new_agent().await;
    agent.says("link ended").await;
    assert!(agent.log().contains("evil"), "{}", agent.log());
    assert!(is_calm(&agent.log()), "{}", agent.log());
}
