//! Ollama's native API. Requests and lines pass byte for byte; only routing fields are parsed.

mod answer;
mod go;
mod models;
mod request;

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName, Op, Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

pub(crate) use self::models::merged;
pub use self::{
    answer::{first_embedding, joined},
    models::{VERSION_FLOOR, running, running_name, show_of_tag, tags, version},
    request::{
        ChangeHead, EmbeddingsRequest, RequestHead, change_head, named_model, request_head,
        with_model,
    },
};
use crate::clock::rfc3339;

/// Body of `GET /`; clients test for exactly this text.
pub const RUNNING: &str = "Ollama is running";

/// Parses a request of any dialect; distinguishes a missing body, invalid JSON and a wrong field.
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
    proto::refuse_intricate(body).map_err(|why| refuse(ErrorCode::TooLarge, why))?;
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        refuse(code, error.to_string())
    })
}

/// Parses a request; the error names the wrong top-level field.
pub(crate) fn parse_named<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorDetail> {
    parse(body).map_err(|mut refused: ErrorDetail| {
        if refused.code == ErrorCode::BadRequest
            && let Some(field) = wrong_field::<T>(body)
        {
            refused.message = format!("{field}: {}", refused.message);
            refused.param = Some(field);
        }
        refused
    })
}

/// Maximum number of fields that are checked; no request has as many.
const FIELDS_MAX: usize = 64;

/// Returns the first field that cannot be parsed by itself.
fn wrong_field<T: DeserializeOwned>(body: &[u8]) -> Option<String> {
    let fields = serde_json::from_slice::<Fields<'_>>(body).ok()?.0;
    let is_wrong = |(name, value): &(String, &RawValue)| {
        let name = String::from_utf8_lossy(&json(name)).into_owned();
        let alone = serde_json::from_str::<T>(&format!("{{{name}:{value}}}"));
        // Missing fields are expected here.
        alone.is_err_and(|error| !error.to_string().starts_with("missing field"))
    };
    let wrong = fields.into_iter().find(is_wrong);
    wrong.map(|(name, _)| name)
}

/// The fields of an object in their original form and order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    if fields.len() < FIELDS_MAX {
                        fields.push(field);
                    }
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Each)
    }
}

pub(crate) fn refuse(code: ErrorCode, message: impl Into<String>) -> ErrorDetail {
    ErrorDetail::new(code, message)
}

/// Returns `{"error":"text"}`: the body of every error, and the last line of a failed stream.
#[must_use]
pub fn error(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    escaped(&json(&Error { error: message }))
}

/// Extracts the message from an engine's error: Ollama passes on its runner's JSON as text.
#[must_use]
pub fn sentence(message: &str) -> String {
    let mut said = message.to_owned();
    // At most four levels; deeper nesting is not an error wrapped by Ollama.
    for _ in 0..4 {
        let Ok(Value::Object(mut wrapped)) = serde_json::from_str(&said) else {
            break;
        };
        let inner = match wrapped.shift_remove("error") {
            Some(Value::Object(mut error)) => error.shift_remove("message"),
            Some(inner) => Some(inner),
            None => wrapped.shift_remove("message"),
        };
        let Some(Value::String(inner)) = inner else {
            break;
        };
        said = inner;
    }
    said
}

/// Escapes the characters that Go escapes in JSON, as in all of Ollama's own errors.
fn escaped(json: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(json);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out.into()
}

/// Returns the error message for an unknown model; that of `embed` differs.
#[must_use]
pub fn model_not_found(op: Op, model: &str) -> String {
    match op {
        Op::Chat | Op::Generate | Op::Pull | Op::Delete | Op::Create => {
            format!("model '{model}' not found")
        }
        Op::Copy => format!("model \"{model}\" not found"),
        Op::Embed => format!("model \"{model}\" not found, try pulling it first"),
    }
}

/// Whether this line ends a change of models successfully.
#[must_use]
pub fn is_success(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        status: Cow<'a, str>,
    }
    serde_json::from_slice(line).is_ok_and(|line: Line<'_>| line.status == "success")
}

/// Returns a line that contains only this thought; `None` for operations that generate no text.
#[must_use]
pub fn thought(op: Op, model: &ModelName, now: Timestamp, text: &str) -> Option<Bytes> {
    let created_at = rfc3339(now);
    match op {
        Op::Chat => Some(json(&serde_json::json!({
            "model": model, "created_at": created_at,
            "message": {"role": "assistant", "content": "", "thinking": text}, "done": false,
        }))),
        Op::Generate => Some(json(&serde_json::json!({
            "model": model, "created_at": created_at, "response": "", "thinking": text,
            "done": false,
        }))),
        Op::Embed | Op::Pull | Op::Copy | Op::Delete | Op::Create => None,
    }
}

/// Returns an empty line, the only keep-alive that NDJSON clients accept; `None` for operations
/// that generate no text.
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
        Op::Embed | Op::Pull | Op::Copy | Op::Delete | Op::Create => None,
    }
}

/// Serializes our own plain structures, which cannot fail; the result would be empty.
pub(crate) fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_error_is_escaped_as_go_escapes_it() {
        assert_eq!(
            error("expected <a> & \"b\"\n"),
            r#"{"error":"expected \u003ca\u003e \u0026 \"b\"\n"}"#
        );
    }

    #[test]
    fn an_engines_error_is_unwrapped_to_its_sentence() {
        for (message, want) in [
            ("model 'x' not found", "model 'x' not found"),
            (
                r#"{"error":{"code":400,"message":"too long","type":"t"}}"#,
                "too long",
            ),
            (r#"{"error":"{\"error\":\"deep\"}"}"#, "deep"),
            (r#"{"message":"said"}"#, "said"),
            ("{not json", "{not json"),
            ("{}", "{}"),
            ("7", "7"),
        ] {
            assert_eq!(sentence(message), want);
        }
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
}
