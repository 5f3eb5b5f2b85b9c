//! Heartbeats of every dialect, byte for byte.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::End;

use crate::{
    client::Reply,
    server::Server,
    wire::{question, strict_events, strict_lines},
    worker::{CHAT_DONE, Scripted, chat},
};

const BEAT: Duration = Duration::from_millis(20);
const GENERATE_DONE: &str = r#"{"model":"m","created_at":"2026-11-22T04:07:24Z","response":"","done":true,"done_reason":"stop"}"#;

async fn impatient() -> Server {
    let mut settings = RelaySettings::default();
    settings.heartbeat = BEAT;
    Server::with(settings).await
}

fn generated(text: &str) -> String {
    format!(
        r#"{{"model":"m","created_at":"2026-11-22T04:07:23Z","response":"{text}","done":false}}"#
    )
}

/// Returns the first chunk that is not a heartbeat; all earlier chunks must be.
async fn after_beats(reply: &mut Reply, is_beat: impl Fn(&str) -> bool) -> String {
    loop {
        let chunk = reply.chunk().await.unwrap();
        if !is_beat(&chunk) {
            return chunk;
        }
    }
}

/// Replaces the time in a line, which differs on each run.
fn timeless(chunk: &str) -> String {
    let (before, rest) = chunk.split_once(r#""created_at":""#).unwrap();
    let (moment, after) = rest.split_once('"').unwrap();
    assert!(moment.ends_with('Z') && moment.contains('T'), "{chunk}");
    format!(r#"{before}"created_at":"NOW"{after}"#)
}

#[tokio::test]
async fn ndjson_clients_get_whole_lines_without_text_before_and_between_tokens() {
    let server = impatient().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (path, beat, line, last) in [
        (
            "/api/chat",
            r#"{"model":"m","created_at":"NOW","message":{"role":"assistant","content":""},"done":false}"#,
            chat("one"),
            CHAT_DONE,
        ),
        (
            "/api/generate",
            r#"{"model":"m","created_at":"NOW","response":"","done":false}"#,
            generated("one"),
            GENERATE_DONE,
        ),
    ] {
        let beat = format!("{beat}\n");
        let is_beat = |chunk: &str| {
            assert_eq!(strict_lines(chunk).len(), 1, "{chunk}");
            timeless(chunk) == beat
        };
        let mut reply = client
            .post(path, r#"{"model":"m","prompt":"x","messages":[{}]}"#)
            .await;
        let first = reply.chunk().await.unwrap();
        assert_eq!(timeless(&first), beat, "before the first token");

        let job = worker.lease().await;
        worker.line(job.token(), 1, &line).await;
        let token = after_beats(&mut reply, is_beat).await;
        assert_eq!(token, format!("{line}\n"), "byte for byte");
        let between = reply.chunk().await.unwrap();
        assert_eq!(timeless(&between), beat, "between two tokens");
        worker.line(job.token(), 2, last).await;
        worker.end(job.token(), 2, End::Completed).await;
        let end = after_beats(&mut reply, is_beat).await;
        assert_eq!(end, format!("{last}\n"));
        assert_eq!(reply.chunk().await, None);
    }
}

#[tokio::test]
async fn event_streams_get_comments_of_one_line_feed_before_and_between_tokens() {
    let server = impatient().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let native = r#"{"op":"chat","body":{"model":"m","messages":[{}]}}"#;
    for (path, names) in [
        ("/v1/chat/completions", false),
        ("/v1/completions", false),
        ("/v1/responses", true),
        ("/v1/messages", true),
        ("/api/jobs", true),
    ] {
        let is_native = path == "/api/jobs";
        let mut reply = if is_native {
            let job = client.post(path, native).await.json().await;
            let id = job["id"].as_str().unwrap();
            client.get(&format!("/api/jobs/{id}/events")).await
        } else {
            client.post(path, question(path, true)).await
        };
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("content-type"), "text/event-stream");
        assert_eq!(reply.header("cache-control"), "no-cache");
        assert_eq!(reply.header("x-accel-buffering"), "no");
        // Anthropic has its own event for it, which must not precede the first event.
        let beat = match path {
            "/v1/messages" => "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            _ => ": ping\n",
        };
        let is_beat = |chunk: &str| chunk == beat;
        let mut all = reply.chunk().await.unwrap();
        let before = match path {
            "/v1/messages" => all.split_inclusive("\n\n").nth(1).unwrap(),
            _ => &all,
        };
        assert_eq!(before, beat, "before the first token");

        let job = worker.lease().await;
        worker.line(job.token(), 1, &chat("one")).await;
        all += &after_beats(&mut reply, is_beat).await;
        let between = reply.chunk().await.unwrap();
        assert_eq!(between, beat, "between two tokens");
        worker.line(job.token(), 2, CHAT_DONE).await;
        worker.end(job.token(), 2, End::Completed).await;
        all += &between;
        all += &reply.text().await;

        let mut events = strict_events(&all);
        let (name, data) = events.last().unwrap();
        match path {
            "/api/jobs" => assert_eq!(name, "end"),
            "/v1/responses" => assert_eq!(name, "response.completed"),
            "/v1/messages" => assert_eq!(name, "message_stop"),
            _ => assert_eq!((name.as_str(), data.as_str()), ("", "[DONE]")),
        }
        events.retain(|(_, data)| data != "[DONE]");
        for (name, data) in events {
            assert!(names || name.is_empty(), "{path}: {all}");
            serde_json::from_str::<serde_json::Value>(&data).unwrap();
        }
    }
}

#[tokio::test]
async fn lines_that_say_nothing_to_a_client_do_not_put_off_its_sign_of_life() {
    let mut settings = RelaySettings::default();
    settings.heartbeat = Duration::from_millis(150);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let asked = tokio::spawn(async move { client.post("/v1/chat/completions", body).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    assert!(reply.chunk().await.unwrap().contains("one"));
    // The model sends empty lines faster than heartbeats are due.
    let silent = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for n in 2.. {
            every.tick().await;
            worker.line(job.token(), n, &chat("")).await;
        }
    };
    tokio::select! {
        beat = reply.chunk() => assert_eq!(beat.unwrap(), ": ping\n"),
        () = silent => unreachable!("it never ends"),
    }
}
