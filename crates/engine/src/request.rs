//! The fields of an Ollama request that engines' clients need.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// Whether an Ollama request asks for a stream of lines, which is the default. As in Ollama, the
/// last of duplicate keys counts, keys match in any case, and anything after the first value is
/// ignored.
pub(crate) fn wants_lines(body: &[u8]) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(WantsLines).unwrap_or(true)
}

struct WantsLines;

impl<'de> Visitor<'de> for WantsLines {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut wants = true;
        while let Some(key) = map.next_key::<String>()? {
            if key.eq_ignore_ascii_case("stream") {
                wants = map.next_value::<Value>()?.as_bool().unwrap_or(true);
            } else {
                let IgnoredAny = map.next_value()?;
            }
        }
        Ok(wants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wanted_unless_the_last_word_is_that_they_are_not() {
        for (body, wanted) in [
            (r#"{"model":"a"}"#, true),
            (r#"{"stream":false} trailing"#, false),
            (r#"{"Stream":false,"x":[{}]}"#, false),
            (r#"{"stream":false,"stream":true}"#, true),
            (r#"{"stream":7}"#, true),
            ("[]", true),
            (r#"{"stream":false,"#, true),
        ] {
            assert_eq!(wants_lines(body.as_bytes()), wanted, "{body}");
        }
    }
}
