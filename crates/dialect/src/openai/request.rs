//! A chat completion request as a native chat request.

use bytes::Bytes;
use proto::{ErrorDetail, ModelName};
use serde::Deserialize;
use serde_json::Value;

use super::{
    message::Message,
    sampling::{Sampling, StreamOptions, includes_usage},
};
use crate::{
    native::{self, bad, name_answers, named},
    ollama::parse_named,
};

/// A parsed request: the native request, and what determines the format of the answer.
#[derive(Debug)]
pub struct ChatRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
    native: native::Chat,
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    sampling: Sampling,
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    reasoning_effort: Option<String>,
    reasoning: Option<Reasoning>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

impl ChatRequest {
    /// Parses a request. Fields without a counterpart in Ollama are ignored, as in Ollama itself.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse_named(body)?;
        if asked.messages.is_empty() {
            return Err(bad("[] is too short - 'messages'"));
        }
        let messages = asked.messages.into_iter().map(Message::native);
        let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
        name_answers(&mut messages);
        let effort = asked.reasoning.and_then(|reasoning| reasoning.effort);
        let effort = asked.reasoning_effort.or(effort);
        Ok(Self {
            model: asked.model.filter(|model| !model.is_empty()),
            stream: asked.stream.unwrap_or(false),
            include_usage: includes_usage(asked.stream_options.as_ref()),
            native: native::Chat {
                messages,
                stream: true,
                format: asked.response_format.map_or(Ok(None), |asked| {
                    let schema = asked.json_schema.and_then(|of| of.schema);
                    format("response_format", &asked.r#type, schema)
                })?,
                options: asked.sampling.options()?,
                tools: may_be_called(asked.tools, asked.tool_choice.as_ref())?,
                think: effort.as_deref().map(think).transpose()?,
                truncate: None,
                logprobs: asked.logprobs,
                top_logprobs: asked.top_logprobs,
            },
        })
    }

    /// Returns the native request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }
}

/// Returns the tools that may be called. If one must be called, only that one is passed on; Ollama
/// cannot express that it *must* be called.
pub(super) fn may_be_called(
    tools: Option<Vec<Value>>,
    choice: Option<&Value>,
) -> Result<Vec<Value>, ErrorDetail> {
    let mut tools = tools.unwrap_or_default();
    match choice {
        Some(Value::String(choice)) if choice == "none" => return Ok(Vec::new()),
        Some(Value::String(choice)) if choice == "required" && tools.is_empty() => {
            return Err(wrong_choice("a tool is required, and `tools` has none"));
        }
        _ => {}
    }
    if let Some(chosen) = choice.and_then(name_of) {
        tools.retain(|tool| name_of(tool) == Some(chosen));
        if tools.is_empty() {
            return Err(wrong_choice(&format!("`tools` has no function `{chosen}`")));
        }
    }
    Ok(tools)
}

fn wrong_choice(why: &str) -> ErrorDetail {
    ErrorDetail {
        param: Some("tool_choice".into()),
        ..bad(format!("tool_choice: {why}"))
    }
}

/// Returns the function name of a tool or of a tool choice, in either of its two spellings.
fn name_of(tool: &Value) -> Option<&str> {
    let named = tool.get("function").unwrap_or(tool).get("name");
    named.and_then(Value::as_str)
}

/// Returns the native `format` for the format in `field`.
pub(super) fn format(
    field: &str,
    kind: &str,
    schema: Option<Value>,
) -> Result<Option<Value>, ErrorDetail> {
    match (kind, schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some("json".into())),
        ("json_schema", Some(schema)) => Ok(Some(schema)),
        ("json_schema", None) => Err(bad(format!("{field} has no `schema`"))),
        (other, _) => Err(bad(format!(
            "{field}.type `{other}` is not one of text, json_object, json_schema"
        ))),
    }
}

/// Returns the native `think` for a reasoning effort.
pub(super) fn think(effort: &str) -> Result<Value, ErrorDetail> {
    Ok(match effort {
        "none" => false.into(),
        "minimal" | "low" => "low".into(),
        "medium" => "medium".into(),
        "high" => "high".into(),
        "xhigh" | "ultra" | "max" => "max".into(),
        other => {
            return Err(bad(format!(
                "invalid reasoning value: \"{other}\" (must be \"minimal\", \"low\", \"medium\", \
                 \"high\", \"xhigh\", \"ultra\", \"max\", or \"none\")"
            )));
        }
    })
}
