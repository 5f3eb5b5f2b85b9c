//! The lines of an answer, in Ollama's format.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::request::Shape;

/// Formats the lines of one answer as Ollama does.
pub(crate) struct LineWriter {
    pub(crate) model: String,
    pub(crate) shape: Shape,
    pub(crate) clock: fn() -> Timestamp,
}

/// Reason why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DoneReason {
    /// The model ended it, or a stop string was generated.
    Stop,
    /// `num_predict` or the end of the context was reached.
    Length,
    /// The request had no prompt; the model is loaded.
    Load,
    /// The request had no prompt; the model is unloaded.
    Unload,
}

/// The counts in the last line. Zeros are omitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    pub(crate) total: Duration,
    pub(crate) load: Duration,
    pub(crate) prompt_tokens: u64,
    pub(crate) prompt: Duration,
    pub(crate) tokens: u64,
    pub(crate) generation: Duration,
}

impl LineWriter {
    /// Returns a line with a part of the answer.
    pub(crate) fn piece(&self, text: &str) -> Bytes {
        self.write(text, None, None, Metrics::default())
    }

    /// Returns the last line. `text` is empty in a stream, and otherwise the whole answer.
    pub(crate) fn done(
        &self,
        text: &str,
        reason: DoneReason,
        context: Option<&[i32]>,
        metrics: Metrics,
    ) -> Bytes {
        self.write(text, Some(reason), context, metrics)
    }

    fn write(
        &self,
        text: &str,
        reason: Option<DoneReason>,
        context: Option<&[i32]>,
        metrics: Metrics,
    ) -> Bytes {
        let line = Line {
            model: &self.model,
            created_at: (self.clock)().to_string(),
            message: (self.shape == Shape::Chat).then_some(Message {
                role: "assistant",
                content: text,
            }),
            response: (self.shape == Shape::Generate).then_some(text),
            done: reason.is_some(),
            done_reason: reason,
            context,
            total_duration: nanoseconds(metrics.total),
            load_duration: nanoseconds(metrics.load),
            prompt_eval_count: metrics.prompt_tokens,
            prompt_eval_duration: nanoseconds(metrics.prompt),
            eval_count: metrics.tokens,
            eval_duration: nanoseconds(metrics.generation),
        };
        to_line(&line)
    }
}

/// Returns the only line for an embed request without input.
pub(crate) fn no_embeddings(model: &str) -> Bytes {
    #[derive(Serialize)]
    struct Embeddings<'a> {
        model: &'a str,
        embeddings: [(); 0],
    }
    let embeddings = [];
    to_line(&Embeddings { model, embeddings })
}

/// Serializes like Go, which escapes some characters; they only occur inside strings.
fn to_line(line: &impl Serialize) -> Bytes {
    // Serializing a struct of texts and numbers cannot fail.
    let json = serde_json::to_string(line).unwrap_or_default();
    let mut go = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => go.push_str("\\u003c"),
            '>' => go.push_str("\\u003e"),
            '&' => go.push_str("\\u0026"),
            '\u{2028}' => go.push_str("\\u2028"),
            '\u{2029}' => go.push_str("\\u2029"),
            _ => go.push(c),
        }
    }
    Bytes::from(go)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<DoneReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a [i32]>,
    #[serde(skip_serializing_if = "is_zero")]
    total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_duration: u64,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writer(shape: Shape) -> LineWriter {
        LineWriter {
            model: "smollm2:135m".to_owned(),
            shape,
            clock: || Timestamp::constant(1_700_000_000, 123_456_789),
        }
    }

    #[test]
    fn a_chat_is_written_byte_for_byte_as_ollama_writes_it() {
        let writer = writer(Shape::Chat);
        assert_eq!(
            writer.piece("I <"),
            r#"{"model":"smollm2:135m","created_at":"2023-11-14T22:13:20.123456789Z","message":{"role":"assistant","content":"I \u003c"},"done":false}"#
        );
        let metrics = Metrics {
            total: Duration::from_nanos(100_134_190),
            load: Duration::from_nanos(795_081),
            prompt_tokens: 12,
            prompt: Duration::from_millis(18),
            tokens: 8,
            generation: Duration::ZERO,
        };
        assert_eq!(
            writer.done("", DoneReason::Length, None, metrics),
            r#"{"model":"smollm2:135m","created_at":"2023-11-14T22:13:20.123456789Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","total_duration":100134190,"load_duration":795081,"prompt_eval_count":12,"prompt_eval_duration":18000000,"eval_count":8}"#
        );
    }

    #[test]
    fn generate_has_its_own_shape_and_context() {
        assert_eq!(
            writer(Shape::Generate).done("x", DoneReason::Stop, Some(&[1, 2]), Metrics::default()),
            r#"{"model":"smollm2:135m","created_at":"2023-11-14T22:13:20.123456789Z","response":"x","done":true,"done_reason":"stop","context":[1,2]}"#
        );
        assert_eq!(no_embeddings("m"), r#"{"model":"m","embeddings":[]}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_and_comes_back_unchanged(text in "\\PC*|[\\x00-\\x1f<>&\"\u{2028}🦀]*") {
            let line = writer(Shape::Chat).piece(&text);
            prop_assert!(!line.contains(&b'\n'));
            let back: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(back.pointer("/message/content").unwrap().as_str().unwrap(), text);
        }
    }
}
