//! Native chat lines as chunks of a completion, or as one completion object.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    error_event,
    object::{Head, Usage, finish_reason},
};
use crate::{
    answer::{Answer, Named, data},
    line::{Line, Logprob, ToolCall, complete},
    ollama::json,
    template::Template,
};

const CHUNK: &str = "chat.completion.chunk";

/// An answer in the format of a chat completion.
#[derive(Debug)]
pub struct Completion {
    head: Head,
    include_usage: bool,
    began: bool,
    calls: usize,
    finished: bool,
    /// Template of a chunk that contains only text.
    token: Template,
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
    content: Vec<Likely<'a>>,
}

/// A token's log probability with every field that clients expect.
#[derive(Serialize)]
struct Likely<'a> {
    token: &'a str,
    logprob: &'a RawValue,
    bytes: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Likely<'a>>>,
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

impl<'a> Streamed<'a> {
    const fn said(delta: Piece<'a>) -> Self {
        Self {
            index: 0,
            delta,
            finish_reason: None,
            logprobs: None,
        }
    }
}

fn chunk(head: &Head, out: &mut Vec<u8>, choice: Streamed<'_>) {
    data(out, &head.object(CHUNK, [choice], None));
}

impl Completion {
    /// Starts an answer.
    #[must_use]
    pub fn new(named: Named, include_usage: bool) -> Self {
        let head = Head::new("chatcmpl-", named);
        let token = Template::new(|out, text| {
            let delta = Piece {
                content: Some(text),
                ..Piece::default()
            };
            chunk(&head, out, Streamed::said(delta));
        });
        Self {
            head,
            include_usage,
            began: false,
            calls: 0,
            finished: false,
            token,
        }
    }

    /// Whether the line contains nothing but text.
    fn is_token(&self, line: &Line<'_>) -> bool {
        self.began && !line.done && line.logprobs.is_empty() && line.is_text()
    }

    fn numbered<'a>(&mut self, calls: &'a [ToolCall<'_>]) -> Vec<Call<'a>> {
        let first = self.calls;
        self.calls += calls.len();
        let number = |(index, call): (usize, &'a ToolCall<'_>)| Call {
            id: call.id_in(self.head.named.job, index),
            index,
            r#type: "function",
            function: CalledFunction {
                name: &call.function.name,
                arguments: call.function.arguments.get(),
            },
        };
        (first..).zip(calls).map(number).collect()
    }

    fn finish_reason(&self, last: &Line<'_>) -> &'static str {
        if self.calls > 0 {
            "tool_calls"
        } else {
            finish_reason(last)
        }
    }
}

impl Answer for Completion {
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail> {
        let line = Line::native(line)?;
        let mut out = Vec::new();
        if self.is_token(&line) {
            self.token.fill(&mut out, line.text());
        } else if line.says() || !self.began || !line.logprobs.is_empty() {
            let delta = Piece {
                role: (!self.began).then_some("assistant"),
                content: Some(line.text()),
                reasoning: line.thinking(),
                tool_calls: self.numbered(line.tool_calls()),
            };
            self.began = true;
            let choice = Streamed {
                logprobs: logprobs(&line.logprobs),
                ..Streamed::said(delta)
            };
            chunk(&self.head, &mut out, choice);
        }
        if line.done {
            self.finished = true;
            let choice = Streamed {
                finish_reason: Some(self.finish_reason(&line)),
                ..Streamed::said(Piece::default())
            };
            chunk(&self.head, &mut out, choice);
            let usage = self.include_usage.then(|| Usage::of(&line));
            self.head.end(&mut out, CHUNK, usage);
        }
        Ok(out.into())
    }

    fn is_finished(&self) -> bool {
        self.finished
    }

    fn whole(mut self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        let lines = complete(lines)?;
        let content: String = lines.iter().map(Line::text).collect();
        let reasoning: String = lines.iter().map(Line::thinking).collect();
        let calls = lines.iter().map(|line| self.numbered(line.tool_calls()));
        let tool_calls = calls.flatten().collect();
        let content_of = lines.iter().flat_map(|line| &line.logprobs);
        let likely: Vec<_> = content_of.map(Likely::of).collect();
        let last = lines.last();
        let choice = Whole {
            index: 0,
            message: Piece {
                role: Some("assistant"),
                content: Some(&content),
                reasoning: &reasoning,
                tool_calls,
            },
            finish_reason: last.map_or("stop", |last| self.finish_reason(last)),
            logprobs: (!likely.is_empty()).then_some(Logprobs { content: likely }),
        };
        let usage = last.map(Usage::of);
        Ok(json(&self.head.object("chat.completion", [choice], usage)))
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        error_event(code, message)
    }
}

impl<'a> Likely<'a> {
    fn of(of: &'a Logprob<'_>) -> Self {
        Self {
            top_logprobs: Some(of.top_logprobs.iter().map(Likely::other).collect()),
            ..Self::other(of)
        }
    }

    fn other(of: &'a Logprob<'_>) -> Self {
        Self {
            token: of.token.as_str(),
            logprob: of.logprob,
            bytes: of.bytes,
            top_logprobs: None,
        }
    }
}

fn logprobs<'a>(of: &'a [Logprob<'_>]) -> Option<Logprobs<'a>> {
    let content = || of.iter().map(Likely::of).collect();
    (!of.is_empty()).then(|| Logprobs { content: content() })
}
