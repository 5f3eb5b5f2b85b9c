//! Ollama's native API. Requests and lines pass byte for byte; only what routes is read.

use std::borrow::Cow;

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName, Op, Timestamp, WorkerReport};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{clock::rfc3339, line::Line};

/// The version told when no Ollama is online: the lowest that known clients accept.
pub const VERSION_FLOOR: &str = "0.6.4";
/// What `GET /` answers; clients test for exactly this.
pub const RUNNING: &str = "Ollama is running";

/// The fields a relay routes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The model, unless absent or empty.
    pub model: Option<String>,
    /// Whether lines or one object are wanted; lines when nothing is said.
    pub stream: bool,
}

/// Reads the routing fields of a request and checks that it is one JSON object in UTF-8.
///
/// # Errors
/// `bad_request` or `malformed_json`, worded as Ollama words them where it is exact about it.
pub fn request_head(body: &[u8]) -> Result<RequestHead, ErrorDetail> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(default, borrow)]
        model: Option<Cow<'a, str>>,
        #[serde(default)]
        stream: Option<bool>,
    }
    let fields: Fields<'_> = parse(body)?;
    Ok(RequestHead {
        model: fields
            .model
            .filter(|model| !model.is_empty())
            .map(Cow::into_owned),
        stream: fields.stream.unwrap_or(true),
    })
}

/// Reads a request of any dialect, telling "no body", "no JSON" and "wrong field" apart.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ErrorDetail> {
    if body.is_empty() {
        return Err(refuse(ErrorCode::BadRequest, "missing request body"));
    }
    let text = std::str::from_utf8(body).map_err(|_| {
        refuse(
            ErrorCode::MalformedJson,
            "the body is not UTF-8; send JSON in UTF-8",
        )
    })?;
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        refuse(code, error.to_string())
    })
}

pub(crate) fn refuse(code: ErrorCode, message: impl Into<String>) -> ErrorDetail {
    ErrorDetail {
        code,
        message: message.into(),
    }
}

/// Puts a model into a request that names none; everything else stays as it was.
///
/// # Errors
/// `malformed_json` if the request is not an object.
pub fn with_model(body: &[u8], model: &ModelName) -> Result<Bytes, ErrorDetail> {
    let mut request: Map<String, Value> = parse(body)?;
    request.shift_remove("model");
    let mut named = Map::with_capacity(request.len() + 1);
    named.insert("model".into(), model.as_str().into());
    named.extend(request);
    Ok(json(&named))
}

/// `{"error":"text"}`: every error, as a body or as the last line of a stream.
#[must_use]
pub fn error(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    json(&Error { error: message })
}

/// The text for a model nobody has; `embed` words it differently.
#[must_use]
pub fn model_not_found(op: Op, model: &str) -> String {
    match op {
        Op::Chat | Op::Generate => format!("model '{model}' not found"),
        Op::Embed => format!("model \"{model}\" not found, try pulling it first"),
    }
}

/// A line without text, the only heartbeat that NDJSON clients survive. `None` for `embed`,
/// which has no stream.
#[must_use]
pub fn heartbeat(op: Op, model: &ModelName, now: Timestamp) -> Option<Bytes> {
    let created_at = rfc3339(now);
    match op {
        Op::Chat => Some(json(&serde_json::json!({
            "model": model, "created_at": created_at,
            "message": {"role": "assistant", "content": ""}, "done": false,
        }))),
        Op::Generate => Some(json(&serde_json::json!({
            "model": model, "created_at": created_at, "response": "", "done": false,
        }))),
        Op::Embed => None,
    }
}

