//! Readers of the response streams.

use futures_util::StreamExt as _;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::Shared;
use crate::auditor::{Ending, Seen};

/// One server-sent event.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// Number of 404 responses after which a job counts as lost.
const UNKNOWN_MAX: u32 = 20;

/// Follows a native job from its first event to its end, and reconnects when the stream breaks.
pub(super) async fn follow(shared: &Shared, n: u64, name: &str, id: &str, reading: u32) {
    let until = Instant::now() + shared.patience;
    let (mut last, mut is_over, mut unknown) = (String::new(), false, 0);
    while !is_over && Instant::now() < until {
        let path = format!("/api/jobs/{id}/events");
        let mut request = shared
            .http
            .get(shared.url(&path))
            .bearer_auth(shared.key(n));
        if !last.is_empty() {
            request = request.header("last-event-id", &last);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                let read = events(answer, |event| {
                    is_over |= note(shared, name, reading, &event);
                    if !event.id.is_empty() {
                        last = event.id;
                    }
                });
                // A job that never ends is given up, and the auditor reports it.
                let _ = timeout_at(until, read).await;
            }
            Ok(answer) => {
                let status = answer.status();
                shared.refused(answer.text().await.unwrap_or_default());
                // A single 404 may be an error; only repeated ones count.
                unknown += u32::from(status == StatusCode::NOT_FOUND);
                if unknown > UNKNOWN_MAX {
                    return;
                }
            }
            Err(_) => {}
        }
        if !is_over {
            sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Records an event; returns whether it is the end.
fn note(shared: &Shared, name: &str, reading: u32, event: &Event) -> bool {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    match event.name.as_str() {
        "end" => {
            let code = || {
                data["error"]["code"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let ending = match data["state"].as_str() {
                Some("completed") => Ending::Completed,
                Some("cancelled") => Ending::Cancelled,
                _ => Ending::Failed(code()),
            };
            shared.note(name, Seen::Ended(reading, ending));
            return true;
        }
        "restarted" => shared.note(name, Seen::Restarted(reading)),
        "" => {
            let text = data["message"]["content"].as_str().unwrap_or_default();
            if !text.is_empty() {
                shared.note(name, Seen::Piece(reading, text.to_owned()));
            }
        }
        _ => {}
    }
    false
}

/// Reads lines until the stream ends or breaks.
pub(super) async fn lines(answer: Response, mut see: impl FnMut(&str)) {
    let (mut stream, mut text) = (answer.bytes_stream(), Vec::new());
    while let Some(Ok(piece)) = stream.next().await {
        text.extend_from_slice(&piece);
        while let Some(at) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=at).collect();
            see(String::from_utf8_lossy(&line).trim_end());
        }
    }
}

/// Reads events until the stream ends or breaks.
pub(crate) async fn events(answer: Response, mut see: impl FnMut(Event)) {
    let mut event = Event::default();
    lines(answer, |line| {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let said = std::mem::take(&mut event);
                if !said.data.is_empty() {
                    see(said);
                }
            }
            "event" => event.name = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => event.data.push_str(value),
            _ => {}
        }
    })
    .await;
}
