//! Complete answers, merged from an engine's lines.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, limits};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{json, refuse};
use crate::line::broken_off;

/// The fields that are merged across lines.
#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    message: Option<Said>,
    #[serde(flatten)]
    said: Said,
    #[serde(default)]
    logprobs: Vec<Value>,
}

/// Text of the model: inside `message` for a chat, at the top level for a generation.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    content: Option<String>,
    response: Option<String>,
    thinking: Option<String>,
    tool_calls: Vec<Value>,
}

/// Returns the object for `"stream":false`: a single line unchanged, several lines merged.
///
/// # Errors
/// `engine_failed` if there is no line or the last is not an object.
pub fn joined(lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
    let last = match lines {
        [] => return Err(broken_off()),
        [one] => return Ok(one.clone()),
        [.., last] => last,
    };
    let structure: usize = lines.iter().map(|line| proto::structure(line)).sum();
    if structure > limits::ANSWER_STRUCTURE_MAX {
        let message = "the answer has too many fields to be merged; request a stream";
        return Err(refuse(ErrorCode::TooLarge, message));
    }
    let mut answer: Map<String, Value> = serde_json::from_slice(last).map_err(|_| broken_off())?;
    let (mut text, mut thinking) = (String::new(), String::new());
    let (mut calls, mut logprobs) = (Vec::new(), Vec::new());
    for line in lines {
        let piece: Piece = serde_json::from_slice(line).map_err(|_| broken_off())?;
        let said = piece.message.unwrap_or(piece.said);
        text.extend(said.content.or(said.response));
        thinking.extend(said.thinking);
        calls.extend(said.tool_calls);
        logprobs.extend(piece.logprobs);
    }
    let (target, name) = match answer.get_mut("message") {
        Some(Value::Object(message)) => (message, "content"),
        _ => (&mut answer, "response"),
    };
    target.insert(name.into(), text.into());
    if !thinking.is_empty() {
        target.insert("thinking".into(), thinking.into());
    }
    if !calls.is_empty() {
        target.insert("tool_calls".into(), calls.into());
    }
    if !logprobs.is_empty() {
        answer.insert("logprobs".into(), logprobs.into());
    }
    Ok(json(&answer))
}

/// Returns the answer of the older `POST /api/embeddings` from that of `embed`: its first vector,
/// digit for digit.
///
/// # Errors
/// `engine_failed` if it is not an answer of `embed`.
pub fn first_embedding(answer: &[u8]) -> Result<Bytes, ErrorDetail> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        embeddings: Vec<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|_| broken_off())?;
    let first = answer.embeddings.first().map_or("[]", |first| first.get());
    Ok(format!(r#"{{"embedding":{first}}}"#).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Vec<Bytes> {
        let lines = text.lines().map(str::as_bytes);
        lines.map(Bytes::from_static).collect()
    }

    #[test]
    fn one_line_is_its_own_answer_byte_for_byte() {
        let line = Bytes::from_static(br#"{"model":"m","done":true,  "x":1.50}"#);
        assert_eq!(joined(std::slice::from_ref(&line)).unwrap(), line);
        assert_eq!(joined(&[]).unwrap_err().code, ErrorCode::EngineFailed);
    }

    #[test]
    fn a_streamed_chat_is_put_together_with_thoughts_and_calls() {
        let streamed = lines(include_str!("../../fixtures/ollama/chat-lines.ndjson"));
        let want = include_str!("../../fixtures/ollama/chat-joined.json").trim_end();
        assert_eq!(joined(&streamed).unwrap(), want);
    }

    #[test]
    fn a_streamed_generate_is_put_together() {
        let streamed = lines(concat!(
            r#"{"model":"m","response":"","thinking":"hm","done":false}"#,
            "\n",
            r#"{"model":"m","response":"Hel","done":false,"logprobs":[{"logprob":-2.5}]}"#,
            "\n",
            r#"{"model":"m","response":"lo","done":false,"logprobs":[{"logprob":-0.1}]}"#,
            "\n",
            r#"{"model":"m","response":"","done":true,"done_reason":"stop"}"#,
        ));
        assert_eq!(
            joined(&streamed).unwrap(),
            r#"{"model":"m","response":"Hello","done":true,"done_reason":"stop","thinking":"hm","logprobs":[{"logprob":-2.5},{"logprob":-0.1}]}"#
        );
    }

    #[test]
    fn an_answer_that_would_take_far_more_memory_than_room_is_not_put_together() {
        let line = |calls: usize| {
            let calls = vec!["0"; calls].join(",");
            Bytes::from(format!(
                r#"{{"message":{{"content":"","tool_calls":[{calls}]}},"done":true}}"#
            ))
        };
        let half = line(limits::ANSWER_STRUCTURE_MAX / 2);
        let refused = joined(&[half.clone(), half]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert!(joined(&[line(9), line(9)]).is_ok());
    }

    #[test]
    fn the_older_embedding_is_the_first_vector_digit_for_digit() {
        let first = |answer: &str| first_embedding(answer.as_bytes());
        assert_eq!(
            first(r#"{"model":"m","embeddings":[[0.10,-1e-7],[2]]}"#).unwrap(),
            r#"{"embedding":[0.10,-1e-7]}"#
        );
        assert_eq!(
            first(r#"{"model":"m","embeddings":[]}"#).unwrap(),
            r#"{"embedding":[]}"#
        );
        assert_eq!(first("{}").unwrap_err().code, ErrorCode::EngineFailed);
    }
}
