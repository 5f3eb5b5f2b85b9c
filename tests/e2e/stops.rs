//! The relay ends because it is asked to, or because its disk fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearth_tests::{
    has_strace,
    process::{Home, PATIENCE, Process},
    scripted_ollama::{Answer, ScriptedOllama},
    test_bed::TestBed,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{
    process::Command,
    task::JoinSet,
    time::{Instant, timeout},
};

const WORD: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"one two"},"done":false}"#;
const DONE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;

/// Number of restarts under load.
const RESTARTS: u64 = 5;
const ASKING: u64 = 8;
/// Minimum number of answers between two restarts.
const BETWEEN: u64 = 20;

/// Sends a request under one idempotency key until there is a whole answer.
async fn asked(request: RequestBuilder) -> Value {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no answer, however often asked");
        let sent = request.try_clone().unwrap().send().await;
        let answer = match sent {
            Ok(reply) => {
                let is_late = [429, 502, 503].contains(&reply.status().as_u16());
                assert!(reply.status().is_success() || is_late, "{reply:?}");
                if is_late {
                    None
                } else {
                    reply.json().await.ok()
                }
            }
            // The relay is down, or ended in the middle.
            Err(_) => None,
        };
        // An error after the status line is in the body.
        match answer.filter(|answer: &Value| answer.get("error").is_none()) {
            Some(answer) => return answer,
            None => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn restarts_under_load_fail_no_request_that_is_tried_again() {
    let (mut bed, ollama) = TestBed::scripted_with(&[], 4).await;
    ollama.settle("/api/chat", Answer::lines([WORD, DONE]));
    let (answers, asking) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
    let mut crowd = JoinSet::new();
    for who in 0..ASKING {
        let (answers, asking) = (Arc::clone(&answers), Arc::clone(&asking));
        let (http, url, key) = (
            bed.http.clone(),
            bed.url("/api/chat"),
            bed.requester.clone(),
        );
        crowd.spawn(async move {
            let mut n = 0;
            while asking.load(Ordering::SeqCst) == 1 {
                n += 1;
                let message = json!({"role": "user", "content": format!("{who} {n}")});
                let body = json!({"model": "tiny", "messages": [message], "stream": false});
                let request = http
                    .post(&url)
                    .bearer_auth(&key)
                    .header("idempotency-key", format!("{who}-{n}"))
                    .json(&body);
                let answer = asked(request).await;
                assert_eq!(answer["message"]["content"], "one two", "{answer}");
                answers.fetch_add(1, Ordering::SeqCst);
            }
            n
        });
    }
    let mut slowest = Duration::ZERO;
    for restart in 1..=RESTARTS {
        let come = async {
            while answers.load(Ordering::SeqCst) < restart * BETWEEN {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, come).await.expect("nobody is answered");
        let begun = Instant::now();
        let status = bed.relay.take().unwrap().terminate().await;
        slowest = slowest.max(begun.elapsed());
        assert!(status.success(), "{status}");
        bed.start_relay().await;
    }
    asking.store(0, Ordering::SeqCst);
    let mut all = 0;
    while let Some(done) = timeout(PATIENCE, crowd.join_next()).await.unwrap() {
        all += done.unwrap();
    }
    assert_eq!(all, answers.load(Ordering::SeqCst));
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
    println!("{all} requests, {RESTARTS} restarts, 0 failed; the slowest stop took {slowest:?}");
}

#[tokio::test]
async fn a_second_signal_ends_a_relay_at_once_though_a_job_runs() {
    let (mut bed, ollama) = TestBed::scripted_with(&[], 1).await;
    ollama.settle("/api/chat", Answer::begin().send_lines([WORD]));
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "?"}]});
    let mut answer = bed.post("/api/chat", &body).send().await.unwrap();
    answer.chunk().await.unwrap().unwrap();
    let mut relay = bed.relay.take().unwrap();
    let begun = Instant::now();
    relay.ask_to_end();
    relay.says("a second signal stops it at once").await;
    relay.ask_to_end();
    let status = relay.wait().await;
    assert_eq!(status.code(), Some(1), "{}", relay.log());
    assert!(relay.log().contains("stopped at once by a second signal"));
    // Without the second signal it would wait 25 s for the running job.
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// A command that injects a system error into this process.
fn tracer(home: &Home, pid: u32, what: &str) -> Command {
    let mut strace = home.command("strace");
    strace.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
    strace.args(["-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", &format!("inject=fsync,fdatasync:{what}")]);
    strace
}

#[tokio::test]
async fn a_relay_whose_disk_breaks_a_write_acknowledges_nothing_of_it_and_ends_with_one_line() {
    if !has_strace("to make a write fail") {
        return;
    }
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let before = bed.submit("before").await.unwrap();
    let mut relay = bed.relay.take().unwrap();
    let command = tracer(&bed.home, relay.id().unwrap(), "error=EIO");
    let mut tracer = Process::start("strace", command);
    tracer.says("attached").await;

    assert_eq!(bed.submit("during").await, None, "it was acknowledged");
    let status = relay.wait().await;
    assert_eq!(status.code(), Some(1), "{}", relay.log());
    let said = relay.log();
    let last: Vec<_> = said.lines().filter(|l| l.starts_with("hearth: ")).collect();
    assert!(
        last.len() == 1 && last[0].contains("could not be written"),
        "{said}"
    );
    tracer.wait().await;

    // The next relay finds every acknowledged job, and continues.
    bed.start_relay().await;
    ollama.settle("/api/chat", Answer::lines([WORD, DONE]));
    bed.start_agent().await;
    let answered = bed.answer(before).await;
    assert_eq!(answered.text, "one two", "{answered:?}");
}
