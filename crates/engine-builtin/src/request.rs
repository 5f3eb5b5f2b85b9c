//! Parsing of chat, generate and embed requests.

use engine::EngineError;
use proto::{ModelName, Op};
use serde_json::Value;

use crate::{
    fields::{Fields, kind},
    keep_alive::KeepAlive,
    options::Options,
    schema,
};

/// A request, validated as far as possible without the model.
pub(crate) struct Request {
    /// Name of the model as requested; repeated in the answer.
    pub(crate) model: String,
    pub(crate) work: Work,
    pub(crate) stream: bool,
    pub(crate) options: Options,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// Whether old messages may be dropped if the conversation does not fit.
    pub(crate) truncate: bool,
    /// JSON schema that the answer must match.
    pub(crate) schema: Option<String>,
}

/// The work to do.
pub(crate) enum Work {
    Load(Shape),
    Unload(Shape),
    /// `POST /api/chat`.
    Chat(Vec<Message>),
    /// `POST /api/generate`.
    Generate(Prompt),
}

/// Which of Ollama's two line formats is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Generate,
}

/// One message of a conversation.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: String,
}

/// A prompt without a conversation.
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) system: String,
    /// Whether the model's template is skipped.
    pub(crate) raw: bool,
    /// Tokens of an earlier exchange.
    pub(crate) context: Vec<i32>,
}

impl Work {
    pub(crate) const fn shape(&self) -> Shape {
        match self {
            Self::Load(shape) | Self::Unload(shape) => *shape,
            Self::Chat(_) => Shape::Chat,
            Self::Generate(_) => Shape::Generate,
        }
    }
}

/// Returns a refusal with Ollama's message.
pub(crate) fn refused(status: u16, message: impl Into<String>) -> EngineError {
    let message = message.into();
    EngineError::Refused { status, message }
}

impl Request {
    /// Parses the body of a chat or generate request for the model `own`.
    pub(crate) fn read(op: Op, body: &[u8], own: &ModelName) -> Result<Self, EngineError> {
        let fields = Fields::read(op, body)?;
        let model = fields.model(own)?;
        let keep_alive = match fields.get("keep_alive") {
            Some(value) => KeepAlive::read(value).map_err(|text| refused(400, text))?,
            None => None,
        };
        let stream = fields.flag("stream")?.unwrap_or(true);
        let truncate = fields.flag("truncate")?.unwrap_or(true);
        let work = fields.work(keep_alive)?;
        fields.refuse_what_a_text_model_lacks(&model, own)?;
        let options = match fields.get("options") {
            Some(Value::Object(options)) => {
                Options::read(options).map_err(|text| refused(500, text))?
            }
            Some(other) => return Err(fields.wrong("options", other, "map[string]interface {}")),
            None => Options::default(),
        };
        let schema = fields.schema()?;
        Ok(Self {
            model,
            work,
            stream,
            options,
            keep_alive,
            truncate,
            schema,
        })
    }
}

/// Returns the answer to an embed request without input, or a refusal: this engine computes no
/// embeddings.
pub(crate) fn embed(body: &[u8], own: &ModelName) -> Result<String, EngineError> {
    let fields = Fields::read(Op::Embed, body)?;
    let model = fields.model(own)?;
    match fields.get("input") {
        None => Ok(model),
        Some(Value::String(text)) if text.is_empty() => Ok(model),
        Some(Value::Array(list)) if list.is_empty() => Ok(model),
        Some(Value::Array(list)) if !list.iter().all(Value::is_string) => {
            Err(refused(400, "invalid input type"))
        }
        Some(Value::String(_) | Value::Array(_)) => Err(refused(
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
        )),
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Null) => {
            Err(refused(400, "invalid input type"))
        }
    }
}

impl Fields {
    /// Returns the name as requested, if it names the only model.
    fn model(&self, own: &ModelName) -> Result<String, EngineError> {
        let sent = self.text("model")?;
        if sent.is_empty() {
            return Err(match self.op {
                Op::Chat => refused(400, "model is required"),
                Op::Generate | Op::Embed | Op::Pull | Op::Copy | Op::Delete | Op::Create => {
                    refused(404, "model '' not found")
                }
            });
        }
        let bare = sent.strip_suffix(":local").unwrap_or(sent);
        let Ok(name) = ModelName::new(bare) else {
            return Err(refused(400, "invalid model name"));
        };
        if name.is_same(own) {
            return Ok(sent.to_owned());
        }
        Err(match self.op {
            Op::Embed => refused(
                404,
                format!("model \"{sent}\" not found, try pulling it first"),
            ),
            Op::Chat | Op::Generate | Op::Pull | Op::Copy | Op::Delete | Op::Create => {
                refused(404, format!("model '{sent}' not found"))
            }
        })
    }

