//! The native requests that foreign requests are translated into.

use std::{collections::HashMap, fmt};

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::ollama::{json, refuse};

/// A chat request without its model. It always streams, so that every token is logged.
#[derive(Default, Serialize)]
pub(crate) struct Chat {
    pub(crate) messages: Vec<Message>,
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Value>,
    pub(crate) options: Options,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) think: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u32>,
}

/// Sampling options and token limit.
#[derive(Default, Serialize)]
pub(crate) struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) num_predict: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presence_penalty: Option<f64>,
}

/// One message of a chat.
#[derive(Default, Serialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    pub(crate) content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) images: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_call_id: Option<String>,
}

/// A tool call of an earlier answer.
#[derive(Serialize)]
pub(crate) struct ToolCall {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) function: Function,
}

/// The called function; the arguments keep their original bytes.
#[derive(Serialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) arguments: Box<RawValue>,
}

impl fmt::Debug for Chat {
    /// Hides the messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat").finish_non_exhaustive()
    }
}

impl Message {
    /// A message with text only.
    pub(crate) fn text(role: &str, content: String) -> Self {
        Self {
            role: role.to_owned(),
            content,
            ..Self::default()
        }
    }
}

impl ToolCall {
    /// Creates a call; `arguments` must be a JSON object as text.
    pub(crate) fn new(
        id: Option<String>,
        name: String,
        arguments: String,
    ) -> Result<Self, ErrorDetail> {
        let arguments = RawValue::from_string(arguments)
            .ok()
            .filter(|json| json.get().starts_with('{'))
            .ok_or_else(|| bad("invalid tool call arguments: they must be a JSON object"))?;
        let function = Function { name, arguments };
        Ok(Self { id, function })
    }
}

/// Sets the function name of each tool result, by which templates identify it.
pub(crate) fn name_answers(messages: &mut [Message]) {
    let mut called = HashMap::new();
    for message in messages {
        if let (None, Some(id)) = (&message.tool_name, &message.tool_call_id) {
            message.tool_name = called.get(id).cloned();
        }
        for call in &message.tool_calls {
            if let Some(id) = &call.id {
                called.insert(id.clone(), call.function.name.clone());
            }
        }
    }
}

/// Returns the tools that are functions. Tools that run at the vendor are dropped; if there are no
/// others, the request is refused.
pub(crate) fn functions<T>(
    tools: Vec<T>,
    vendor: &str,
    function: impl Fn(T) -> Result<Option<Value>, ErrorDetail>,
) -> Result<Vec<Value>, ErrorDetail> {
    let none_asked = tools.is_empty();
    let functions = tools
        .into_iter()
        .filter_map(|tool| function(tool).transpose());
    let functions = functions.collect::<Result<Vec<_>, _>>()?;
    if functions.is_empty() && !none_asked {
        return Err(bad(format!(
            "tools: none of these is a function, and tools that run at {vendor} are not available \
             here; leave them out"
        )));
    }
    Ok(functions)
}

/// Serializes a native request with its model first.
pub(crate) fn named<T: Serialize>(model: &ModelName, native: &T) -> Bytes {
    #[derive(Serialize)]
    struct Named<'a, T> {
        model: &'a ModelName,
        #[serde(flatten)]
        native: &'a T,
    }
    json(&Named { model, native })
}

/// Returns a token limit; `None` for a negative one, by which many clients mean "no limit". 0 is
/// refused, because Ollama takes it for "no limit", too.
pub(crate) fn limit(field: &str, tokens: Option<i64>) -> Result<Option<i64>, ErrorDetail> {
    match tokens {
        Some(0) => Err(bad(format!("{field} must be at least 1"))),
        limit => Ok(limit.filter(|limit| *limit > 0)),
    }
}

pub(crate) fn bad(message: impl Into<String>) -> ErrorDetail {
    refuse(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_named_after_the_latest_call_of_its_id() {
        let call = |name: &str| {
            let call = ToolCall::new(Some("a".into()), name.into(), "{}".into());
            Message {
                tool_calls: vec![call.unwrap()],
                ..Message::default()
            }
        };
        let answer = |id: &str| Message {
            tool_call_id: Some(id.into()),
            ..Message::text("tool", String::new())
        };
        let mut messages = [call("old"), call("new"), answer("a"), answer("b")];
        name_answers(&mut messages);
        let names = messages.map(|message| message.tool_name);
        assert_eq!(names, [None, None, Some("new".into()), None]);
    }

    #[test]
    fn a_chat_is_not_printed() {
        let chat = Chat {
            messages: vec![Message::text("user", "a secret".into())],
            ..Chat::default()
        };
        assert_eq!(format!("{chat:?}"), "Chat { .. }");
    }
}
