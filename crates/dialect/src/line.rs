//! One native line, as Ollama writes it per token, parsed only as far as a translation needs it.

use std::{borrow::Cow, fmt};

use proto::{ErrorCode, ErrorDetail, JobId};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::ollama::refuse;

/// A line of `chat` or `generate`.
#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(default, borrow)]
    message: Option<Message<'a>>,
    #[serde(default, borrow)]
    response: Text<'a>,
    #[serde(default, borrow)]
    thinking: Text<'a>,
    #[serde(default)]
    pub(crate) done: bool,
    #[serde(default, borrow)]
    done_reason: Text<'a>,
    #[serde(default)]
    pub(crate) prompt_eval_count: u64,
    #[serde(default)]
    pub(crate) eval_count: u64,
    #[serde(default, borrow)]
    pub(crate) logprobs: Vec<Logprob<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    content: Text<'a>,
    #[serde(default, borrow)]
    thinking: Text<'a>,
    #[serde(default, borrow)]
    tool_calls: Vec<ToolCall<'a>>,
}

/// A tool call by the model.
#[derive(Deserialize)]
pub(crate) struct ToolCall<'a> {
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(borrow)]
    pub(crate) function: Function<'a>,
}

/// The called function; `arguments` is a JSON object, kept as the engine wrote it.
#[derive(Deserialize)]
pub(crate) struct Function<'a> {
    pub(crate) name: String,
    #[serde(borrow)]
    pub(crate) arguments: &'a RawValue,
}

/// The log probability of a token, and its alternatives.
#[derive(Deserialize)]
pub(crate) struct Logprob<'a> {
    #[serde(borrow)]
    pub(crate) token: Text<'a>,
    #[serde(borrow)]
    pub(crate) logprob: &'a RawValue,
    #[serde(default, borrow)]
    pub(crate) bytes: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(crate) top_logprobs: Vec<Logprob<'a>>,
}

/// A text that borrows from the line unless something in it is escaped. Absent and null become
/// empty.
#[derive(Default)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or null")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl ToolCall<'_> {
    /// Returns its id, or one derived from the job's: at most 40 bytes, because some clients accept
    /// no more.
    pub(crate) fn id_in(&self, job: JobId, index: usize) -> String {
        let own = self.id.as_ref().filter(|id| !id.is_empty());
        own.cloned()
            .unwrap_or_else(|| format!("call_{job}_{index}"))
    }
}

impl<'a> Line<'a> {
    /// Parses a line; `None` if it is not a native one.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Parses a line; an invalid one is the error of a broken answer.
    pub(crate) fn native(bytes: &'a [u8]) -> Result<Self, ErrorDetail> {
        Self::parse(bytes).ok_or_else(broken_off)
    }

    /// Text in it, for either operation.
    pub(crate) fn text(&self) -> &str {
        match &self.message {
            Some(message) => message.content.as_str(),
            None => self.response.as_str(),
        }
    }

    /// Text of a thinking model's thoughts; empty if there is none.
    pub(crate) fn thinking(&self) -> &str {
        match &self.message {
            Some(message) => message.thinking.as_str(),
            None => self.thinking.as_str(),
        }
    }

    /// Tool calls in it.
    pub(crate) fn tool_calls(&self) -> &[ToolCall<'a>] {
        self.message.as_ref().map_or(&[], |m| &m.tool_calls)
    }

    /// Whether it contains something for the requester.
    pub(crate) fn says(&self) -> bool {
        !self.text().is_empty() || !self.thinking().is_empty() || !self.tool_calls().is_empty()
    }

    /// Whether it contains nothing but text.
    pub(crate) fn is_text(&self) -> bool {
        !self.text().is_empty() && self.thinking().is_empty() && self.tool_calls().is_empty()
    }

    /// Whether the token limit ended the answer.
    pub(crate) fn is_cut(&self) -> bool {
        self.done_reason.as_str() == "length"
    }
}

/// Parses the lines of a complete answer; the last one must be final.
pub(crate) fn complete(lines: &[bytes::Bytes]) -> Result<Vec<Line<'_>>, ErrorDetail> {
    let lines = lines
        .iter()
        .map(|line| Line::native(line))
        .collect::<Result<Vec<_>, _>>()?;
    if lines.last().is_some_and(|last| last.done) {
        Ok(lines)
    } else {
        Err(broken_off())
    }
}

/// Returns the error for an answer without its final line: an engine that merely stops has failed.
#[must_use]
pub fn broken_off() -> ErrorDetail {
    refuse(
        ErrorCode::EngineFailed,
        "the engine ended without a complete answer; send the request again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_copied_only_where_it_is_escaped() {
        let plain = br#"{"message":{"content":"za\u017c","thinking":null},"done":false}"#;
        let line = Line::parse(plain).unwrap();
        assert_eq!((line.text(), line.thinking()), ("zaż", ""));
        let line = Line::parse(r#"{"response":"zaż","done":false}"#.as_bytes()).unwrap();
        assert_eq!(line.text(), "zaż");
        assert!(matches!(line.response.0, Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_line_is_told_from_one() {
        assert!(Line::parse(b"half {").is_none());
        assert!(Line::parse(br#"{"message":{"content":7}}"#).is_none());
        assert!(Line::parse(b"{}").is_some_and(|line| !line.says()));
    }
}
