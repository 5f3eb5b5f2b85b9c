//! The messages of a chat completion as native ones.

use proto::ErrorDetail;
use serde::Deserialize;

use crate::{
    content::Content,
    native::{self, bad},
};

#[derive(Deserialize)]
pub(super) struct Message {
    role: String,
    content: Option<Content<Part>>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
    reasoning: Option<String>,
    /// Former name of the field; clients that send back answers of some servers send both.
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<ImageUrl>,
    input_audio: Option<InputAudio>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "image_url must be a URL or an object with one")]
enum ImageUrl {
    Bare(String),
    Object { url: String },
}

#[derive(Deserialize)]
struct InputAudio {
    data: String,
}

#[derive(Deserialize)]
struct ToolCall {
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

impl Message {
    pub(super) fn native(self) -> Result<native::Message, ErrorDetail> {
        let role = role(&self.role);
        let calls = self.tool_calls.unwrap_or_default();
        let (content, images) = match self.content {
            Some(Content::Text(text)) => (text, Vec::new()),
            Some(Content::Parts(parts)) => joined(parts)?,
            None if role == "assistant" => (String::new(), Vec::new()),
            None => return Err(bad("invalid message content type: <nil>")),
        };
        let tool_calls = calls.into_iter().map(|call| {
            let Function { name, arguments } = call.function;
            native::ToolCall::new(call.id, name, arguments)
        });
        Ok(native::Message {
            tool_name: self.name.filter(|_| role == "tool"),
            role,
            content,
            thinking: self.reasoning.or(self.reasoning_content),
            images,
            tool_calls: tool_calls.collect::<Result<_, _>>()?,
            tool_call_id: self.tool_call_id,
        })
    }
}

/// Converts a role. A `developer` message is a system message for Ollama.
pub(super) fn role(role: &str) -> String {
    match role.to_ascii_lowercase() {
        role if role == "developer" => "system".to_owned(),
        role => role,
    }
}

/// Returns the texts of a message's parts, joined with line feeds, and its images as bare base64.
fn joined(parts: Vec<Part>) -> Result<(String, Vec<String>), ErrorDetail> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        let kind = part.r#type.as_str();
        match (
            kind,
            part.text,
            part.refusal,
            part.image_url,
            part.input_audio,
        ) {
            ("text", Some(text), ..) | ("refusal", _, Some(text), ..) => texts.push(text),
            ("image_url", _, _, Some(url), _) => {
                let (ImageUrl::Bare(url) | ImageUrl::Object { url }) = url;
                images.push(image(&url)?);
            }
            ("input_audio", .., Some(audio)) => images.push(audio.data),
            (other, ..) => {
                return Err(bad(format!(
                    "message content part `{other}` is not complete, or not one of text, \
                     image_url, input_audio, refusal"
                )));
            }
        }
    }
    Ok((texts.join("\n"), images))
}

/// Returns the bare base64 of an image in a data URL.
pub(super) fn image(url: &str) -> Result<String, ErrorDetail> {
    if url.starts_with("http:") || url.starts_with("https:") {
        return Err(bad(
            "image URLs are not currently supported, please use base64 encoded data instead",
        ));
    }
    let data = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .map(|(_, data)| data);
    data.map(str::to_owned)
        .ok_or_else(|| bad("an image must be a data URL: data:image/png;base64,..."))
}
