//! The messages of a request: content blocks become native messages.

use proto::ErrorDetail;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    content::Content,
    native::{self, bad},
};

#[derive(Deserialize)]
pub(super) struct Message {
    role: String,
    content: Content<Block>,
}

#[derive(Deserialize)]
pub(super) struct Block {
    r#type: String,
    text: Option<String>,
    thinking: Option<String>,
    source: Option<Source>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Box<RawValue>>,
    tool_use_id: Option<String>,
    content: Option<Content<Block>>,
}

#[derive(Deserialize)]
struct Source {
    r#type: String,
    data: Option<String>,
}

impl Message {
    /// Appends the native messages; each tool result becomes a message of its own.
    pub(super) fn append(self, out: &mut Vec<native::Message>) -> Result<(), ErrorDetail> {
        let role = self.role;
        if !["user", "assistant", "system"].contains(&role.as_str()) {
            return Err(bad(format!(
                "messages: role `{role}` is neither user nor assistant"
            )));
        }
        let before = out.len();
        let mut said = Said::default();
        for block in parts(self.content) {
            if block.r#type == "tool_result" {
                said.flush(&role, out);
                out.push(block.answer()?);
            } else {
                said.take(block)?;
            }
        }
        said.flush(&role, out);
        if out.len() == before && role != "assistant" {
            return Err(bad(format!(
                "messages: the content of a {role} message is empty"
            )));
        }
        Ok(())
    }
}

fn parts(content: Content<Block>) -> Vec<Block> {
    match content {
        Content::Text(text) => vec![Block {
            r#type: "text".into(),
            text: Some(text),
            thinking: None,
            source: None,
            id: None,
            name: None,
            input: None,
            tool_use_id: None,
            content: None,
        }],
        Content::Parts(blocks) => blocks,
    }
}

/// Joins the texts of a system prompt with line feeds.
pub(super) fn system(content: Content<Block>) -> Result<String, ErrorDetail> {
    let mut said = Said::default();
    for block in parts(content) {
        said.take(block)?;
    }
    Ok(said.texts.join("\n"))
}

/// The content of one message without its tool results.
#[derive(Default)]
struct Said {
    texts: Vec<String>,
    images: Vec<String>,
    thinking: Option<String>,
    calls: Vec<native::ToolCall>,
}

impl Said {
    fn take(&mut self, block: Block) -> Result<(), ErrorDetail> {
        let incomplete = |what: &str| bad(format!("messages: a {what} block is not complete"));
        match block.r#type.as_str() {
            "text" => self
                .texts
                .push(block.text.ok_or_else(|| incomplete("text"))?),
            "thinking" => {
                let thought = block.thinking.ok_or_else(|| incomplete("thinking"))?;
                self.thinking.get_or_insert_default().push_str(&thought);
            }
            // Encrypted; only Anthropic can read it.
            "redacted_thinking" => {}
            "image" => self.images.push(image(block.source)?),
            "document" => self.texts.push(document(block.source)?),
            "tool_use" => {
                let name = block.name.ok_or_else(|| incomplete("tool_use"))?;
                let input = block
                    .input
                    .map_or_else(|| "{}".into(), |raw| raw.get().to_owned());
                self.calls
                    .push(native::ToolCall::new(block.id, name, input)?);
            }
            other => {
                return Err(bad(format!(
                    "messages: a block of type `{other}` is not one of text, image, document, \
                     thinking, tool_use, tool_result"
                )));
            }
        }
        Ok(())
    }

    fn flush(&mut self, role: &str, out: &mut Vec<native::Message>) {
        let said = std::mem::take(self);
        let is_empty = said.texts.is_empty() && said.images.is_empty();
        if is_empty && said.thinking.is_none() && said.calls.is_empty() {
            return;
        }
        out.push(native::Message {
            thinking: said.thinking,
            images: said.images,
            tool_calls: said.calls,
            ..native::Message::text(role, said.texts.join("\n"))
        });
    }
}

impl Block {
    /// Converts a tool result.
    fn answer(self) -> Result<native::Message, ErrorDetail> {
        let mut said = Said::default();
        for part in self.content.map(parts).unwrap_or_default() {
            said.take(part)?;
        }
        Ok(native::Message {
            images: said.images,
            tool_call_id: self.tool_use_id,
            ..native::Message::text("tool", said.texts.join("\n"))
        })
    }
}

fn image(source: Option<Source>) -> Result<String, ErrorDetail> {
    match source {
        Some(Source {
            r#type,
            data: Some(data),
        }) if r#type == "base64" => Ok(data),
        _ => Err(bad(
            "messages: an image must have a source of type base64; URLs and files are not fetched",
        )),
    }
}

fn document(source: Option<Source>) -> Result<String, ErrorDetail> {
    match source {
        Some(Source {
            r#type,
            data: Some(data),
        }) if r#type == "text" => Ok(data),
        _ => Err(bad(
            "messages: a document must have a source of type text; no model here reads PDF",
        )),
    }
}
