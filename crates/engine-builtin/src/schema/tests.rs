use serde_json::json;

use super::*;

fn written(schema: &Value) -> Result<Value, String> {
    match text(schema) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        Err(EngineError::Refused { status, message }) => {
            assert_eq!(status, 400);
            Err(message)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn references_and_lists_of_types_are_written_out_and_what_is_not_read_is_left_out() {
    let schema = json!({
        "title": "what is asked for",
        "$defs": {"name": {"type": "string", "minLength": 1, "description": "of a person"}},
        "type": "object",
        "properties": {
            "who": {"$ref": "#/$defs/name"},
            "age": {"type": ["integer", "null"], "minimum": 0},
            "title": {"enum": [["a"], {"type": ["b"]}]},
        },
        "required": ["who"],
        "additionalProperties": false,
    });
    let age = [
        json!({"type": "integer", "minimum": 0}),
        json!({"type": "null", "minimum": 0}),
    ];
    let wanted = json!({
        "type": "object",
        "properties": {
            "who": {"type": "string", "minLength": 1},
            "age": {"anyOf": age},
            "title": {"enum": [["a"], {"type": ["b"]}]},
        },
        "required": ["who"],
        "additionalProperties": false,
    });
    assert_eq!(written(&schema), Ok(wanted));
}

#[test]
fn what_llama_cpp_would_not_come_to_an_end_with_is_refused() {
    let named = |count: usize| {
        let named = (0..count).map(|n| (format!("a{n}"), json!({})));
        json!({"type": "object", "properties": named.collect::<Map<_, _>>()})
    };
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"items": inner}));
    let name = |length: usize| json!({"properties": {"x".repeat(length): {}}});
    let text = |length: usize| json!({"description": "x".repeat(length)});
    let values = |count: usize| json!({"enum": (0..count).collect::<Vec<_>>()});
    let ways = |count: usize| json!({"anyOf": vec![json!({}); count]});
    let literal = |length: usize| json!({"pattern": "x".repeat(length)});
    let same = |name: &str, count: usize| {
        let named = (1..=count).map(|n| (name.repeat(n), json!({})));
        json!({"properties": named.collect::<Map<_, _>>()})
    };
    for (most, more, says) in [
        (named(256), named(257), "256 properties"),
        (nested(32), nested(33), "32 deep"),
        (name(256), name(257), "256 bytes"),
        (literal(256), literal(257), "256 bytes"),
        (text(65_000), text(66_000), "64 KiB"),
        (values(4094), values(4095), "too large"),
        (ways(2047), ways(2048), "too large"),
        (same("é", 40), same("é", 80), "too large"),
    ] {
        assert!(written(&most).is_ok(), "{says}");
        let refusal = written(&more).unwrap_err();
        assert!(refusal.contains(says), "{refusal}");
    }
}

#[test]
fn what_would_take_the_process_with_it_is_refused() {
    let twice = |to: usize| json!({"anyOf": [{"$ref": format!("#/$defs/d{to}")}, {"$ref": format!("#/$defs/d{to}")}]});
    let doubled = (1..14).map(|n| (format!("d{n}"), twice(n + 1)));
    let doubled: Map<_, _> = doubled.chain([("d14".to_owned(), json!({}))]).collect();
    let objects = (0..8).fold(
        json!({}),
        |inner, _| json!({"type": vec!["object"; 64], "properties": {"p": inner}}),
    );
    let list =
        |least: u64, most: u64| json!({"type": "array", "minItems": least, "maxItems": most});
    for (hostile, says) in [
        // A reference to itself.
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "allOf": [{"$ref": "#/$defs/a"}]}),
            "refers to itself",
        ),
        (json!({"items": {"$ref": "#/items"}}), "refers to itself"),
        // Each bracket doubles the number of open positions.
        (
            json!({
                "$defs": {
                    "a": {"items": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}},
                    "b": {"items": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}},
                },
                "$ref": "#/$defs/a",
            }),
            "refers to itself",
        ),
        (json!({"$defs": doubled, "$ref": "#/$defs/d1"}), "too large"),
        (objects, "too large"),
        // llama.cpp iterates from the minimum up to the maximum.
        (
            json!({"type": "string", "minLength": 5, "maxLength": 2}),
            "minimum above its maximum",
        ),
        (list(3, 2), "minimum above its maximum"),
        // llama.cpp reads 32 bits of a count: this maximum becomes 2.
        (
            json!({"type": "string", "minLength": 5, "maxLength": 4_294_967_298_u64}),
            "not a valid schema",
        ),
        (json!({"pattern": "^a{5,2}$"}), "too many ways"),
        (
            json!({"pattern": format!("^{}a{}$", "(".repeat(40), "?){9}".repeat(40))}),
            "too many ways",
        ),
        (
            json!({"pattern": format!("^{}a{}$", "(".repeat(60), ")+".repeat(60))}),
            "too many ways",
        ),
        (json!({"pattern": "^(a?){1300}$"}), "too many ways"),
        (
            json!({"pattern": "^((a{0,9}){0,9}){0,9}$"}),
            "too many ways",
        ),
        (
            json!({"pattern": format!("^{}$", "-?".repeat(100))}),
            "too many ways",
        ),
        (json!({"pattern": "^(a{2000}){9}$"}), "too large"),
        (json!({"$ref": "#"}), "does not resolve"),
        (json!({"$ref": "#/$defs/none"}), "does not resolve"),
        (
            json!({"$ref": "https://example.org/a.json"}),
            "does not resolve",
        ),
        (json!({"$ref": 5}), "does not resolve"),
        (json!({"items": [true]}), "not a valid schema"),
        (json!({"type": [["string"]]}), "not a valid schema"),
        (json!({"minLength": -1}), "not a valid schema"),
    ] {
        let refusal = written(&hostile).unwrap_err();
        assert!(refusal.contains(says), "{refusal}: {hostile}");
    }
}
