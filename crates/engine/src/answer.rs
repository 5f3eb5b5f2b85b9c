//! Shared by the clients of engines: requests, lines of a response, and error messages.

use bytes::Bytes;
use proto::{cause, limits};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::{
    EngineError, LineSplitter,
    times::{Deadline, Limit},
};

/// Maximum size of an error body that is read, in bytes.
const ERROR_BODY_MAX: usize = 64 * 1024;
/// Maximum length of a message made from an error body, in characters.
const MESSAGE_MAX: usize = 1_000;
/// Maximum length of an engine's own error message that is passed on, in characters.
const OWN_WORDS_MAX: usize = 8_000;
/// Maximum size of an engine's answer about itself or its models, in bytes.
const REPORT_MAX: usize = 16 * 1024 * 1024;

/// Sends a request about the engine itself and reads the answer.
pub(crate) async fn ask(request: RequestBuilder, limit: Duration) -> Result<Bytes, EngineError> {
    let by = Limit::fixed(limit).starting_now();
    let response = send(request, by).await?;
    read(response, REPORT_MAX, by.at).await
}

/// Maps every error of such a request to "unavailable": an engine that does not answer it is down.
pub(crate) fn not_up(error: EngineError) -> EngineError {
    EngineError::Unavailable(match error {
        EngineError::Refused { status, message } => format!("HTTP {status}: {message}"),
        EngineError::Unavailable(problem)
        | EngineError::Busy(problem)
        | EngineError::Failed(problem)
        | EngineError::Broken(problem)
        | EngineError::Unusable(problem) => problem,
        EngineError::TooLong => "its answer is too long".into(),
    })
}

/// Sends a request and waits for a response that is not an error.
pub(crate) async fn send(request: RequestBuilder, by: Deadline) -> Result<Response, EngineError> {
    send_and_hear(request, by, message).await
}

/// Sends a request; `words` extracts the message from the body of an error.
pub(crate) async fn send_and_hear(
    request: RequestBuilder,
    by: Deadline,
    words: impl Fn(&[u8]) -> Option<String>,
) -> Result<Response, EngineError> {
    let response = match timeout_at(by.at, request.send()).await {
        Ok(response) => response.map_err(|error| EngineError::Unavailable(cause(&error)))?,
        Err(_) => return Err(too_late(by.limit)),
    };
    let status = response.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let soon = Instant::now() + Duration::from_secs(5);
    let body = read(response, ERROR_BODY_MAX, soon)
        .await
        .unwrap_or_default();
    let message = words(&body).unwrap_or_else(|| format!("HTTP {status} without a reason"));
    Err(match status {
        429 | 503 => EngineError::Busy(message),
        502 | 504 => EngineError::Unavailable(message),
        300..400 => EngineError::Unavailable(format!(
            "HTTP {status}: something other than an engine answers there"
        )),
        _ => EngineError::Refused { status, message },
    })
}

/// The error for a timeout. It does not mean that the engine is down, which its connection and its
/// answers about itself show: an engine may just be slow.
fn too_late(limit: Limit) -> EngineError {
    EngineError::Broken(limit.explain("it did not begin its answer in time"))
}

async fn read(mut response: Response, max: usize, by: Instant) -> Result<Bytes, EngineError> {
    let mut body = Vec::new();
    loop {
        match timeout_at(by, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= max => {
                body.extend_from_slice(&chunk);
            }
            Ok(Ok(Some(_))) => return Err(EngineError::TooLong),
            Ok(Ok(None)) => return Ok(body.into()),
            Ok(Err(error)) => return Err(EngineError::Broken(cause(&error))),
            Err(_) => return Err(EngineError::Broken("it stopped answering".into())),
        }
    }
}

/// The lines of a response that is still arriving.
#[derive(Debug)]
pub(crate) struct ResponseLines {
    response: Response,
    splitter: LineSplitter,
    first_by: Option<Deadline>,
    pause: Limit,
    is_over: bool,
}

impl ResponseLines {
    pub(crate) fn new(response: Response, first_by: Deadline, pause: Limit) -> Self {
        Self {
            response,
            splitter: LineSplitter::new(limits::LINE_MAX),
            first_by: Some(first_by),
            pause,
            is_over: false,
        }
    }

