//! Native chat lines as the events of a message, or as one message.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    answer::{Answer, Named, event},
    block::{Block, Call, blocks},
    line::{Line, complete},
    template::Template,
};

/// An answer in the format of a message.
#[derive(Debug)]
pub struct Message {
    named: Named,
    began: bool,
    /// Kind of the open block, and the template of its deltas.
    open: Option<(Kind, Template)>,
    /// Index of the next block.
    index: usize,
    calls: usize,
    finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

#[derive(Serialize)]
struct BlockDelta<D> {
    r#type: &'static str,
    index: usize,
    delta: D,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

#[derive(Serialize)]
struct Whole<'a> {
    id: String,
    r#type: &'a str,
    role: &'a str,
    model: &'a str,
    content: Vec<Part<'a>>,
    stop_reason: Option<&'a str>,
    stop_sequence: Option<&'a str>,
    usage: Usage,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    Text {
        text: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
}

#[derive(Serialize, Default)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
}

impl Usage {
    const fn of(last: &Line<'_>) -> Self {
        Self {
            input_tokens: last.prompt_eval_count,
            output_tokens: last.eval_count,
        }
    }
}

fn delta(out: &mut Vec<u8>, index: usize, delta: Delta<'_>) {
    let delta = BlockDelta {
        r#type: "content_block_delta",
        index,
        delta,
    };
    event(out, delta.r#type, &delta);
}

impl Message {
    /// Starts an answer.
    #[must_use]
    pub const fn new(named: Named) -> Self {
        Self {
            named,
            began: false,
            open: None,
            index: 0,
            calls: 0,
            finished: false,
        }
    }

    fn object<'a>(
        &'a self,
        content: Vec<Part<'a>>,
        stop_reason: Option<&'a str>,
        usage: Usage,
    ) -> Whole<'a> {
        Whole {
            id: format!("msg_{}", self.named.job),
            r#type: "message",
            role: "assistant",
            model: &self.named.model,
            content,
            stop_reason,
            stop_sequence: None,
            usage,
        }
    }

    /// Begins the message. The number of prompt tokens is known, and sent, only at the end.
    fn begin(&mut self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Start<'a> {
            r#type: &'a str,
            message: Whole<'a>,
        }
        if !self.began {
            let message = self.object(Vec::new(), None, Usage::default());
            let start = Start {
                r#type: "message_start",
                message,
            };
            event(out, start.r#type, &start);
            ping(out);
            self.began = true;
        }
    }

    fn start(&self, out: &mut Vec<u8>, block: &Value) {
        let start = json!({
            "type": "content_block_start", "index": self.index, "content_block": block,
        });
        event(out, "content_block_start", &start);
    }

    fn stop(&mut self, out: &mut Vec<u8>) {
        let stop = json!({"type": "content_block_stop", "index": self.index});
        event(out, "content_block_stop", &stop);
        self.index += 1;
    }

    /// Appends to the open thinking or text block; opens one if necessary.
    fn grow(&mut self, out: &mut Vec<u8>, kind: Kind, more: &str) {
        if !matches!(&self.open, Some((open, _)) if *open == kind) {
            self.close(out);
            let start = match kind {
                Kind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                Kind::Text => json!({"type": "text", "text": ""}),
            };
            self.start(out, &start);
            let token = Template::new(|out, text| {
                let said = match kind {
                    Kind::Thinking => Delta::Thinking { thinking: text },
                    Kind::Text => Delta::Text { text },
                };
                delta(out, self.index, said);
            });
            self.open = Some((kind, token));
        }
        if let Some((_, token)) = &self.open {
            token.fill(out, more);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            self.stop(out);
        }
    }

    fn call(&mut self, out: &mut Vec<u8>, call: &Call) {
        self.close(out);
        let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        self.start(out, &block);
        let partial_json = call.arguments.get();
        delta(out, self.index, Delta::InputJson { partial_json });
        self.stop(out);
        self.calls += 1;
    }

    fn end(&mut self, out: &mut Vec<u8>, last: &Line<'_>) {
        self.close(out);
        let reason = stop_reason(last, self.calls > 0);
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": null},
            "usage": Usage::of(last),
        });
        event(out, "message_delta", &delta);
        event(out, "message_stop", &json!({"type": "message_stop"}));
        self.finished = true;
    }
}

fn ping(out: &mut Vec<u8>) {
    event(out, "ping", &json!({"type": "ping"}));
}

/// Returns the stop reason. Ollama does not report which stop sequence ended an answer, or whether
/// one did.
fn stop_reason(last: &Line<'_>, calls: bool) -> &'static str {
    if calls {
        "tool_use"
    } else if last.is_cut() {
        "max_tokens"
    } else {
        "end_turn"
    }
}

impl Answer for Message {
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail> {
        let line = Line::native(line)?;
        let mut out = Vec::new();
        self.begin(&mut out);
        let (thinking, text) = (line.thinking(), line.text());
        if !thinking.is_empty() {
            self.grow(&mut out, Kind::Thinking, thinking);
        }
        if !text.is_empty() {
            self.grow(&mut out, Kind::Text, text);
        }
        for call in line.tool_calls() {
            let call = Call::new(call, self.named.job, self.calls);
            self.call(&mut out, &call);
        }
        if line.done {
            self.end(&mut out, &line);
        }
        Ok(out.into())
    }

    fn is_finished(&self) -> bool {
        self.finished
    }

    fn whole(self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        let lines = complete(lines)?;
        let blocks = blocks(&lines, self.named.job);
        let content = blocks.iter().map(Part::of).collect();
        let calls = blocks.iter().any(|block| matches!(block, Block::Call(_)));
        let reason = lines.last().map(|last| stop_reason(last, calls));
        let usage = lines.last().map(Usage::of).unwrap_or_default();
        Ok(crate::ollama::json(&self.object(content, reason, usage)))
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        let id = super::request_id(self.named.job);
        let failure = super::failure(code.http_status(), code, message, Some(&id));
        let mut out = Vec::new();
        event(&mut out, "error", &failure);
        out.into()
    }

    /// Returns the API's own `ping`, preceded by the start of the message if nothing was sent yet.
    fn heartbeat(&mut self) -> Bytes {
        let mut out = Vec::new();
        if self.began {
            ping(&mut out);
        } else {
            self.begin(&mut out);
        }
        out.into()
    }
}

impl<'a> Part<'a> {
    fn of(block: &'a Block) -> Self {
        match block {
            Block::Thinking(thinking) => Self::Thinking {
                thinking,
                signature: "",
            },
            Block::Text(text) => Self::Text { text },
            Block::Call(call) => Self::ToolUse {
                id: &call.id,
                name: &call.name,
                input: &call.arguments,
            },
        }
    }
}
