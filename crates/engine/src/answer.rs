//! What the clients of engines share: bounded waits, lines, and errors put into words.

use bytes::Bytes;
use proto::limits;
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::{EngineError, LineSplitter};

/// Longest error body that is read, and longest message made of it.
const ERROR_BODY_MAX: usize = 64 * 1024;
const MESSAGE_MAX: usize = 1_000;
/// Longest message that is passed on as it is.
const OWN_WORDS_MAX: usize = 8_000;
/// Longest answer to a question about the engine itself.
const REPORT_MAX: usize = 16 * 1024 * 1024;

/// How long an engine may be silent.
#[derive(Debug, Clone)]
pub struct EngineTimes {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until a question about the engine itself is answered.
    pub report: Duration,
    /// Until the first line; Ollama itself gives a model 5 minutes to load.
    pub first_line: Duration,
    /// Between two lines.
    pub next_line: Duration,
    /// Until an answer that was asked for in one piece.
    pub whole_answer: Duration,
}

impl Default for EngineTimes {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            report: Duration::from_secs(5),
            first_line: Duration::from_secs(300),
            next_line: Duration::from_secs(60),
            whole_answer: Duration::from_secs(30 * 60),
        }
    }
}

/// Asks the engine about itself.
pub(crate) async fn ask(request: RequestBuilder, limit: Duration) -> Result<Bytes, EngineError> {
    let by = Instant::now() + limit;
    let response = send(request, by).await?;
    read(response, REPORT_MAX, by).await
}

/// Sends a request and waits for an answer that is not an error.
pub(crate) async fn send(request: RequestBuilder, by: Instant) -> Result<Response, EngineError> {
    send_and_hear(request, by, message).await
}

/// The same, with the words for an error taken from its body by `words`.
pub(crate) async fn send_and_hear(
    request: RequestBuilder,
    by: Instant,
    words: impl Fn(&[u8]) -> Option<String>,
) -> Result<Response, EngineError> {
    let response = match timeout_at(by, request.send()).await {
        Ok(response) => response.map_err(|error| EngineError::Unavailable(cause(&error)))?,
        Err(_) => return Err(EngineError::Unavailable("it did not answer in time".into())),
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
            "HTTP {status}: something else than an engine answers there"
        )),
        _ => EngineError::Refused { status, message },
    })
}

async fn read(mut response: Response, max: usize, by: Instant) -> Result<Bytes, EngineError> {
    let mut body = Vec::new();
    loop {
        match timeout_at(by, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= max => {
                body.extend_from_slice(&chunk);
            }
            Ok(Ok(Some(_))) => return Err(EngineError::Broken("its answer is too long".into())),
            Ok(Ok(None)) => return Ok(body.into()),
            Ok(Err(error)) => return Err(EngineError::Broken(cause(&error))),
            Err(_) => return Err(EngineError::Unavailable("it stopped answering".into())),
        }
    }
}

/// The lines of a response that is still arriving.
#[derive(Debug)]
pub(crate) struct ResponseLines {
    response: Response,
    splitter: LineSplitter,
    first_by: Option<Instant>,
    pause: Duration,
    is_over: bool,
}

impl ResponseLines {
    pub(crate) fn new(response: Response, first_by: Instant, pause: Duration) -> Self {
        Self {
            response,
            splitter: LineSplitter::new(limits::LINE_MAX),
            first_by: Some(first_by),
            pause,
            is_over: false,
        }
    }

    /// The next line, `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        let too_long = |error: crate::LineTooLong| EngineError::Broken(error.to_string());
        let by = self.first_by.unwrap_or_else(|| Instant::now() + self.pause);
        loop {
            if let Some(line) = self.splitter.next_line().map_err(too_long)? {
                self.first_by = None;
                return Ok(Some(line));
            }
            if self.is_over {
                return self.splitter.finish().map_err(too_long);
            }
            match timeout_at(by, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.splitter.push(&chunk),
                Ok(Ok(None)) => self.is_over = true,
                Ok(Err(error)) => return Err(EngineError::Broken(cause(&error))),
                Err(_) if self.first_by.is_some() => {
                    let problem = "it did not begin its answer in time";
                    return Err(EngineError::Unavailable(problem.into()));
                }
                Err(_) => {
                    let pause = self.pause.as_secs();
                    let problem = format!("it fell silent for {pause} s within its answer");
                    return Err(EngineError::Broken(problem));
                }
            }
        }
    }

    /// Reads the end of the body, so that the connection can serve the next request.
    pub(crate) async fn finish(mut self) {
        const SOON: Duration = Duration::from_millis(100);
        drop(timeout(SOON, self.response.chunk()).await);
    }
}

/// The sentence in an error body, however deep it is wrapped: Ollama hands on its runner's JSON
/// as text inside its own.
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

/// The text of Ollama's own `{"error":"text"}`, whatever it holds: its requester is told just
/// that. Anything else is put into words as usual.
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

/// The innermost cause, which names what failed; the outer ones repeat the address.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
