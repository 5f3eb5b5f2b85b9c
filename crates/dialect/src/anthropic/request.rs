//! A messages request as a native chat request.

use bytes::Bytes;
use proto::{ErrorDetail, ModelName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::content::{Block, Message, system};
use crate::{
    content::Content,
    line::{broken_off, complete},
    native::{self, Options, bad, functions, limit, name_answers, named},
    ollama::parse_named,
};

/// A parsed request: the native request, and what determines the format of the answer.
#[derive(Debug)]
pub struct MessagesRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    native: native::Chat,
}

/// A request to count tokens.
#[derive(Debug)]
pub struct CountRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    native: native::Chat,
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    max_tokens: Option<i64>,
    #[serde(default)]
    messages: Vec<Message>,
    system: Option<Content<Block>>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u32>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
}

#[derive(Deserialize)]
struct Tool {
    r#type: Option<String>,
    name: String,
    description: Option<String>,
    input_schema: Option<Value>,
}

#[derive(Deserialize)]
struct ToolChoice {
    r#type: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Thinking {
    r#type: String,
}

#[derive(Deserialize)]
struct OutputConfig {
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    schema: Option<Value>,
}

impl MessagesRequest {
    /// Parses a request. Fields without a counterpart in Ollama are ignored.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let mut asked: Asked = parse_named(body)?;
        // The field is required here, and a negative value does not mean "no limit".
        let max_tokens = limit("max_tokens", asked.max_tokens.map(|limit| limit.max(0)))?;
        let options = Options {
            temperature: asked.temperature,
            top_p: asked.top_p,
            top_k: asked.top_k,
            num_predict: Some(max_tokens.ok_or_else(|| bad("max_tokens: field required"))?),
            stop: asked.stop_sequences.take().unwrap_or_default(),
            ..Options::default()
        };
        Ok(Self {
            model: asked.model(),
            stream: asked.stream.unwrap_or(false),
            native: asked.native(options)?,
        })
    }

    /// Returns the native request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }
}

impl CountRequest {
    /// Parses a request, which has the fields of a messages request without `max_tokens`.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse_named(body)?;
        let one_token = Options {
            num_predict: Some(1),
            ..Options::default()
        };
        Ok(Self {
            model: asked.model(),
            native: native::Chat {
                // A truncated prompt would be undercounted.
                truncate: Some(false),
                ..asked.native(one_token)?
            },
        })
    }

    /// Returns the native request: the engine has to process the prompt to count its tokens.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }

    /// Returns the count of the engine.
    ///
    /// # Errors
    /// `engine_failed` if the engine reported no count, or broke off.
    pub fn answer(&self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        #[derive(Serialize)]
        struct Count {
            input_tokens: u64,
        }
        let lines = complete(lines)?;
        let counts = lines.last().map(|last| last.prompt_eval_count);
        let input_tokens = counts.filter(|count| *count > 0).ok_or_else(broken_off)?;
        Ok(crate::ollama::json(&Count { input_tokens }))
    }
}

impl Asked {
    fn model(&self) -> Option<String> {
        self.model.clone().filter(|model| !model.is_empty())
    }

    fn native(self, options: Options) -> Result<native::Chat, ErrorDetail> {
        if self.messages.is_empty() {
            return Err(bad("messages: at least one message is required"));
        }
        let mut messages = Vec::with_capacity(self.messages.len() + 1);
        if let Some(text) = self.system.map(system).transpose()?
            && !text.is_empty()
        {
            messages.push(native::Message::text("system", text));
        }
        for message in self.messages {
            message.append(&mut messages)?;
        }
        name_answers(&mut messages);
        let format = self.output_config.and_then(|config| config.format);
        Ok(native::Chat {
            messages,
            stream: true,
            format: format.and_then(|format| format.schema),
            options,
            tools: tools(self.tools.unwrap_or_default(), self.tool_choice.as_ref())?,
            think: self.thinking.and_then(|thinking| think(&thinking.r#type)),
            ..native::Chat::default()
        })
    }
}

/// Returns the native `think`. Adaptive thinking is what a model does by default.
fn think(kind: &str) -> Option<Value> {
    match kind {
        "enabled" => Some(true.into()),
        "disabled" => Some(false.into()),
        _ => None,
    }
}

/// Returns the tools that may be called, as functions. If one must be called, only that one is
/// passed on; Ollama cannot express that it *must* be called.
fn tools(tools: Vec<Tool>, choice: Option<&ToolChoice>) -> Result<Vec<Value>, ErrorDetail> {
    let is_chosen = |tool: &Tool| match choice {
        Some(choice) if choice.r#type == "none" => false,
        Some(choice) if choice.r#type == "tool" => choice.name.as_ref() == Some(&tool.name),
        _ => true,
    };
    let tools = tools.into_iter().filter(is_chosen).collect();
    functions(tools, "Anthropic", function)
}

/// Returns a tool in Ollama's format; `None` for a tool that runs at Anthropic.
fn function(tool: Tool) -> Result<Option<Value>, ErrorDetail> {
    let name = tool.name;
    if tool.r#type.is_some_and(|kind| kind != "custom") {
        return Ok(None);
    }
    let schema = tool
        .input_schema
        .ok_or_else(|| bad(format!("tools: `{name}` has no input_schema")))?;
    let mut function = json!({"name": name});
    if let Some(description) = tool.description {
        function["description"] = description.into();
    }
    function["parameters"] = schema;
    Ok(Some(json!({"type": "function", "function": function})))
}
