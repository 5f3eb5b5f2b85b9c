//! Native chat lines as the events of a response, or as one response.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail};
use serde::Serialize;
use serde_json::{Value, json};

use super::request::{Echo, ResponseRequest};
use crate::{
    answer::{Answer, Named, event},
    block::{Block, Call, blocks},
    clock::seconds,
    line::{Line, complete},
    openai::kind,
    template::{NUMBER, Template},
};

/// An answer in the format of a response.
#[derive(Debug)]
pub struct ResponseAnswer {
    named: Named,
    echo: Echo,
    /// Sequence number of the next event.
    sequence: u64,
    blocks: Vec<Block>,
    /// Id of the open item, and the template of its deltas.
    open: Option<(String, Template)>,
    calls: usize,
    finished: bool,
}

#[derive(Serialize)]
struct Event<'a, T> {
    r#type: &'a str,
    #[serde(flatten)]
    fields: T,
    sequence_number: u64,
}

/// An event written for every token, therefore serialized without a `Value` tree.
#[derive(Serialize)]
struct Delta<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(flatten)]
    place: Place,
    delta: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Place {
    Summary {
        summary_index: u32,
    },
    Content {
        content_index: u32,
        logprobs: [(); 0],
    },
}

const SUMMARY: Place = Place::Summary { summary_index: 0 };
const CONTENT: Place = Place::Content {
    content_index: 0,
    logprobs: [],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

fn numbered<T: Serialize>(out: &mut Vec<u8>, name: &str, fields: T, sequence_number: u64) {
    let written = Event {
        r#type: name,
        fields,
        sequence_number,
    };
    event(out, name, &written);
}

impl ResponseAnswer {
    /// Starts an answer.
    #[must_use]
    pub fn new(named: Named, request: &ResponseRequest) -> Self {
        Self {
            named,
            echo: request.echo.clone(),
            sequence: 0,
            blocks: Vec::new(),
            open: None,
            calls: 0,
            finished: false,
        }
    }

    fn event<T: Serialize>(&mut self, out: &mut Vec<u8>, name: &str, fields: T) {
        numbered(out, name, fields, self.sequence);
        self.sequence += 1;
    }

    /// Returns the response in its current state; `ended` adds the fields known only at the end.
    fn object(&self, status: &str, output: &[Value], ended: Value) -> Value {
        let mut object = json!({
            "id": format!("resp_{}", self.named.job),
            "object": "response",
            "created_at": seconds(self.named.created),
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.named.model,
            "output": output,
            "usage": null,
        });
        for more in [json!(self.echo), ended] {
            if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
                object.extend(more);
            }
        }
        object
    }

    fn ended(&self, last: &Line<'_>, output: &[Value]) -> Value {
        let usage = json!({
            "input_tokens": last.prompt_eval_count,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": last.eval_count,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": last.prompt_eval_count.saturating_add(last.eval_count),
        });
        let why = last
            .is_cut()
            .then(|| json!({"reason": "max_output_tokens"}));
        let ended = json!({"incomplete_details": why, "usage": usage});
        self.object(status(last), output, ended)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.sequence == 0 {
            let response = json!({"response": self.object("in_progress", &[], Value::Null)});
            self.event(out, "response.created", &response);
            self.event(out, "response.in_progress", &response);
        }
    }

    fn item_id(&self, index: usize, block: &Block) -> String {
        let prefix = match block {
            Block::Thinking(_) => "rs",
            Block::Text(_) => "msg",
            Block::Call(_) => "fc",
        };
        format!("{prefix}_{}_{index}", self.named.job)
    }

    fn item(&self, index: usize, block: &Block, status: &str) -> Value {
        let id = self.item_id(index, block);
        match block {
            Block::Thinking(text) => json!({
                "id": id, "type": "reasoning", "summary": [summary_part(text)],
            }),
            Block::Text(text) => json!({
                "id": id, "type": "message", "status": status, "role": "assistant",
                "content": [text_part(text)],
            }),
            Block::Call(call) => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call.id,
                "name": call.name, "arguments": call.arguments.get(),
            }),
        }
    }

    fn items(&self, blocks: &[Block], last: &Line<'_>) -> Vec<Value> {
        let cut = blocks.len().checked_sub(1).filter(|_| last.is_cut());
        let items = blocks.iter().enumerate().map(|(index, block)| {
            let status = if cut == Some(index) {
                "incomplete"
            } else {
                "completed"
            };
            self.item(index, block, status)
        });
        items.collect()
    }

    /// Appends to the open reasoning or text item; opens one if necessary.
    fn grow(&mut self, out: &mut Vec<u8>, kind: Kind, more: &str) {
        match (kind, self.blocks.last_mut().filter(|_| self.open.is_some())) {
            (Kind::Thinking, Some(Block::Thinking(text)))
            | (Kind::Text, Some(Block::Text(text))) => {
                text.push_str(more);
            }
            _ => {
                self.close(out, "completed");
                self.open(out, kind, more);
            }
        }
        if let Some((_, token)) = &self.open {
            token.fill_numbered(out, more, self.sequence);
            self.sequence += 1;
        }
    }

    fn open(&mut self, out: &mut Vec<u8>, kind: Kind, first: &str) {
        let index = self.blocks.len();
        let (block, name) = match kind {
            Kind::Thinking => (
                Block::Thinking(first.to_owned()),
                "response.reasoning_summary_part.added",
            ),
            Kind::Text => (Block::Text(first.to_owned()), "response.content_part.added"),
        };
        let id = self.item_id(index, &block);
        let (item, part) = match kind {
            Kind::Thinking => (
                json!({"id": id, "type": "reasoning", "summary": []}),
                json!({"item_id": id, "output_index": index, "summary_index": 0,
                       "part": summary_part("")}),
            ),
            Kind::Text => (
                json!({"id": id, "type": "message", "status": "in_progress",
                       "role": "assistant", "content": []}),
                json!({"item_id": id, "output_index": index, "content_index": 0,
                       "part": text_part("")}),
            ),
        };
        let added = json!({"output_index": index, "item": item});
        self.event(out, "response.output_item.added", added);
        self.event(out, name, part);
        self.blocks.push(block);
        let token = token(kind, &id, index);
        self.open = Some((id, token));
    }

    /// Closes the open item, if there is one.
    fn close(&mut self, out: &mut Vec<u8>, status: &str) {
        let Some(((id, _), block)) = self.open.take().zip(self.blocks.last()) else {
            return;
        };
        let index = self.blocks.len() - 1;
        let item = self.item(index, block, status);
        let (names, fields, part) = match block {
            Block::Thinking(text) => (
                [
                    "response.reasoning_summary_text.done",
                    "response.reasoning_summary_part.done",
                ],
                json!({"item_id": id, "output_index": index, "summary_index": 0, "text": text}),
                summary_part(text),
            ),
            Block::Text(text) => (
                ["response.output_text.done", "response.content_part.done"],
                json!({"item_id": id, "output_index": index, "content_index": 0, "text": text,
                       "logprobs": []}),
                text_part(text),
            ),
            Block::Call(_) => return,
        };
        let mut of_part = fields.clone();
        if let Value::Object(of_part) = &mut of_part {
            of_part.shift_remove("text");
            of_part.shift_remove("logprobs");
            of_part.insert("part".into(), part);
        }
        self.event(out, names[0], fields);
        self.event(out, names[1], of_part);
        let done = json!({"output_index": index, "item": item});
        self.event(out, "response.output_item.done", done);
    }

    fn call(&mut self, out: &mut Vec<u8>, call: Call) {
        self.close(out, "completed");
        let index = self.blocks.len();
        let (name, arguments) = (call.name.clone(), call.arguments.get().to_owned());
        let block = Block::Call(call);
        let id = self.item_id(index, &block);
        let mut item = self.item(index, &block, "in_progress");
        item["arguments"] = "".into();
        let added = json!({"output_index": index, "item": item});
        self.event(out, "response.output_item.added", added);
        let delta = json!({"item_id": id, "output_index": index, "delta": arguments});
        self.event(out, "response.function_call_arguments.delta", delta);
        let done = json!({
            "item_id": id, "output_index": index, "name": name, "arguments": arguments,
        });
        self.event(out, "response.function_call_arguments.done", done);
        let item = self.item(index, &block, "completed");
        let done = json!({"output_index": index, "item": item});
        self.event(out, "response.output_item.done", done);
        self.blocks.push(block);
        self.calls += 1;
    }

    fn end(&mut self, out: &mut Vec<u8>, last: &Line<'_>) {
        let status = status(last);
        self.close(out, status);
        let output = self.items(&self.blocks, last);
        let response = json!({"response": self.ended(last, &output)});
        self.event(out, &format!("response.{status}"), response);
        self.finished = true;
    }
}

