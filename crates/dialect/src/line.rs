//! One native line: what Ollama writes per token, read only as far as a translation needs it.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A line of `chat` or `generate`.
#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(default)]
    message: Option<Message<'a>>,
    #[serde(default)]
    response: Option<String>,
    #[serde(default)]
    pub(crate) done: bool,
    #[serde(default)]
    pub(crate) done_reason: Option<String>,
    #[serde(default)]
    pub(crate) prompt_eval_count: u64,
    #[serde(default)]
    pub(crate) eval_count: u64,
    #[serde(default, borrow)]
    pub(crate) logprobs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
    #[serde(default, borrow)]
    tool_calls: Vec<ToolCall<'a>>,
}

/// A call the model wants made.
#[derive(Deserialize)]
pub(crate) struct ToolCall<'a> {
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(borrow)]
    pub(crate) function: Function<'a>,
}

/// The function to call; `arguments` is a JSON object kept as the engine wrote it.
#[derive(Deserialize)]
pub(crate) struct Function<'a> {
    pub(crate) name: String,
    #[serde(borrow)]
    pub(crate) arguments: &'a RawValue,
}

impl<'a> Line<'a> {
    /// `None` for a line that is not a native one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The text in it, of either operation.
    pub(crate) fn text(&self) -> &str {
        let of_chat = self.message.as_ref().and_then(|m| m.content.as_deref());
        of_chat.or(self.response.as_deref()).unwrap_or_default()
    }

    /// What a thinking model thought; empty if nothing.
    pub(crate) fn thinking(&self) -> &str {
        let thought = self.message.as_ref().and_then(|m| m.thinking.as_deref());
        thought.unwrap_or_default()
    }

    /// The calls in it.
    pub(crate) fn tool_calls(&self) -> &[ToolCall<'a>] {
        self.message.as_ref().map_or(&[], |m| &m.tool_calls)
    }
}