/// The one object of `"stream":false`: a lone line as it is, several put together.
///
/// # Errors
/// `engine_failed` if there is no line or the last is not an object.
pub fn joined(lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
    let last = match lines {
        [] => return Err(no_answer()),
        [one] => return Ok(one.clone()),
        [.., last] => last,
    };
    let mut answer: Map<String, Value> = serde_json::from_slice(last).map_err(|_| no_answer())?;
    let (mut text, mut thinking, mut calls) = (String::new(), String::new(), Vec::new());
    for bytes in lines {
        let line = Line::parse(bytes).ok_or_else(no_answer)?;
        text.push_str(line.text());
        thinking.push_str(line.thinking());
        calls.extend(tool_calls(bytes));
    }
    let target = match answer.get_mut("message") {
        Some(Value::Object(message)) => {
            message.insert("content".into(), text.into());
            message
        }
        _ => {
            answer.insert("response".into(), text.into());
            &mut answer
        }
    };
    if !thinking.is_empty() {
        target.insert("thinking".into(), thinking.into());
    }
    if !calls.is_empty() {
        target.insert("tool_calls".into(), calls.into());
    }
    Ok(json(&answer))
}

fn tool_calls(line: &[u8]) -> Vec<Value> {
    let Ok(mut line) = serde_json::from_slice::<Value>(line) else {
        return Vec::new();
    };
    match line.pointer_mut("/message/tool_calls").map(Value::take) {
        Some(Value::Array(calls)) => calls,
        _ => Vec::new(),
    }
}

fn no_answer() -> ErrorDetail {
    refuse(
        ErrorCode::EngineFailed,
        "the engine ended without a complete answer; send the request again",
    )
}

/// `GET /api/tags`: what the workers have, each model once, its entry byte for byte.
#[must_use]
pub fn tags<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Bytes {
    #[derive(Serialize)]
    struct Tags<'a> {
        models: Vec<&'a RawValue>,
    }
    let models = merged(reports)
        .into_iter()
        .map(|(_, tag)| tag)
        .collect::<Vec<_>>();
    json(&Tags { models })
}

/// Every model of several workers once, in the order they were reported.
pub(crate) fn merged<'a>(
    reports: impl IntoIterator<Item = &'a WorkerReport>,
) -> Vec<(&'a ModelName, &'a RawValue)> {
    let mut merged: Vec<(&ModelName, &RawValue)> = Vec::new();
    for model in reports.into_iter().flat_map(|report| &report.models) {
        if !merged.iter().any(|(name, _)| name.is_same(&model.name)) {
            merged.push((&model.name, &model.tag));
        }
    }
    merged
}

/// `GET /api/version`: the lowest of these versions as dotted numbers, else [`VERSION_FLOOR`].
#[must_use]
pub fn version<'a>(versions: impl IntoIterator<Item = &'a str>) -> Bytes {
    #[derive(Serialize)]
    struct Version {
        version: String,
    }
    let lowest = versions.into_iter().filter_map(numbers).min();
    let version = lowest.map_or_else(
        || VERSION_FLOOR.to_owned(),
        |numbers| numbers.map(|n| n.to_string()).join("."),
    );
    json(&Version { version })
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let release = version.split(['-', '+']).next()?;
    let mut parts = release.trim_start_matches('v').split('.');
    let mut next = || parts.next().map_or(Ok(0), str::parse);
    let numbers = [next().ok()?, next().ok()?, next().ok()?];
    Some(numbers)
}