    /// Returns the next line, or `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        let too_long = |_: crate::LineTooLong| EngineError::TooLong;
        let by = self.first_by.unwrap_or_else(|| self.pause.starting_now());
        loop {
            if let Some(line) = self.splitter.next_line().map_err(too_long)? {
                self.first_by = None;
                return Ok(Some(line));
            }
            if self.is_over {
                return self.splitter.finish().map_err(too_long);
            }
            match timeout_at(by.at, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.splitter.push(&chunk),
                Ok(Ok(None)) => self.is_over = true,
                Ok(Err(error)) => return Err(EngineError::Broken(cause(&error))),
                Err(_) if self.first_by.is_some() => return Err(too_late(by.limit)),
                Err(_) => {
                    let pause = by.limit.time.as_secs();
                    let silent = format!("it was silent for {pause} s in the middle of its answer");
                    return Err(EngineError::Broken(by.limit.explain(&silent)));
                }
            }
        }
    }

    /// Reads the end of the body, so that the connection can be reused.
    pub(crate) async fn finish(mut self) {
        const SOON: Duration = Duration::from_millis(100);
        drop(timeout(SOON, self.response.chunk()).await);
    }
}

/// Extracts the message from an error body, at any depth: Ollama passes on its runner's JSON as
/// text inside its own.
pub(crate) fn message(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => sentence(value, 4),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_MAX)
        .collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Extracts the text of Ollama's own `{"error":"text"}` unchanged, which is passed on to the
/// requester, and the message of any other error body like [`message`].
pub(crate) fn own_words(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Error {
        error: String,
    }
    match serde_json::from_slice::<Error>(body) {
        Ok(Error { error }) if !error.trim().is_empty() => {
            Some(error.chars().take(OWN_WORDS_MAX).collect())
        }
        Ok(_) | Err(_) => message(body),
    }
}

fn sentence(value: Value, depth: usize) -> String {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(inner @ Value::Object(_)) if depth > 0 => sentence(inner, depth - 1),
            Ok(_) | Err(_) => text,
        },
        Value::Object(mut map) if depth > 0 => {
            let inner = ["error", "message", "detail"]
                .into_iter()
                .find_map(|key| map.shift_remove(key));
            inner.map_or_else(String::new, |inner| sentence(inner, depth - 1))
        }
        Value::Null => String::new(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use tokio::time::sleep;

    use super::*;
    use crate::EngineTimes;

    /// Reads lines that arrive after these pauses, in seconds.
    async fn read(pauses: [u64; 3]) -> Vec<Result<Bytes, EngineError>> {
        let times = EngineTimes::default();
        let lines = stream::iter(pauses).then(|pause| async move {
            sleep(Duration::from_secs(pause)).await;
            Ok::<_, std::convert::Infallible>("{}\n")
        });
        let response = http::Response::new(reqwest::Body::wrap_stream(lines));
        let first_by = times.to_first_line().starting_now();
        let mut lines = ResponseLines::new(response.into(), first_by, times.to_next_line());
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.transpose() {
            let is_over = line.is_err();
            read.push(line);
            if is_over {
                break;
            }
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_prompt_and_a_long_call_of_a_tool_are_waited_for_and_silence_is_not() {
        // A prompt of 60,000 tokens at 40 a second, then one line of 4,000 tokens at 8 a second.
        let read_all = read([1_500, 1, 500]).await;
        assert!(read_all.iter().all(Result::is_ok), "{read_all:?}");
        for (silent, option) in [
            ([1_801, 0, 0], "`--first-line-timeout`"),
            ([1, 1, 601], "`--next-line-timeout`"),
        ] {
            let read = read(silent).await;
            let Some(Err(EngineError::Broken(problem))) = read.last() else {
                panic!("{read:?}");
            };
            assert!(problem.contains(option), "{problem}");
        }
    }

    #[test]
    fn an_error_is_unwrapped_to_its_sentence() {
        for (body, says) in [
            (
                r#"{"error":"model 'x' not found"}"#,
                Some("model 'x' not found"),
            ),
            (
                r#"{"error":"{\"error\":{\"code\":400,\"message\":\"too long\",\"type\":\"t\"}}"}"#,
                Some("too long"),
            ),
            (
                r#"{"error":{"message":"no such model","code":null}}"#,
                Some("no such model"),
            ),
            (r#"{"error":"{not json"}"#, Some("{not json")),
            ("404 page not found\n", Some("404 page not found")),
            ("a\r\nb\u{1b}[31m", Some("a  b [31m")),
            ("", None),
            ("{}", None),
            (r#"{"error":null}"#, None),
        ] {
            assert_eq!(message(body.as_bytes()).as_deref(), says, "{body}");
        }
        let wrapped = r#"{"error":"{\"error\":{\"message\":\"a\\nb\"}}"}"#;
        let inner = r#"{"error":{"message":"a\nb"}}"#;
        assert_eq!(own_words(wrapped.as_bytes()).as_deref(), Some(inner));
        assert_eq!(
            own_words(b"404 page not found").as_deref(),
            Some("404 page not found")
        );
        let long = message("x".repeat(5_000).as_bytes()).unwrap();
        assert_eq!(long.len(), MESSAGE_MAX);
    }
}
