//! Reading the top-level fields of a request, with Ollama's error messages.

use engine::EngineError;
use proto::Op;
use serde_json::{Map, Value};

use crate::request::refused;

/// The top-level fields of a request body.
pub(crate) struct Fields {
    pub(crate) op: Op,
    map: Map<String, Value>,
}

impl Fields {
    /// Parses a body. As in Ollama, anything after the first JSON value is ignored.
    pub(crate) fn read(op: Op, body: &[u8]) -> Result<Self, EngineError> {
        proto::refuse_intricate(body).map_err(|why| refused(413, why))?;
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
        match values.next() {
            None => Err(refused(400, "missing request body")),
            Some(Ok(Value::Object(map))) => Ok(Self { op, map }),
            Some(Ok(other)) => Err(refused(
                400,
                format!(
                    "json: cannot unmarshal {} into Go value of type api.{}",
                    kind(&other),
                    request_name(op)
                ),
            )),
            Some(Err(error)) if error.is_eof() => Err(refused(400, "unexpected EOF")),
            Some(Err(error)) => Err(refused(400, format!("the body is not JSON: {error}"))),
        }
    }

    /// Returns a field if it is present and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, name: &str, value: &Value, wanted: &str) -> EngineError {
        let (found, request) = (kind(value), request_name(self.op));
        refused(
            400,
            format!(
                "json: cannot unmarshal {found} into Go struct field {request}.{name} of type {wanted}"
            ),
        )
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, EngineError> {
        match self.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(name, other, "string")),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, other, "bool")),
        }
    }

    pub(crate) fn list(&self, name: &str, wanted: &str) -> Result<&[Value], EngineError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(name, other, wanted)),
        }
    }
}

const fn request_name(op: Op) -> &'static str {
    match op {
        Op::Chat => "ChatRequest",
        Op::Generate => "GenerateRequest",
        Op::Embed => "EmbedRequest",
        Op::Pull | Op::Copy | Op::Delete | Op::Create => "Request",
    }
}

/// Returns Go's name for the type of a JSON value.
pub(crate) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
