//! Conversion of Ollama's messages to OpenAI's.

use serde_json::{Map, Value, json};

use super::{
    calls::Calls,
    request::{copy, refused},
};
use crate::EngineError;

/// Converts one message; `number` is its index.
pub(super) fn message<'a>(
    number: usize,
    message: &'a Value,
    calls: &mut Calls<'a>,
) -> Result<Value, EngineError> {
    let Value::Object(message) = message else {
        return Err(refused("a message must be an object"));
    };
    let role = message
        .get("role")
        .and_then(Value::as_str)
        .unwrap_or("user");
    let text = match message.get("content") {
        Some(Value::String(text)) => text.as_str(),
        None | Some(Value::Null) => "",
        Some(_) => return Err(refused("the content of a message must be text")),
    };
    let mut out = Map::new();
    let role = role.to_lowercase();
    let answers = role == "tool";
    out.insert("role".into(), role.into());
    out.insert("content".into(), content(text, message.get("images"))?);
    copy(message, "tool_call_id", &mut out, "tool_call_id");
    copy(message, "tool_name", &mut out, "name");
    if answers {
        let name = message.get("tool_name").and_then(Value::as_str);
        match message.get("tool_call_id").and_then(Value::as_str) {
            Some(id) => calls.answered(id),
            None => out.extend(
                calls
                    .answer(name)
                    .map(|id| ("tool_call_id".into(), id.into())),
            ),
        }
    }
    if let Some(Value::Array(made)) = message.get("tool_calls") {
        let made = made.iter().enumerate();
        let made = made.map(|(n, call)| tool_call((number, n), call, calls));
        out.insert("tool_calls".into(), Value::Array(made.collect()));
    }
    Ok(Value::Object(out))
}

/// Converts a tool call. Its arguments are an object in Ollama, and that object as text in OpenAI.
fn tool_call<'a>(place: (usize, usize), call: &'a Value, calls: &mut Calls<'a>) -> Value {
    let function = call.get("function").unwrap_or(&Value::Null);
    let arguments = function.get("arguments").unwrap_or(&Value::Null);
    let name = function.get("name").and_then(Value::as_str);
    // An empty id cannot identify a call.
    let id = call.get("id").and_then(Value::as_str);
    let id = id.filter(|id| !id.is_empty());
    json!({
        "id": calls.make(id, name.unwrap_or_default(), place),
        "type": "function",
        "function": {
            "name": function.get("name").unwrap_or(&Value::Null),
            "arguments": arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned),
        },
    })
}

/// Returns a text with its images as content parts.
pub(super) fn content(text: &str, images: Option<&Value>) -> Result<Value, EngineError> {
    let images = match images {
        None | Some(Value::Null) => return Ok(text.into()),
        Some(Value::Array(images)) if images.is_empty() => return Ok(text.into()),
        Some(Value::Array(images)) => images,
        Some(_) => return Err(refused("images must be a list")),
    };
    let mut parts = vec![json!({"type": "text", "text": text})];
    for image in images {
        let Some(data) = image.as_str() else {
            return Err(refused("an image must be base64 text"));
        };
        let url = format!("data:{};base64,{data}", image_type(data));
        parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    Ok(Value::Array(parts))
}

/// Returns the media type of an image, detected from its first bytes in base64.
fn image_type(base64: &str) -> &'static str {
    const FORMATS: [(&str, &str); 3] = [
        ("/9j/", "image/jpeg"),
        ("R0lG", "image/gif"),
        ("UklG", "image/webp"),
    ];
    let known = FORMATS.iter().find(|(start, _)| base64.starts_with(start));
    known.map_or("image/png", |(_, name)| name)
}
