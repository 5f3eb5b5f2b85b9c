use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// The few fields of an Ollama request that others than the engine look at. Where a key stands
/// twice the last one counts, as it does for Ollama.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The model it names, if it names one in text.
    pub model: Option<String>,
    /// Whether the answer is wanted line by line; Ollama's default is that it is.
    pub stream: bool,
}

impl RequestHead {
    /// Reads the head of a request without keeping any of its text.
    ///
    /// # Errors
    /// If the body is not a JSON object; the message holds nothing of the body.
    pub fn read(body: &[u8]) -> Result<Self, NotAnObject> {
        // Ollama ignores what follows the first value; so does this.
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Self>();
        values.next().and_then(Result::ok).ok_or(NotAnObject)
    }
}

/// A request that is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is not a JSON object")]
pub struct NotAnObject;

impl<'de> Deserialize<'de> for RequestHead {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeadVisitor)
    }
}

struct HeadVisitor;

impl<'de> Visitor<'de> for HeadVisitor {
    type Value = RequestHead;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestHead, A::Error> {
        let mut head = RequestHead {
            model: None,
            stream: true,
        };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "model" => head.model = map.next_value::<Value>()?.as_str().map(str::to_owned),
                "stream" => head.stream = map.next_value::<Value>()?.as_bool().unwrap_or(true),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_keys_counts_and_streaming_is_the_default() {
        let head = RequestHead::read(br#"{"model":"a","x":[{}],"model":"b"} trailing"#).unwrap();
        assert_eq!(head.model.as_deref(), Some("b"));
        assert!(head.stream);
        let head = RequestHead::read(br#"{"stream":false,"model":7}"#).unwrap();
        assert_eq!((head.model, head.stream), (None, false));
    }

    #[test]
    fn what_is_no_object_is_an_error_that_quotes_nothing() {
        for wrong in ["", "[]", "7", "{\"secret\":", "{\"a\":1,,}"] {
            let error = RequestHead::read(wrong.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("secret"));
        }
    }
}