/// Serialising our own plain structures cannot fail; an empty body would be the sign of it.
pub(crate) fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use proto::{EngineKind, ModelEntry};

    use super::*;

    fn report(models: &[(&str, &str)]) -> WorkerReport {
        WorkerReport {
            engine: EngineKind::Ollama,
            engine_version: "0.12.0".into(),
            engine_up: true,
            models: models
                .iter()
                .map(|(name, tag)| ModelEntry {
                    name: ModelName::new(*name).unwrap(),
                    loaded: false,
                    tag: RawValue::from_string((*tag).into()).unwrap(),
                })
                .collect(),
        }
    }

    #[test]
    fn the_routing_fields_are_read_and_a_stream_is_the_default() {
        let head = request_head(br#"{"model":"m","messages":[{"x":[1]}]}"#).unwrap();
        assert_eq!((head.model.as_deref(), head.stream), (Some("m"), true));
        let head = request_head(br#"{"stream":false,"model":""}"#).unwrap();
        assert_eq!((head.model, head.stream), (None, false));
    }

    #[test]
    fn what_is_no_request_is_refused_by_kind() {
        let code = |body: &[u8]| request_head(body).unwrap_err().code;
        assert_eq!(code(b"{"), ErrorCode::MalformedJson);
        assert_eq!(code(b"hello"), ErrorCode::MalformedJson);
        assert_eq!(code(b"{\"model\":\"\xff\"}"), ErrorCode::MalformedJson);
        assert_eq!(code(br#"{"model":1}"#), ErrorCode::BadRequest);
        assert_eq!(code(br#"{"stream":"yes"}"#), ErrorCode::BadRequest);
        assert_eq!(
            request_head(b"").unwrap_err().message,
            "missing request body"
        );
    }

    #[test]
    fn a_body_nested_too_deeply_is_skipped_without_harm() {
        let deep = format!(
            r#"{{"model":"m","x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(request_head(deep.as_bytes()).is_ok());
    }

    #[test]
    fn a_default_model_is_put_first_and_replaces_an_empty_one() {
        let model = ModelName::new("m:1b").unwrap();
        let named = with_model(br#"{"stream":false,"model":"","n":1}"#, &model).unwrap();
        assert_eq!(named, r#"{"model":"m:1b","stream":false,"n":1}"#);
        assert!(with_model(b"[]", &model).is_err());
    }

    #[test]
    fn errors_have_ollamas_shape_and_words() {
        assert_eq!(
            error(&model_not_found(Op::Chat, "x")),
            r#"{"error":"model 'x' not found"}"#
        );
        assert_eq!(
            error(&model_not_found(Op::Embed, "x")),
            r#"{"error":"model \"x\" not found, try pulling it first"}"#
        );
    }

    #[test]
    fn one_line_is_its_own_answer_byte_for_byte() {
        let line = Bytes::from_static(br#"{"model":"m","done":true,  "x":1.50}"#);
        assert_eq!(joined(std::slice::from_ref(&line)).unwrap(), line);
        assert_eq!(joined(&[]).unwrap_err().code, ErrorCode::EngineFailed);
    }

    #[test]
    fn a_streamed_chat_is_put_together_with_thoughts_and_calls() {
        let lines = include_str!("../fixtures/ollama/chat-lines.ndjson")
            .lines()
            .map(Bytes::from_static_str)
            .collect::<Vec<_>>();
        let want = include_str!("../fixtures/ollama/chat-joined.json").trim_end();
        assert_eq!(joined(&lines).unwrap(), want);
    }

    #[test]
    fn a_streamed_generate_is_put_together() {
        let lines = [
            Bytes::from_static(br#"{"model":"m","response":"Hel","done":false}"#),
            Bytes::from_static(br#"{"model":"m","response":"lo","done":false}"#),
            Bytes::from_static(br#"{"model":"m","response":"","done":true,"done_reason":"stop"}"#),
        ];
        assert_eq!(
            joined(&lines).unwrap(),
            r#"{"model":"m","response":"Hello","done":true,"done_reason":"stop"}"#
        );
    }

    #[test]
    fn models_of_several_workers_are_listed_once() {
        let a = report(&[("m:latest", r#"{"name":"m:latest", "size":1}"#)]);
        let b = report(&[("m", r#"{"name":"m"}"#), ("n:1b", r#"{"name":"n:1b"}"#)]);
        assert_eq!(
            tags([&a, &b]),
            r#"{"models":[{"name":"m:latest", "size":1},{"name":"n:1b"}]}"#
        );
        assert_eq!(tags([]), r#"{"models":[]}"#);
    }

    #[test]
    fn the_lowest_version_is_told_as_dotted_numbers() {
        assert_eq!(
            version(["0.33.0-rc2", "0.9.1", "junk"]),
            r#"{"version":"0.9.1"}"#
        );
        assert_eq!(version([]), r#"{"version":"0.6.4"}"#);
    }

    #[test]
    fn a_heartbeat_is_a_line_without_text() {
        let model = ModelName::new("m").unwrap();
        let line = heartbeat(Op::Chat, &model, Timestamp(0)).unwrap();
        assert_eq!(
            line,
            r#"{"model":"m","created_at":"1970-01-01T00:00:00.000Z","message":{"role":"assistant","content":""},"done":false}"#
        );
        assert!(heartbeat(Op::Embed, &model, Timestamp(0)).is_none());
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }
}
