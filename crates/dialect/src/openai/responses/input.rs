//! The items of an input as native messages.

use proto::ErrorDetail;
use serde::Deserialize;

use crate::{
    content::Content,
    native::{self, bad},
    openai::message::{image, role},
};

#[derive(Deserialize)]
pub(super) struct Item {
    r#type: Option<String>,
    role: Option<String>,
    content: Option<Content<Part>>,
    summary: Option<Vec<Part>>,
    name: Option<String>,
    arguments: Option<String>,
    call_id: Option<String>,
    output: Option<Content<Part>>,
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<String>,
}

/// Returns the conversation so far, after the instructions.
pub(super) fn messages(
    instructions: Option<&str>,
    input: Content<Item>,
) -> Result<Vec<native::Message>, ErrorDetail> {
    let mut said = Vec::new();
    if let Some(instructions) = instructions.filter(|text| !text.is_empty()) {
        said.push(native::Message::text("system", instructions.to_owned()));
    }
    match input {
        Content::Text(text) => said.push(native::Message::text("user", text)),
        Content::Parts(items) if items.is_empty() => return Err(bad("input is empty")),
        Content::Parts(items) => {
            let mut thought = None;
            for item in items {
                item.append(&mut thought, &mut said)?;
            }
        }
    }
    native::name_answers(&mut said);
    Ok(said)
}

impl Item {
    /// Appends an item. A thought belongs to the model's next message, and calls to its message
    /// before them.
    fn append(
        self,
        thought: &mut Option<String>,
        said: &mut Vec<native::Message>,
    ) -> Result<(), ErrorDetail> {
        match self.r#type.as_deref() {
            None | Some("message") => {
                let role = self.role.as_deref().map(role);
                let role = role.ok_or_else(|| bad("input: a message has no role"))?;
                let (text, images) = joined(self.content)?;
                let thinking = thought.take().filter(|_| role == "assistant");
                said.push(native::Message {
                    thinking,
                    images,
                    ..native::Message::text(&role, text)
                });
            }
            Some("reasoning") => {
                let (text, _) = match self.content {
                    None => joined(self.summary.map(Content::Parts))?,
                    content => joined(content)?,
                };
                *thought = Some(text).filter(|text| !text.is_empty());
            }
            Some("function_call") => {
                let name = self.name.ok_or_else(|| bad("input: a call has no name"))?;
                let arguments = self.arguments.unwrap_or_else(|| "{}".into());
                let call = native::ToolCall::new(self.call_id, name, arguments)?;
                match said.last_mut().filter(|last| last.role == "assistant") {
                    Some(last) if thought.is_none() => last.tool_calls.push(call),
                    _ => said.push(native::Message {
                        thinking: thought.take(),
                        tool_calls: vec![call],
                        ..native::Message::text("assistant", String::new())
                    }),
                }
            }
            Some("function_call_output") => {
                let (text, images) = joined(self.output)?;
                said.push(native::Message {
                    images,
                    tool_call_id: self.call_id,
                    ..native::Message::text("tool", text)
                });
            }
            Some(other) => {
                return Err(bad(format!(
                    "input: an item of type `{other}` is not one of message, reasoning, \
                     function_call, function_call_output"
                )));
            }
        }
        Ok(())
    }
}

/// Returns the texts of the parts, joined with line feeds, and their images as bare base64.
fn joined(content: Option<Content<Part>>) -> Result<(String, Vec<String>), ErrorDetail> {
    let parts = match content {
        None => return Ok(Default::default()),
        Some(Content::Text(text)) => return Ok((text, Vec::new())),
        Some(Content::Parts(parts)) => parts,
    };
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        match (
            part.r#type.as_str(),
            part.text.or(part.refusal),
            part.image_url,
        ) {
            (
                "input_text" | "output_text" | "text" | "refusal" | "summary_text"
                | "reasoning_text",
                Some(text),
                _,
            ) => texts.push(text),
            ("input_image", _, Some(url)) => images.push(image(&url)?),
            (other, ..) => {
                return Err(bad(format!(
                    "input: a part of type `{other}` is not complete, or not one of input_text, \
                     output_text, refusal, input_image with an image_url"
                )));
            }
        }
    }
    Ok((texts.join("\n"), images))
}
