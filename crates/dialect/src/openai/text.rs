//! Text completions, the older API: a prompt, and its continuation.

use bytes::Bytes;
use proto::{ErrorCode, ErrorDetail, ModelName};
use serde::{Deserialize, Serialize};

use super::{
    error_event,
    object::{Head, Usage, finish_reason},
    sampling::{Sampling, StreamOptions, includes_usage},
};
use crate::{
    answer::{Answer, Named, data},
    line::{Line, complete},
    native::{Options, bad, named},
    ollama::{json, parse_named},
    template::Template,
};

const OBJECT: &str = "text_completion";

/// A parsed request: the native request, and what determines the format of the answer.
pub struct TextRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
    native: Native,
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    prompt: Option<Prompt>,
    suffix: Option<String>,
    echo: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    sampling: Sampling,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "prompt must be a string; lists of tokens are not accepted, because the relay \
                 knows no vocabulary"
)]
enum Prompt {
    One(String),
    Many(Vec<String>),
}

/// The native generate request without its model.
#[derive(Serialize)]
struct Native {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<String>,
    stream: bool,
    options: Options,
}

impl TextRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse_named(body)?;
        let prompt = match asked.prompt {
            Some(Prompt::One(prompt)) => prompt,
            Some(Prompt::Many(prompts)) => match <[String; 1]>::try_from(prompts) {
                Ok([prompt]) => prompt,
                Err(_) => return Err(bad("prompt must be one string; send one request for each")),
            },
            None => return Err(bad("prompt is required")),
        };
        if asked.echo == Some(true) {
            return Err(bad(
                "echo is not supported; put the prompt before the answer yourself",
            ));
        }
        Ok(Self {
            model: asked.model.filter(|model| !model.is_empty()),
            stream: asked.stream.unwrap_or(false),
            include_usage: includes_usage(asked.stream_options.as_ref()),
            native: Native {
                prompt,
                suffix: asked.suffix.filter(|suffix| !suffix.is_empty()),
                stream: true,
                options: asked.sampling.options()?,
            },
        })
    }

    /// Returns the native request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }
}

impl std::fmt::Debug for TextRequest {
    /// Hides the prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("TextRequest");
        debug.field("model", &self.model).finish_non_exhaustive()
    }
}

/// An answer in the format of a text completion.
#[derive(Debug)]
pub struct TextCompletion {
    head: Head,
    include_usage: bool,
    finished: bool,
    /// Template of a chunk.
    token: Template,
}

#[derive(Serialize)]
struct Choice<'a> {
    text: &'a str,
    index: u32,
    logprobs: Option<()>,
    finish_reason: Option<&'a str>,
}

impl TextCompletion {
    /// Starts an answer.
    #[must_use]
    pub fn new(named: Named, include_usage: bool) -> Self {
        let head = Head::new("cmpl-", named);
        let token = Template::new(|out, text| chunk(&head, out, text, None));
        Self {
            head,
            include_usage,
            finished: false,
            token,
        }
    }
}

fn chunk(head: &Head, out: &mut Vec<u8>, text: &str, finish_reason: Option<&str>) {
    data(
        out,
        &head.object(OBJECT, [choice(text, finish_reason)], None),
    );
}

const fn choice<'a>(text: &'a str, finish_reason: Option<&'a str>) -> Choice<'a> {
    Choice {
        text,
        index: 0,
        logprobs: None,
        finish_reason,
    }
}

impl Answer for TextCompletion {
    fn events(&mut self, line: &[u8]) -> Result<Bytes, ErrorDetail> {
        let line = Line::native(line)?;
        let mut out = Vec::new();
        if !line.text().is_empty() {
            self.token.fill(&mut out, line.text());
        }
        if line.done {
            self.finished = true;
            chunk(&self.head, &mut out, "", Some(finish_reason(&line)));
            let usage = self.include_usage.then(|| Usage::of(&line));
            self.head.end(&mut out, OBJECT, usage);
        }
        Ok(out.into())
    }

    fn is_finished(&self) -> bool {
        self.finished
    }

    fn whole(self, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        let lines = complete(lines)?;
        let text: String = lines.iter().map(Line::text).collect();
        let choice = choice(&text, lines.last().map(finish_reason));
        let usage = lines.last().map(Usage::of);
        Ok(json(&self.head.object(OBJECT, [choice], usage)))
    }

    fn failure(&mut self, code: ErrorCode, message: &str) -> Bytes {
        error_event(code, message)
    }
}

#[cfg(test)]
mod tests {
    use proto::{JobId, Timestamp};

    use super::*;

    const LINES: [&[u8]; 3] = [
        br#"{"model":"m","response":"Hel","done":false}"#,
        br#"{"model":"m","response":"lo","done":false}"#,
        br#"{"model":"m","response":"","done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":2}"#,
    ];

    fn completion() -> TextCompletion {
        let named = Named {
            job: JobId([0xab; 16]),
            model: "m".into(),
            created: Timestamp(1_795_320_469_500),
        };
        TextCompletion::new(named, true)
    }

    fn refusal(body: &str) -> String {
        TextRequest::parse(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn every_field_finds_its_native_place() {
        let body = include_str!("../../fixtures/openai/text-request.json");
        let request = TextRequest::parse(body.as_bytes()).unwrap();
        assert!(request.stream && request.include_usage);
        let want = include_str!("../../fixtures/openai/text-request-native.json");
        let native = request.native(&ModelName::new("m").unwrap());
        assert_eq!(native, want.trim_end());
        assert!(!format!("{request:?}").contains("fn main"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert_eq!(refusal("{}"), "prompt is required");
        assert!(refusal(r#"{"prompt":["a","b"]}"#).contains("one string"));
        assert!(refusal(r#"{"prompt":[1,2]}"#).contains("lists of tokens are not accepted"));
        assert!(refusal(r#"{"prompt":"a","echo":true}"#).contains("echo"));
        assert!(refusal(r#"{"prompt":"a","best_of":3}"#).contains("best_of must be 1"));
        assert!(TextRequest::parse(br#"{"prompt":["a"],"echo":false}"#).is_ok());
    }

    #[test]
    fn a_stream_is_written_in_exactly_these_events() {
        let mut completion = completion();
        let events: Vec<u8> = LINES
            .iter()
            .flat_map(|line| completion.events(line).unwrap())
            .collect();
        assert!(completion.is_finished());
        let want = include_str!("../../fixtures/openai/text-stream.txt");
        assert_eq!(String::from_utf8(events).unwrap(), want);
    }

    #[test]
    fn a_whole_answer_is_exactly_this_object() {
        let lines = LINES.map(Bytes::from_static);
        let want = include_str!("../../fixtures/openai/text.json");
        assert_eq!(completion().whole(&lines).unwrap(), want.trim_end());
        let cut = completion().whole(&lines[..2]).unwrap_err();
        assert_eq!(cut.code, ErrorCode::EngineFailed);
    }
}