    fn work(&self, keep_alive: Option<KeepAlive>) -> Result<Work, EngineError> {
        let idle = |shape| match keep_alive {
            Some(KeepAlive::For(time)) if time.is_zero() => Work::Unload(shape),
            Some(KeepAlive::For(_) | KeepAlive::Forever) | None => Work::Load(shape),
        };
        if self.op == Op::Chat {
            let messages = self.list("messages", "[]api.Message")?;
            let messages = messages.iter().map(|message| self.message(message));
            let messages: Vec<_> = messages.collect::<Result<_, _>>()?;
            return Ok(if messages.is_empty() {
                idle(Shape::Chat)
            } else {
                Work::Chat(messages)
            });
        }
        let prompt = self.prompt()?;
        Ok(if prompt.text.is_empty() {
            idle(Shape::Generate)
        } else {
            Work::Generate(prompt)
        })
    }

    fn message(&self, message: &Value) -> Result<Message, EngineError> {
        let Value::Object(message) = message else {
            return Err(self.wrong("messages", message, "api.Message"));
        };
        let text = |name: &str| match message.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(refused(
                400,
                format!(
                    "json: cannot unmarshal {} into Go struct field Alias.{name} of type string",
                    kind(other)
                ),
            )),
        };
        if message.get("images").is_some_and(has_any) {
            return Err(refused(400, NO_IMAGES));
        }
        Ok(Message {
            role: text("role")?.to_lowercase(),
            content: text("content")?,
        })
    }

    fn prompt(&self) -> Result<Prompt, EngineError> {
        let raw = self.flag("raw")?.unwrap_or(false);
        let (text, system) = (self.text("prompt")?, self.text("system")?);
        let template = self.text("template")?;
        let context = self.list("context", "[]int")?;
        if raw && !(system.is_empty() && template.is_empty() && context.is_empty()) {
            return Err(refused(
                400,
                "raw mode does not support template, system, or context",
            ));
        }
        if !template.is_empty() {
            return Err(refused(
                400,
                "the built-in engine does not support templates in requests; leave it out, or set \
                 raw",
            ));
        }
        if self.get("images").is_some_and(has_any) {
            return Err(refused(400, NO_IMAGES));
        }
        let token = |value: &Value| {
            let token = value.as_i64().and_then(|token| i32::try_from(token).ok());
            token.ok_or_else(|| {
                let found = kind(value);
                refused(
                    400,
                    format!(
                        "json: cannot unmarshal {found} into GenerateRequest.context of type int"
                    ),
                )
            })
        };
        Ok(Prompt {
            text: text.to_owned(),
            system: system.to_owned(),
            raw,
            context: context.iter().map(token).collect::<Result<_, _>>()?,
        })
    }

    fn refuse_what_a_text_model_lacks(
        &self,
        model: &str,
        own: &ModelName,
    ) -> Result<(), EngineError> {
        const LEVELS: &str = "\"high\", \"medium\", \"low\", \"max\", true, or false";
        match self.get("think") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                return Err(refused(400, format!("{model:?} does not support thinking")));
            }
            Some(Value::String(level)) => {
                return Err(refused(
                    400,
                    if matches!(level.as_str(), "high" | "medium" | "low" | "max") {
                        format!("{model:?} does not support thinking")
                    } else {
                        format!("invalid think value: {level:?} (must be {LEVELS})")
                    },
                ));
            }
            Some(Value::Number(_) | Value::Array(_) | Value::Object(_) | Value::Null) => {
                return Err(refused(
                    400,
                    format!("think must be a boolean or string ({LEVELS})"),
                ));
            }
        }
        let lacks = |what: &str| {
            refused(
                400,
                format!("registry.ollama.ai/library/{own} does not support {what}"),
            )
        };
        if !self.list("tools", "api.Tools")?.is_empty() {
            return Err(lacks("tools"));
        }
        if !self.text("suffix")?.is_empty() {
            return Err(lacks("insert"));
        }
        if self.flag("logprobs")? == Some(true) {
            return Err(refused(
                400,
                "the built-in engine does not support logprobs",
            ));
        }
        Ok(())
    }

    fn schema(&self) -> Result<Option<String>, EngineError> {
        match self.get("format") {
            None => Ok(None),
            Some(Value::String(format)) if format.is_empty() => Ok(None),
            Some(Value::String(format)) if format == "json" => {
                Ok(Some(r#"{"type":"object"}"#.to_owned()))
            }
            Some(schema @ Value::Object(_)) => schema::text(schema).map(Some),
            Some(other) => Err(refused(
                500,
                format!(
                    "invalid format: {:?}; expected \"json\" or a valid JSON Schema object",
                    other.to_string()
                ),
            )),
        }
    }
}

/// Ollama's message for images sent to a model without vision, unwrapped.
const NO_IMAGES: &str = "Multimodal data provided, but model does not support multimodal requests.";

fn has_any(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
