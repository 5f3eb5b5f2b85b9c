//! Embeddings, as numbers or as 32-bit floats in base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use proto::{ErrorDetail, ModelName};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    line::broken_off,
    native::{bad, named},
    ollama::{json, parse_named},
};

/// A parsed request: the native request, and what determines the format of the answer.
pub struct EmbeddingRequest {
    /// Name of the model; `None` if absent or empty.
    pub model: Option<String>,
    encoding: Encoding,
    native: Native,
}

#[derive(Deserialize)]
struct Asked {
    model: Option<String>,
    input: Option<Input>,
    encoding_format: Option<Encoding>,
    dimensions: Option<u32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

#[derive(Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "input must be a string or a list of strings; lists of tokens are not accepted, \
                 because the relay knows no vocabulary"
)]
enum Input {
    One(String),
    Many(Vec<String>),
}

/// The native embed request without its model.
#[derive(Serialize)]
struct Native {
    input: Input,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

impl Input {
    /// Returns the number of inputs; a single empty text counts as none.
    const fn count(&self) -> usize {
        match self {
            Self::One(text) => !text.is_empty() as usize,
            Self::Many(texts) => texts.len(),
        }
    }
}

impl EmbeddingRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// `malformed_json`, or `bad_request` naming the wrong field.
    pub fn parse(body: &[u8]) -> Result<Self, ErrorDetail> {
        let asked: Asked = parse_named(body)?;
        let input = asked.input.ok_or_else(|| bad("input is required"))?;
        if input.count() == 0 {
            return Err(bad("input is empty; send a text or a list of texts"));
        }
        let dimensions = asked.dimensions;
        if dimensions == Some(0) {
            return Err(bad("dimensions must be at least 1"));
        }
        Ok(Self {
            model: asked.model.filter(|model| !model.is_empty()),
            encoding: asked.encoding_format.unwrap_or(Encoding::Float),
            native: Native { input, dimensions },
        })
    }

    /// Returns the native request.
    #[must_use]
    pub fn native(&self, model: &ModelName) -> Bytes {
        named(model, &self.native)
    }

    /// Returns the list of embeddings from the native answer.
    ///
    /// # Errors
    /// `engine_failed` if it is invalid, or does not have one embedding per input.
    pub fn answer(&self, model: &str, lines: &[Bytes]) -> Result<Bytes, ErrorDetail> {
        let line = lines.last().ok_or_else(broken_off)?;
        let native: Embedded<'_> = serde_json::from_slice(line).map_err(|_| broken_off())?;
        if native.embeddings.len() != self.native.input.count() {
            return Err(broken_off());
        }
        let entries = native.embeddings.into_iter().enumerate();
        let entries = entries.map(|(index, numbers)| {
            Ok(Embedding {
                object: "embedding",
                embedding: Encoded::new(numbers, self.encoding)?,
                index,
            })
        });
        Ok(json(&List {
            object: "list",
            data: entries.collect::<Result<_, ErrorDetail>>()?,
            model,
            usage: Usage {
                prompt_tokens: native.prompt_eval_count,
                total_tokens: native.prompt_eval_count,
            },
        }))
    }
}

impl std::fmt::Debug for EmbeddingRequest {
    /// Hides the input.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("EmbeddingRequest");
        debug.field("model", &self.model).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    embeddings: Vec<&'a RawValue>,
    #[serde(default)]
    prompt_eval_count: u64,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'a str,
    data: Vec<Embedding<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding<'a> {
    object: &'a str,
    embedding: Encoded<'a>,
    index: usize,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

enum Encoded<'a> {
    /// As the engine wrote them.
    Numbers(&'a RawValue),
    Base64(String),
}

impl<'a> Encoded<'a> {
    fn new(numbers: &'a RawValue, encoding: Encoding) -> Result<Self, ErrorDetail> {
        match encoding {
            Encoding::Float => Ok(Self::Numbers(numbers)),
            Encoding::Base64 => {
                let floats: Vec<f32> =
                    serde_json::from_str(numbers.get()).map_err(|_| broken_off())?;
                let bytes: Vec<u8> = floats.into_iter().flat_map(f32::to_le_bytes).collect();
                Ok(Self::Base64(STANDARD.encode(bytes)))
            }
        }
    }
}

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(numbers) => numbers.serialize(to),
            Self::Base64(text) => to.serialize_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str =
        r#"{"model":"m","embeddings":[[0.5,-1],[1.0e-1,2]],"prompt_eval_count":7}"#;

    fn request(body: &str) -> EmbeddingRequest {
        EmbeddingRequest::parse(body.as_bytes()).unwrap()
    }

    fn answer(body: &str) -> Result<Bytes, ErrorDetail> {
        request(body).answer("as-asked", &[Bytes::from_static(NATIVE.as_bytes())])
    }

    #[test]
    fn the_input_passes_as_it_is() {
        let native = |body| request(body).native(&ModelName::new("m").unwrap());
        assert_eq!(
            native(r#"{"input":"a","user":"x"}"#),
            r#"{"model":"m","input":"a"}"#
        );
        assert_eq!(
            native(r#"{"model":"n","input":["a","b"],"dimensions":64,"encoding_format":"base64"}"#),
            r#"{"model":"m","input":["a","b"],"dimensions":64}"#
        );
    }

    #[test]
    fn what_cannot_be_embedded_is_refused_by_name() {
        let refusal = |body: &str| {
            EmbeddingRequest::parse(body.as_bytes())
                .unwrap_err()
                .message
        };
        for tokens in ["[1,2]", "[[1,2]]"] {
            let message = refusal(&format!(r#"{{"input":{tokens}}}"#));
            assert!(
                message.contains("lists of tokens are not accepted"),
                "{message}"
            );
        }
        for none in [r#"{"input":""}"#, r#"{"input":[]}"#] {
            assert!(refusal(none).contains("empty"));
        }
        assert_eq!(refusal("{}"), "input is required");
        assert!(refusal(r#"{"input":"a","encoding_format":"hex"}"#).contains("hex"));
        assert!(refusal(r#"{"input":"a","dimensions":0}"#).contains("dimensions"));
    }

    #[test]
    fn numbers_stay_as_the_engine_wrote_them() {
        let want = include_str!("../../fixtures/openai/embeddings.json");
        assert_eq!(answer(r#"{"input":["a","b"]}"#).unwrap(), want.trim_end());
    }

    #[test]
    fn base64_is_the_bytes_of_little_endian_floats() {
        let answer = answer(r#"{"input":["a","b"],"encoding_format":"base64"}"#).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["data"][0]["embedding"], "AAAAPwAAgL8=");
        let bytes = STANDARD.decode(answer["data"][1]["embedding"].as_str().unwrap());
        let floats: Vec<f32> = bytes
            .unwrap()
            .chunks(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        assert_eq!(floats, [0.1, 2.0]);
    }

    #[test]
    fn an_answer_for_other_texts_than_were_sent_is_none() {
        let short = answer(r#"{"input":["a","b","c"]}"#).unwrap_err();
        assert_eq!(short.code, proto::ErrorCode::EngineFailed);
        assert!(request(r#"{"input":"a"}"#).answer("m", &[]).is_err());
    }
}
