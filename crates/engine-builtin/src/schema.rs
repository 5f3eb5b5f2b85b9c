//! What of a JSON schema llama.cpp is given to make a grammar of: the memory and time that takes grow
//! with the cube of an object's properties, and its recursion with names and depth, all of it in
//! this process and without an end that anybody could ask for.

use engine::EngineError;
use serde_json::Value;

use crate::request::refused;

/// Longest schema, in bytes.
const TEXT_MAX: usize = 64 * 1024;
/// Most properties of one object.
const PROPERTIES_MAX: usize = 256;
/// Longest name of a property, pattern and reference, in bytes.
const NAME_MAX: usize = 256;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// The schema as a text.
pub(crate) fn text(schema: &Value) -> Result<String, EngineError> {
    let text = schema.to_string();
    let too = if text.len() > TEXT_MAX {
        Some("is longer than 64 KiB")
    } else {
        too_much(schema, DEPTH_MAX)
    };
    match too {
        None => Ok(text),
        Some(too) => Err(refused(
            400,
            format!(
                "invalid format: the JSON schema {too}, which the built-in engine does not take"
            ),
        )),
    }
}

fn too_much(value: &Value, levels: usize) -> Option<&'static str> {
    let is_long = |name: &str, value: &Value| {
        let is_read = matches!(name, "pattern" | "$ref");
        name.len() > NAME_MAX || (is_read && value.as_str().is_some_and(|t| t.len() > NAME_MAX))
    };
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => Some("is nested over 32 deep"),
        Value::Array(list) => list.iter().find_map(|value| too_much(value, levels - 1)),
        Value::Object(fields) if fields.len() > PROPERTIES_MAX => {
            Some("has over 256 properties in one object")
        }
        Value::Object(fields) if fields.iter().any(|(name, value)| is_long(name, value)) => {
            Some("has a name, pattern or reference of over 256 bytes")
        }
        Value::Object(fields) => fields
            .values()
            .find_map(|value| too_much(value, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn refusal(schema: &Value) -> Option<String> {
        match text(schema) {
            Ok(text) => {
                assert_eq!(text, schema.to_string());
                None
            }
            Err(EngineError::Refused { status, message }) => {
                assert_eq!(status, 400);
                Some(message)
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn with(properties: usize) -> Value {
        let named = (0..properties).map(|n| (format!("a{n}"), json!({})));
        json!({"type": "object", "properties": named.collect::<Map<_, _>>()})
    }

    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!({}), |inner, _| json!({"items": inner}))
    }

    #[test]
    fn no_schema_goes_to_the_grammar_that_would_take_the_process_with_it() {
        let name = |length: usize| json!({"properties": {"x".repeat(length): {}}});
        let pattern = |length: usize| json!({"pattern": "(".repeat(length)});
        let text = |length: usize| json!({"description": "x".repeat(length)});
        for (most, more, says) in [
            (with(256), with(257), "256 properties"),
            (nested(32), nested(33), "32 deep"),
            (name(256), name(257), "256 bytes"),
            (pattern(256), pattern(257), "256 bytes"),
            (text(65_000), text(66_000), "64 KiB"),
        ] {
            assert_eq!(refusal(&most), None, "{says}");
            let refusal = refusal(&more).unwrap();
            assert!(refusal.contains(says), "{refusal}");
        }
    }
}
