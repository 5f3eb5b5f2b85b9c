//! A request of the Responses API as a native chat request.

use std::fmt;

use bytes::Bytes;
use proto::{ErrorDetail, ModelName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::input::{Item, messages};
use crate::{
    content::Content,
    native::{self, Options, bad, functions, limit, named},
    ollama::parse_named,
    openai::request::{format, may_be_called, think},
};

/// A parsed request: the native request, and what the answer repeats of the original.
#[derive(Debug)]
pub struct ResponseRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    pub(super) echo: Echo,
    native: native::Chat,
}

/// The fields of the request that a response repeats.
#[derive(Clone, Serialize)]
pub(super) struct Echo {
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    metadata: Value,
    parallel_tool_calls: bool,
    previous_response_id: Option<()>,
    reasoning: Value,
    store: bool,
    temperature: f64,
    text: Value,
    tool_choice: Value,
    tools: Vec<Value>,
    top_p: f64,
    truncation: &'static str,
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    input: Option<Content<Item>>,
    instructions: Option<String>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    stream: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    max_output_tokens: Option<i64>,
    reasoning: Option<Reasoning>,
    text: Option<Text>,
    metadata: Option<Map<String, Value>>,
    background: Option<bool>,
    previous_response_id: Option<Value>,
    conversation: Option<Value>,
    prompt: Option<Value>,
}

#[derive(Deserialize, Serialize, Default)]
struct Reasoning {
    effort: Option<String>,
    summary: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    format: Option<Value>,
}

impl ResponseRequest {
    /// Parses a request. Fields without a counterpart in Ollama are ignored.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse_named(body)?;
        asked.needs_no_memory()?;
        let input = asked.input.ok_or_else(|| bad("input is required"))?;
        let reasoning = asked.reasoning.unwrap_or_default();
        let text = asked.text.and_then(|text| text.format);
        let text = text.unwrap_or_else(|| json!({"type": "text"}));
        let echo = Echo {
            instructions: asked.instructions,
            max_output_tokens: limit("max_output_tokens", asked.max_output_tokens)?,
            metadata: asked.metadata.unwrap_or_default().into(),
            parallel_tool_calls: asked.parallel_tool_calls.unwrap_or(true),
            previous_response_id: None,
            reasoning: json!(reasoning),
            store: false,
            temperature: asked.temperature.unwrap_or(1.0),
            text: json!({"format": text}),
            tool_choice: asked.tool_choice.unwrap_or_else(|| "auto".into()),
            tools: asked.tools.unwrap_or_default(),
            top_p: asked.top_p.unwrap_or(1.0),
            truncation: "disabled",
        };
        let kind = text.get("type").and_then(Value::as_str).unwrap_or("text");
        let callable = may_be_called(Some(echo.tools.clone()), Some(&echo.tool_choice))?;
        let native = native::Chat {
            messages: messages(echo.instructions.as_deref(), input)?,
            stream: true,
            format: format("text.format", kind, text.get("schema").cloned())?,
            options: Options {
                temperature: Some(echo.temperature),
                top_p: Some(echo.top_p),
                num_predict: echo.max_output_tokens,
                ..Options::default()
            },
            tools: functions(callable, "OpenAI", |tool| Ok(function(tool)))?,
            think: reasoning.effort.as_deref().map(think).transpose()?,
            ..native::Chat::default()
        };
        Ok(Self {
            model: asked.model.filter(|model| !model.is_empty()),
            stream: asked.stream.unwrap_or(false),
            echo,
            native,
        })
    }

    /// Returns the native request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }
}

impl Asked {
    fn needs_no_memory(&self) -> Result<(), ErrorDetail> {
        let kept = [
            ("previous_response_id", self.previous_response_id.is_some()),
            ("conversation", self.conversation.is_some()),
            ("prompt", self.prompt.is_some()),
        ];
        if let Some((field, _)) = kept.iter().find(|(_, is_there)| *is_there) {
            return Err(bad(format!(
                "{field} is not supported: no response is kept here; send the whole conversation \
                 as input"
            )));
        }
        if self.background == Some(true) {
            return Err(bad(
                "background is not supported: no response is kept here; submit a job to \
                 /api/jobs instead",
            ));
        }
        Ok(())
    }
}

/// Returns a tool in Ollama's format; `None` if it is not a function.
fn function(mut tool: Value) -> Option<Value> {
    let tool = tool.as_object_mut()?;
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return None;
    }
    let mut function = Map::new();
    for field in ["name", "description", "parameters"] {
        let value = tool.get_mut(field).map(Value::take);
        if let Some(value) = value.filter(|value| !value.is_null()) {
            function.insert(field.into(), value);
        }
    }
    Some(json!({"type": "function", "function": function}))
}

impl fmt::Debug for Echo {
    /// Hides the instructions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo").finish_non_exhaustive()
    }
}
