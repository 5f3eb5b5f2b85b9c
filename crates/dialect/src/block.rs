//! An answer as a sequence of blocks: thoughts, texts and tool calls.

use proto::JobId;
use serde_json::value::RawValue;

use crate::line::{Line, ToolCall};

/// One block of an answer.
#[derive(Debug)]
pub(crate) enum Block {
    Thinking(String),
    Text(String),
    Call(Call),
}

/// A tool call by the model.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Box<RawValue>,
}

impl Call {
    pub(crate) fn new(call: &ToolCall<'_>, job: JobId, index: usize) -> Self {
        Self {
            id: call.id_in(job, index),
            name: call.function.name.clone(),
            arguments: call.function.arguments.to_owned(),
        }
    }
}

/// Returns the blocks of a complete answer.
pub(crate) fn blocks(lines: &[Line<'_>], job: JobId) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut calls = 0;
    for line in lines {
        match (line.thinking(), blocks.last_mut()) {
            ("", _) => {}
            (more, Some(Block::Thinking(text))) => text.push_str(more),
            (first, _) => blocks.push(Block::Thinking(first.to_owned())),
        }
        match (line.text(), blocks.last_mut()) {
            ("", _) => {}
            (more, Some(Block::Text(text))) => text.push_str(more),
            (first, _) => blocks.push(Block::Text(first.to_owned())),
        }
        for call in line.tool_calls() {
            blocks.push(Block::Call(Call::new(call, job, calls)));
            calls += 1;
        }
    }
    blocks
}
