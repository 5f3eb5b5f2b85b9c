//! The tool calls of an answer, put together from their pieces.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::EngineError;

/// Maximum number of tool calls in one answer.
const CALLS_MAX: usize = 128;

/// A piece of a call, as a server streams it.
#[derive(Deserialize)]
pub(super) struct CallPart {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionPart>,
}

#[derive(Deserialize)]
struct FunctionPart {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// The calls in the order in which they began, each with the server's index.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<(u64, ToolCall)>);

#[derive(Debug, Default)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

impl ToolCalls {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a piece of a call.
    pub(super) fn add(&mut self, part: CallPart) {
        let id = part.id.unwrap_or_default();
        // Some servers send whole calls that all have index 0: another id begins another call.
        let is_of = |(index, call): &(u64, ToolCall)| {
            *index == part.index && (id.is_empty() || call.id.is_empty() || call.id == id)
        };
        let known = self.0.iter().rposition(is_of);
        let at = known.unwrap_or(self.0.len());
        if known.is_none() {
            // No valid answer has more; further ones are ignored.
            if self.0.len() >= CALLS_MAX {
                return;
            }
            self.0.push((part.index, ToolCall::default()));
        }
        let Some((_, call)) = self.0.get_mut(at) else {
            return;
        };
        if call.id.is_empty() {
            call.id = id;
        }
        if let Some(function) = part.function {
            call.name.push_str(&function.name.unwrap_or_default());
            call.arguments
                .push_str(&function.arguments.unwrap_or_default());
        }
    }

    /// Converts the calls. If the token limit cut the answer (`is_cut`), a call that is not whole is
    /// left out.
    ///
    /// # Errors
    /// If the arguments of a call are no object.
    pub(super) fn into_ollama(self, is_cut: bool) -> Result<Vec<Value>, EngineError> {
        let calls = (0..).zip(self.0);
        let calls = calls.map(|(at, (_, call))| call.into_ollama(at));
        if is_cut {
            Ok(calls.filter_map(Result::ok).collect())
        } else {
            calls.collect()
        }
    }
}

impl ToolCall {
    /// Converts the call. Arguments are always an object in Ollama; some servers send nothing for a
    /// function without any.
    fn into_ollama(self, index: u64) -> Result<Value, EngineError> {
        let arguments = match self.arguments.trim() {
            "" | "null" => Ok(Map::new()),
            written => serde_json::from_str(written),
        };
        let arguments = arguments.map_err(|_| {
            EngineError::Unusable("the arguments of a call are not a JSON object".into())
        })?;
        let function = json!({"index": index, "name": self.name, "arguments": arguments});
        Ok(json!({"id": self.id, "function": function}))
    }
}
