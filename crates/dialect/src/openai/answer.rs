//! Native chat lines as chunks of a completion, or as one completion object.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    clock::seconds,
    line::{Line, ToolCall},
    ollama::{json, refuse},
    openai::{DONE, event},
};

/// What stays the same in every chunk of one answer.
#[derive(Debug, Clone)]
pub struct Named {
    /// Unique; starts with `chatcmpl-`.
    pub id: String,
    /// As the requester wrote it.
    pub model: String,
    /// When the answer began.
    pub created: Timestamp,
}

/// One answer on its way to the requester.
#[derive(Debug)]
pub struct Completion {
    named: Named,
    include_usage: bool,
    began: bool,
    calls: usize,
    finished: bool,
}

#[derive(Serialize)]
struct Object<'a, C> {
    id: &'a str,
    object: &'a str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Streamed<'a> {
    index: u32,
    delta: Piece<'a>,
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs<'a>>,
}

#[derive(Serialize)]
struct Whole<'a> {
    index: u32,
    message: Piece<'a>,
    finish_reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs<'a>>,
}

#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<&'a RawValue>,
}

/// A delta or a message.
#[derive(Serialize, Default)]
struct Piece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: String,
    index: usize,
    r#type: &'a str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    const fn of(line: &Line<'_>) -> Self {
        Self {
            prompt_tokens: line.prompt_eval_count,
            completion_tokens: line.eval_count,
            total_tokens: line.prompt_eval_count.saturating_add(line.eval_count),
        }
    }
}

impl Completion {
    /// An answer of which nothing was said yet.
    #[must_use]
    pub const fn new(named: Named, include_usage: bool) -> Self {
        Self {
            named,
            include_usage,
            began: false,
            calls: 0,
            finished: false,
        }
    }

    /// The events for one native line: a delta, and after the last line the finish, the usage if
    /// it was asked for, and `[DONE]`.
    ///
    /// # Errors
    /// `engine_failed` for a line that is not a native one.
    pub fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail> {
        let line = Line::parse(line).ok_or_else(not_native)?;
        let mut out = Vec::new();
        let tool_calls = self.numbered(line.tool_calls());
        let says = !line.text().is_empty() || !line.thinking().is_empty() || !tool_calls.is_empty();
        if says || !self.began {
            let delta = Piece {
                role: (!self.began).then_some("assistant"),
                content: Some(line.text()),
                reasoning: line.thinking(),
                tool_calls,
            };
            self.began = true;
            out.extend(self.chunk(delta, None, line.logprobs));
        }
        if line.done {
            self.finished = true;
            out.extend(self.chunk(Piece::default(), Some(self.finish_reason(&line)), None));
            if self.include_usage {
                let none: [Streamed<'_>; 0] = [];
                let usage = Some(Usage::of(&line));
                out.extend(event(&json(&self.object(
                    "chat.completion.chunk",
                    none,
                    usage,
                ))));
            }
            out.extend(DONE.as_bytes());
        }
        Ok(out.into())
    }

    /// Whether the last native line was seen; a stream that ends without it has failed.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// The one object for all lines of an answer.
    ///
    /// # Errors
    /// `engine_failed` if a line is not native or the last one is missing.
    pub fn whole(mut self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        let lines = lines
            .iter()
            .map(|line| Line::parse(line).ok_or_else(not_native))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(last) = lines.last().filter(|line| line.done) else {
            return Err(not_native());
        };
        let content: String = lines.iter().map(Line::text).collect();
        let reasoning: String = lines.iter().map(Line::thinking).collect();
        let tool_calls = lines
            .iter()
            .flat_map(|line| self.numbered(line.tool_calls()))
            .collect();
        let logprobs: Vec<&RawValue> = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Vec<&RawValue>>(line.logprobs?.get()).ok())
            .flatten()
            .collect();
        let choice = Whole {
            index: 0,
            message: Piece {
                role: Some("assistant"),
                content: Some(&content),
                reasoning: &reasoning,
                tool_calls,
            },
            finish_reason: self.finish_reason(last),
            logprobs: (!logprobs.is_empty()).then_some(Logprobs { content: logprobs }),
        };
        Ok(json(&self.object(
            "chat.completion",
            [choice],
            Some(Usage::of(last)),
        )))
    }

    fn numbered<'a>(&mut self, calls: &'a [ToolCall<'_>]) -> Vec<Call<'a>> {
        let first = self.calls;
        self.calls += calls.len();
        let number = |(offset, call): (usize, &'a ToolCall<'_>)| Call {
            id: call
                .id
                .clone()
                .unwrap_or_else(|| format!("call_{}_{}", self.named.id, first + offset)),
            index: first + offset,
            r#type: "function",
            function: CalledFunction {
                name: &call.function.name,
                arguments: call.function.arguments.get(),
            },
        };
        calls.iter().enumerate().map(number).collect()
    }

    fn finish_reason(&self, last: &Line<'_>) -> &'static str {
        match last.done_reason.as_deref() {
            _ if self.calls > 0 => "tool_calls",
            Some("length") => "length",
            _ => "stop",
        }
    }

    fn chunk(&self, delta: Piece<'_>, finish: Option<&str>, logprobs: Option<&RawValue>) -> Bytes {
        let logprobs = logprobs.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let choice = Streamed {
            index: 0,
            delta,
            finish_reason: finish,
            logprobs: logprobs.map(|content| Logprobs { content }),
        };
        event(&json(&self.object("chat.completion.chunk", [choice], None)))
    }

    fn object<'a, C>(&'a self, object: &'a str, choices: C, usage: Option<Usage>) -> Object<'a, C> {
        Object {
            id: &self.named.id,
            object,
            created: seconds(self.named.created),
            model: &self.named.model,
            system_fingerprint: "fp_hearth",
            choices,
            usage,
        }
    }
}

fn not_native() -> ErrorDetail {
    refuse(
        ErrorCode::EngineFailed,
        "the engine ended without a complete answer; send the request again",
    )
}