/// Returns the template of the deltas of this item.
fn token(kind: Kind, item_id: &str, output_index: usize) -> Template {
    let (name, place) = match kind {
        Kind::Thinking => ("response.reasoning_summary_text.delta", SUMMARY),
        Kind::Text => ("response.output_text.delta", CONTENT),
    };
    Template::new(|out, delta| {
        let delta = Delta {
            item_id,
            output_index,
            place,
            delta,
        };
        numbered(out, name, delta, NUMBER);
    })
}

fn status(last: &Line<'_>) -> &'static str {
    if last.is_cut() {
        "incomplete"
    } else {
        "completed"
    }
}

fn summary_part(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

impl Answer for ResponseAnswer {
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail> {
        let line = Line::native(line)?;
        let mut out = Vec::new();
        self.begin(&mut out);
        if !line.thinking().is_empty() {
            self.grow(&mut out, Kind::Thinking, line.thinking());
        }
        if !line.text().is_empty() {
            self.grow(&mut out, Kind::Text, line.text());
        }
        for call in line.tool_calls() {
            let call = Call::new(call, self.named.job, self.calls);
            self.call(&mut out, call);
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
        let Some(last) = lines.last() else {
            return Err(crate::line::broken_off());
        };
        let output = self.items(&blocks(&lines, self.named.job), last);
        Ok(crate::ollama::json(&self.ended(last, &output)))
    }

    /// Writes the failure twice: as the state of the response, and as the event on which clients
    /// raise an error. That event contains the error both as documented and as clients expect it.
    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        let mut out = Vec::new();
        self.begin(&mut out);
        let error = json!({"error": {"code": code.as_str(), "message": message}});
        let response = json!({"response": self.object("failed", &[], error)});
        self.event(&mut out, "response.failed", response);
        let status = code.http_status();
        let nested = json!({
            "type": kind(status), "code": code.as_str(), "message": message,
            "param": null,
        });
        let error = json!({
            "code": code.as_str(), "message": message, "param": null, "error": nested,
        });
        self.event(&mut out, "error", error);
        out.into()
    }
}
