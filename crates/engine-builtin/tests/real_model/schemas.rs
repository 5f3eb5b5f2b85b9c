//! Tests of answers that match a schema, and of harmful schemas.

use std::time::Duration;

use futures_util::StreamExt;
use proptest::{
    collection::{hash_map, vec},
    prelude::*,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use proto::Op;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn format_json_gives_json_and_a_schema_is_kept_to() {
    let engine = open();
    let options = json!({"temperature": 0, "num_predict": 200, "repeat_penalty": 1.3});
    let schema = json!({
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 99}, "tame": {"type": "boolean"}},
        "required": ["age", "tame"], "additionalProperties": false
    });
    let body = chat(
        "Describe a cat.",
        &json!({"format": schema, "options": options, "stream": false}),
    );
    let cat: Value = serde_json::from_str(&text(&ask(&engine, Op::Chat, &body).await)).unwrap();
    assert!(cat["age"].is_number() && cat["tame"].is_boolean(), "{cat}");
    let wrong = chat("x", &json!({"format": {"type": "banana"}}));
    assert_eq!(refusal(&engine, Op::Chat, &wrong).await.0, 400);
    // The engine still works afterwards.
    assert_eq!(
        ask(&engine, Op::Chat, &chat("x", &json!({})))
            .await
            .last()
            .unwrap()["done"],
        true
    );
}

/// Each of these costs nearly as much as is permitted.
fn heavy_schemas() -> Vec<Value> {
    let named = |prefix: &str, count: usize| -> Value {
        let named = (0..count).map(|n| (format!("{prefix}{n}"), json!({})));
        named.collect::<serde_json::Map<_, _>>().into()
    };
    let long = "x".repeat(100);
    let signs = (1..45).map(|n| ("é".repeat(n), json!({"type": "null"})));
    let odd = [
        "",
        "^",
        "]",
        "[",
        "-",
        "\\",
        "\"",
        "\n",
        "🦀",
        "root",
        "space",
        "integral_part",
    ];
    let odd = odd.map(|name| (name.to_owned(), json!({"type": "number"})));
    let odd: serde_json::Map<_, _> = odd.into_iter().collect();
    let part = |n: usize| json!({"properties": {format!("a{}", n % 50): {"type": "string"}}});
    let nested =
        |around: &dyn Fn(Value) -> Value| (0..30).fold(json!({}), |inner, _| around(inner));
    vec![
        json!({"type": "object", "properties": named("a", 256)}),
        json!({"properties": {"p": {"properties": named("a", 200)}, "q": {"properties": named(&long, 100)}}}),
        json!({"properties": signs.collect::<serde_json::Map<_, _>>()}),
        json!({"properties": odd, "additionalProperties": {"type": "integer"}}),
        json!({"properties": named(&long, 60), "additionalProperties": {}}),
        json!({"allOf": (0..120).map(part).collect::<Vec<_>>()}),
        json!({"anyOf": vec![json!({}); 2000]}),
        json!({"anyOf": vec![json!({"type": "string", "maxLength": 2000}); 50]}),
        json!({"enum": (0..4000).map(|n| format!("a{n}")).collect::<Vec<_>>()}),
        json!({"items": {"items": {"items": {"maxItems": 2000}, "minItems": 1999}, "minItems": 1900}}),
        json!({"pattern": "^[a-z]{0,2000}$"}),
        json!({"pattern": format!("^{}$", "-?".repeat(19))}),
        json!({"pattern": format!("^{}$", "(a|a)".repeat(19))}),
        json!({"pattern": "^[-a ]+[-a ]+[-a ]+$"}),
        json!({"type": "integer", "minimum": -9_223_372_036_854_775_808_i64, "maximum": 1e300}),
        json!({"type": "integer", "exclusiveMinimum": 9_223_372_036_854_775_807_i64}),
        nested(&|inner| json!({"items": inner, "minItems": 1})),
        nested(&|inner| json!({"properties": {(&long): inner}})),
        nested(&|inner| json!({"anyOf": [inner, {}, {"items": {}}]})),
        nested(&|inner| json!({"anyOf": [inner, {"type": ["array", "object"]}]})),
        json!({
            "$defs": {"t": {"properties": {"a": {"anyOf": [{}, {"type": "null"}]}}}},
            "anyOf": vec![json!({"$ref": "#/$defs/t"}); 300],
        }),
    ]
}

