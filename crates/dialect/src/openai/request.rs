//! A chat completion request as a native chat request.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::ollama::{json, parse, refuse};

/// What was asked, with what decides the shape of the answer beside it.
#[derive(Debug)]
pub struct ChatRequest {
    /// The model, unless absent or empty.
    pub model: Option<String>,
    /// Whether events or one object are wanted.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
    native: Native,
}

impl ChatRequest {
    /// Reads a request. Fields that Ollama has no word for are ignored, as Ollama does.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming what is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse(body)?;
        if asked.messages.is_empty() {
            return Err(bad("[] is too short - 'messages'"));
        }
        Ok(Self {
            model: asked.model.clone().filter(|model| !model.is_empty()),
            stream: asked.stream.unwrap_or(false),
            include_usage: asked
                .stream_options
                .as_ref()
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            native: asked.native()?,
        })
    }

    /// The native request; it always asks for a stream, so that every token is logged.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        #[derive(Serialize)]
        struct WithModel<'a> {
            model: &'a ModelName,
            #[serde(flatten)]
            native: &'a Native,
        }
        json(&WithModel {
            model,
            native: &self.native,
        })
    }
}

fn bad(message: impl Into<String>) -> ErrorDetail {
    refuse(ErrorCode::BadRequest, message)
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    reasoning_effort: Option<String>,
    reasoning: Option<Reasoning>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Value,
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    image_url: Option<ImageUrl>,
    input_audio: Option<InputAudio>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Bare(String),
    Object { url: String },
}

#[derive(Deserialize)]
struct InputAudio {
    data: String,
}

#[derive(Deserialize)]
struct ToolCall {
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

/// The native request without its model.
#[derive(Debug, Serialize)]
struct Native {
    messages: Vec<NativeMessage>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Value>,
    options: Options,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Options {
    temperature: f64,
    top_p: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
}

#[derive(Debug, Serialize)]
struct NativeMessage {
    role: String,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<NativeToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct NativeToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    function: NativeFunction,
}

#[derive(Debug, Serialize)]
struct NativeFunction {
    name: String,
    arguments: Box<RawValue>,
}

impl Asked {
    fn native(self) -> Result<Native, ErrorDetail> {
        let tools = match &self.tool_choice {
            Some(Value::String(choice)) if choice == "none" => Vec::new(),
            _ => self.tools.unwrap_or_default(),
        };
        let effort = self
            .reasoning_effort
            .or_else(|| self.reasoning.and_then(|reasoning| reasoning.effort));
        Ok(Native {
            options: Options {
                temperature: self.temperature.unwrap_or(1.0),
                top_p: self.top_p.unwrap_or(1.0),
                num_predict: limit(self.max_completion_tokens.or(self.max_tokens))?,
                seed: self.seed,
                stop: match self.stop {
                    None => Vec::new(),
                    Some(Stop::One(stop)) => vec![stop],
                    Some(Stop::Many(stops)) => stops,
                },
                frequency_penalty: self.frequency_penalty,
                presence_penalty: self.presence_penalty,
            },
            messages: self
                .messages
                .into_iter()
                .map(Message::native)
                .collect::<Result<_, _>>()?,
            stream: true,
            format: format(self.response_format)?,
            tools,
            think: effort.as_deref().map(think).transpose()?,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
        })
    }
}

/// Ollama takes 0 for "no limit at all", so it is never passed on.
fn limit(max_tokens: Option<i64>) -> Result<Option<i64>, ErrorDetail> {
    match max_tokens {
        Some(limit) if limit < 1 => Err(bad("max_tokens must be at least 1")),
        limit => Ok(limit),
    }
}

fn format(asked: Option<ResponseFormat>) -> Result<Option<Value>, ErrorDetail> {
    let Some(asked) = asked else { return Ok(None) };
    match (asked.r#type.as_str(), asked.json_schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some("json".into())),
        ("json_schema", Some(of)) => Ok(Some(of.schema)),
        ("json_schema", None) => Err(bad("response_format.json_schema.schema is required")),
        (other, _) => Err(bad(format!(
            "response_format.type `{other}` is not one of text, json_object, json_schema"
        ))),
    }
}

fn think(effort: &str) -> Result<Value, ErrorDetail> {
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

impl Message {
    fn native(self) -> Result<NativeMessage, ErrorDetail> {
        let role = match self.role.to_ascii_lowercase() {
            role if role == "developer" => "system".to_owned(),
            role => role,
        };
        let calls = self.tool_calls.unwrap_or_default();
        let (content, images) = match self.content {
            Some(Content::Text(text)) => (text, Vec::new()),
            Some(Content::Parts(parts)) => joined(parts)?,
            None if role == "assistant" => (String::new(), Vec::new()),
            None => return Err(bad("invalid message content type: <nil>")),
        };
        Ok(NativeMessage {
            tool_name: self.name.filter(|_| role == "tool"),
            role,
            content,
            thinking: self.reasoning,
            images,
            tool_calls: calls
                .into_iter()
                .map(ToolCall::native)
                .collect::<Result<_, _>>()?,
            tool_call_id: self.tool_call_id,
        })
    }
}

impl ToolCall {
    fn native(self) -> Result<NativeToolCall, ErrorDetail> {
        let arguments = RawValue::from_string(self.function.arguments)
            .ok()
            .filter(|json| json.get().starts_with('{'))
            .ok_or_else(|| bad("invalid tool call arguments: they must be a JSON object"))?;
        Ok(NativeToolCall {
            id: self.id,
            function: NativeFunction {
                name: self.function.name,
                arguments,
            },
        })
    }
}

/// The texts of a message's parts, one a line, and its images as bare base64.
fn joined(parts: Vec<Part>) -> Result<(String, Vec<String>), ErrorDetail> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        match (
            part.r#type.as_str(),
            part.text,
            part.image_url,
            part.input_audio,
        ) {
            ("text", Some(text), ..) => texts.push(text),
            ("image_url", _, Some(ImageUrl::Bare(url) | ImageUrl::Object { url }), _) => {
                images.push(base64_of(&url)?);
            }
            ("input_audio", _, _, Some(audio)) => images.push(audio.data),
            (other, ..) => {
                return Err(bad(format!(
                    "message content part `{other}` is not complete, or not one of text, image_url, input_audio"
                )));
            }
        }
    }
    Ok((texts.join("\n"), images))
}

fn base64_of(url: &str) -> Result<String, ErrorDetail> {
    if url.starts_with("http:") || url.starts_with("https:") {
        return Err(bad(
            "image URLs are not currently supported, please use base64 encoded data instead",
        ));
    }
    let data = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .map(|(_, data)| data);
    data.map(str::to_owned)
        .ok_or_else(|| bad("an image must be a data URL: data:image/png;base64,..."))
}
