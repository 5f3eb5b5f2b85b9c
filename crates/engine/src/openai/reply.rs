//! Conversion of OpenAI's streamed answers to Ollama's lines.

use bytes::Bytes;
use proto::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Duration;

use super::{
    request::{Form, Loading, Shape},
    tool_calls::{CallPart, ToolCalls},
};
use crate::{EngineError, answer};

/// State of one answer while it is translated.
#[derive(Debug)]
pub(super) struct Reply {
    model: String,
    shape: Shape,
    text: String,
    thinking: String,
    calls: ToolCalls,
    finish: Option<String>,
    usage: Usage,
    pieces: u64,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With `[DONE]`.
    Done,
    /// Without it.
    Cut,
}

#[derive(Debug, Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    /// Former name of the field; some servers send both.
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallPart>>,
}

impl Reply {
    pub(super) const fn new(model: String, shape: Shape) -> Self {
        Self {
            model,
            shape,
            text: String::new(),
            thinking: String::new(),
            calls: ToolCalls::new(),
            finish: None,
            usage: Usage {
                prompt_tokens: None,
                completion_tokens: None,
            },
            pieces: 0,
        }
    }

    /// Processes the data of one event; returns a line if it has visible content.
    pub(super) fn event(
        &mut self,
        data: &[u8],
        now: Timestamp,
    ) -> Result<Option<Bytes>, EngineError> {
        let event: Event = serde_json::from_slice(data)
            .map_err(|_| EngineError::Broken("an event of its answer is not OpenAI's".into()))?;
        if let Some(error) = event.error.filter(|error| !error.is_null()) {
            let body = json!({ "error": error }).to_string();
            let problem = answer::message(body.as_bytes());
            let problem = problem.unwrap_or_else(|| "an error without words".into());
            return Err(EngineError::Broken(problem));
        }
        if let Some(usage) = event.usage {
            self.usage = usage;
        }
        let Some(choice) = event.choices.into_iter().next() else {
            return Ok(None);
        };
        if choice.finish_reason.is_some() {
            self.finish = choice.finish_reason;
        }
        let delta = choice.delta.unwrap_or_default();
        for part in delta.tool_calls.unwrap_or_default() {
            self.calls.add(part);
        }
        let text = delta.content.or(choice.text).unwrap_or_default();
        let thinking = delta.reasoning.or(delta.reasoning_content);
        let thinking = thinking.unwrap_or_default();
        if text.is_empty() && thinking.is_empty() {
            return Ok(None);
        }
        self.pieces += 1;
        if self.shape.stream {
            return Ok(Some(self.line(&text, &thinking, Vec::new(), now)));
        }
        self.text.push_str(&text);
        self.thinking.push_str(&thinking);
        Ok(None)
    }

    /// Processes the end of the stream: returns the last lines, or an error if the answer was not
    /// finished.
    pub(super) fn end(
        mut self,
        ending: Ending,
        took: Duration,
        now: Timestamp,
    ) -> Result<Vec<Bytes>, EngineError> {
        // A server that fails in the middle just stops; only a finish reason makes an answer
        // complete.
        let reason = match self.finish.take() {
            Some(reason) => reason,
            None if ending == Ending::Done && self.pieces > 0 => "stop".to_owned(),
            None => {
                let problem = "it ended its answer without an end marker";
                return Err(EngineError::Broken(problem.into()));
            }
        };
        let is_cut = reason == "length";
        let mut calls = std::mem::take(&mut self.calls).into_ollama(is_cut)?;
        let mut lines = Vec::new();
        if self.shape.stream && !calls.is_empty() {
            lines.push(self.line("", "", std::mem::take(&mut calls), now));
        }
        let mut last = self.frame(&self.text, &self.thinking, calls, now);
        last.insert("done".into(), true.into());
        let reason = if is_cut { "length" } else { "stop" };
        last.insert("done_reason".into(), reason.into());
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        last.insert("total_duration".into(), nanos.into());
        // Ollama omits zeros.
        if let Some(prompt) = self.usage.prompt_tokens.filter(|count| *count > 0) {
            last.insert("prompt_eval_count".into(), prompt.into());
        }
        let count = self.usage.completion_tokens.unwrap_or(self.pieces);
        if count > 0 {
            last.insert("eval_count".into(), count.into());
            last.insert("eval_duration".into(), nanos.into());
        }
        lines.push(Value::Object(last).to_string().into());
        Ok(lines)
    }

    fn line(&self, text: &str, thinking: &str, calls: Vec<Value>, now: Timestamp) -> Bytes {
        let mut line = self.frame(text, thinking, calls, now);
        line.insert("done".into(), false.into());
        Value::Object(line).to_string().into()
    }

    fn frame(
        &self,
        text: &str,
        thinking: &str,
        calls: Vec<Value>,
        now: Timestamp,
    ) -> Map<String, Value> {
        let mut content = Map::new();
        let mut line = Map::new();
        line.insert("model".into(), self.model.as_str().into());
        line.insert("created_at".into(), date(now).into());
        let key = match self.shape.form {
            Form::Chat => {
                content.insert("role".into(), "assistant".into());
                "content"
            }
            Form::Generate => "response",
        };
        content.insert(key.into(), text.into());
        if !thinking.is_empty() {
            content.insert("thinking".into(), thinking.into());
        }
        if !calls.is_empty() {
            content.insert("tool_calls".into(), Value::Array(calls));
        }
        match self.shape.form {
            Form::Chat => {
                line.insert("message".into(), Value::Object(content));
            }
            Form::Generate => line.extend(content),
        }
        line
    }
}

/// Returns the answer to a request without a prompt, which only loads or unloads.
pub(super) fn loaded(model: &str, form: Form, loading: Loading, now: Timestamp) -> Bytes {
    let shape = Shape {
        form,
        stream: false,
    };
    let mut line = Reply::new(model.to_owned(), shape).frame("", "", Vec::new(), now);
    line.insert("done".into(), true.into());
    line.insert("done_reason".into(), loading.as_str().into());
    Value::Object(line).to_string().into()
}

/// Formats RFC 3339 in UTC.
pub(super) fn date(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