/// Random combinations of all keywords that llama.cpp reads.
fn any_schema() -> impl Strategy<Value = Value> {
    let count = || 0..2500_u64;
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!({"$ref": "#/$defs/a"})),
        Just(json!({"$ref": "#/$defs/b"})),
        vec(any::<i8>(), 1..9).prop_map(|values| json!({"enum": values})),
        (count(), count())
            .prop_map(|(a, b)| json!({"type": "string", "minLength": a, "maxLength": a + b})),
        (any::<i64>(), any::<i64>())
            .prop_map(|(a, b)| json!({"type": "integer", "minimum": a, "maximum": b})),
        "(\\((a|b|[a-c]){1,2}\\)|a|[|])([*+?]|\\{[0-9]{1,2},[0-9]{1,2}\\})?{0,6}"
            .prop_map(|pattern| json!({"type": "string", "pattern": format!("^{pattern}$")})),
    ];
    leaf.prop_recursive(6, 80, 6, move |inner| {
        let several = || vec(inner.clone(), 1..6);
        let named = || hash_map("[a-c_é.]{0,2}", inner.clone(), 0..6);
        prop_oneof![
            several().prop_map(|ways| json!({"anyOf": ways})),
            several().prop_map(|parts| json!({"allOf": parts})),
            several().prop_map(|items| json!({"prefixItems": items})),
            named().prop_map(|named| json!({"properties": named, "required": ["a", "b"]})),
            (named(), inner.clone()).prop_map(|(named, more)| {
                json!({"type": ["object", "array"], "properties": named,
                    "additionalProperties": more})
            }),
            (inner.clone(), 0..9_u64, 0..9_u64).prop_map(
                |(items, a, b)| json!({"items": items, "minItems": a, "maxItems": a + b})
            ),
        ]
    })
}

/// Returns `count` random schemas, the same ones each time.
fn random_schemas(count: usize) -> Vec<Value> {
    let mut chance = TestRunner::deterministic();
    let parts = (any_schema(), any_schema(), any_schema());
    let mut drawn = || {
        let (mut root, a, b) = parts.new_tree(&mut chance).unwrap().current();
        root["$defs"] = json!({"a": a, "b": b});
        root
    };
    (0..count).map(|_| drawn()).collect()
}

#[tokio::test]
async fn every_schema_that_is_let_through_is_a_grammar_soon_or_refused() {
    // Far longer than any of them takes while other programs are busy.
    const SOON: Duration = Duration::from_secs(60);
    let engine = open();
    let mut taken = [0, 0];
    let heavy = heavy_schemas().into_iter().map(|schema| (0, schema));
    let random = random_schemas(120).into_iter().map(|schema| (1, schema));
    for (kind, schema) in heavy.chain(random) {
        let body = chat(
            "Write [[[[[[[[ and nothing else.",
            &json!({"format": schema, "options": {"temperature": 0, "num_predict": 4}}),
        );
        let answered = async {
            let Ok(lines) = start(&engine, Op::Chat, &body).await else {
                return false;
            };
            lines.all(|line| std::future::ready(line.is_ok())).await
        };
        let named = schema.to_string().chars().take(500).collect::<String>();
        let answered = tokio::time::timeout(SOON, answered).await;
        taken[kind] += usize::from(answered.expect(&named));
    }
    // Refused schemas cost nothing: without many accepted ones, nothing would be tested.
    assert!(taken[0] >= 15 && taken[1] >= 20, "{taken:?}");
}
