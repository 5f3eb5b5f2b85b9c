//! The engine with a real model. Run scripts/fetch-model.sh once, or name another GGUF file of
//! SmolLM2 in `HEARTH_TEST_MODEL`.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use bytes::Bytes;
use engine::{Engine, EngineError, Lines};
use futures_util::StreamExt;
use hearth_engine_builtin::{Activity, Builtin, OpenError, Phase, Settings};
use proptest::{
    collection::{hash_map, vec},
    prelude::*,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use proto::{Body, Op};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Far more than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn model_file() -> PathBuf {
    let named = std::env::var_os("HEARTH_TEST_MODEL").map(PathBuf::from);
    let file = named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        let cache = cache.unwrap_or_else(|| home().join(".cache"));
        cache.join("hearth/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    });
    let shown = file.display();
    assert!(
        file.is_file(),
        "there is no model at {shown}: run scripts/fetch-model.sh once"
    );
    file
}

fn settings() -> Settings {
    Settings {
        threads: NonZeroU32::new(1),
        num_ctx: 1024,
        ..Settings::default()
    }
}

fn open() -> Builtin {
    Builtin::open(&model_file(), settings()).unwrap()
}

fn chat(question: &str, more: &Value) -> Value {
    let mut body = json!({
        "model": "smollm2:135m",
        "messages": [{"role": "user", "content": question}],
        "options": {"temperature": 0, "num_predict": 16},
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

async fn start(engine: &Builtin, op: Op, body: &Value) -> Result<Lines, EngineError> {
    let start = engine.start(op, Body::from(body.to_string()));
    tokio::time::timeout(PATIENCE, start).await.unwrap()
}

async fn ask(engine: &Builtin, op: Op, body: &Value) -> Vec<Value> {
    let lines = start(engine, op, body).await.unwrap();
    let lines: Vec<_> = tokio::time::timeout(PATIENCE, lines.collect())
        .await
        .unwrap();
    let read = |line: Result<Bytes, EngineError>| serde_json::from_slice(&line.unwrap()).unwrap();
    lines.into_iter().map(read).collect()
}

async fn refusal(engine: &Builtin, op: Op, body: &Value) -> (u16, String) {
    match start(engine, op, body).await {
        Err(EngineError::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

fn text(lines: &[Value]) -> String {
    let piece = |line: &Value| {
        let chat = line.pointer("/message/content");
        chat.or_else(|| line.get("response"))
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    lines.iter().map(piece).collect()
}

async fn until(
    activity: &mut watch::Receiver<Activity>,
    what: impl FnMut(&Activity) -> bool,
) -> Activity {
    *tokio::time::timeout(PATIENCE, activity.wait_for(what))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn an_answer_is_streamed_and_ends_with_a_done_line() {
    let engine = open();
    let lines = ask(&engine, Op::Chat, &chat("Say hello.", &json!({}))).await;
    let (last, pieces) = lines.split_last().unwrap();
    assert!(pieces.len() > 1, "{lines:?}");
    assert!(
        pieces
            .iter()
            .all(|line| line["done"] == false && line["model"] == "smollm2:135m")
    );
    assert_eq!(last["done"], true);
    assert_eq!(last["message"], json!({"role": "assistant", "content": ""}));
    let counts = [
        "total_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
        "load_duration",
    ];
    for count in counts {
        assert!(last[count].as_u64().unwrap() > 0, "{count}: {last}");
    }
    assert!(!text(&lines).is_empty());
}

#[tokio::test]
async fn num_predict_is_kept_to_and_called_length() {
    let engine = open();
    let body = chat(
        "Count to one hundred.",
        &json!({"options": {"num_predict": 5, "temperature": 0}}),
    );
    let lines = ask(&engine, Op::Chat, &body).await;
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["eval_count"], &last["done_reason"]),
        (&json!(5), &json!("length"))
    );
}

#[tokio::test]
async fn one_object_holds_the_same_text_as_the_stream_joined() {
    let engine = open();
    let question = "Write one sentence about the sea.";
    let options = json!({"temperature": 0, "num_predict": 40, "stop": ["zzzz"]});
    let streamed = ask(
        &engine,
        Op::Chat,
        &chat(question, &json!({"options": options})),
    )
    .await;
    let whole = ask(
        &engine,
        Op::Chat,
        &chat(question, &json!({"options": options, "stream": false})),
    )
    .await;
    assert_eq!(whole.len(), 1);
    assert_eq!(text(&whole), text(&streamed));
    assert_eq!(
        whole[0]["eval_count"],
        streamed.last().unwrap()["eval_count"]
    );
}

#[tokio::test]
async fn equal_seeds_give_equal_texts_and_others_do_not() {
    let engine = open();
    let body = |seed: i64| {
        let options = json!({"seed": seed, "temperature": 1.2, "num_predict": 30});
        chat(
            "Invent a name for a cat and say why.",
            &json!({"options": options}),
        )
    };
    let first = text(&ask(&engine, Op::Chat, &body(7)).await);
    let other = text(&ask(&engine, Op::Chat, &body(8)).await);
    assert_eq!(first, text(&ask(&engine, Op::Chat, &body(7)).await));
    assert_ne!(first, other);
}

#[tokio::test]
async fn what_comes_from_the_cache_changes_nothing_and_is_not_read_again() {
    let engine = open();
    let activity = engine.activity();
    let long = format!(
        "{} What was this about?",
        "The lighthouse keeper walked along the shore. ".repeat(40)
    );
    let body = chat(
        &long,
        &json!({"options": {"temperature": 0, "num_predict": 24}}),
    );
    let cold = text(&ask(&engine, Op::Chat, &body).await);
    let read_cold = activity.borrow().read;
    let warm = text(&ask(&engine, Op::Chat, &body).await);
    let read_warm = activity.borrow().read - read_cold;
    assert_eq!(cold, warm);
    assert!(
        read_cold > 300 && read_warm <= 64,
        "{read_cold} then {read_warm}"
    );
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_never_leaks() {
    let engine = open();
    let question = "Say: one two three four five six seven.";
    let free = text(&ask(&engine, Op::Chat, &chat(question, &json!({}))).await);
    // From the middle of one word into the next: two tokens at least.
    let middle: String = free.chars().skip(5).take(6).collect();
    assert_eq!(middle.chars().count(), 6, "{free}");
    let options = json!({"temperature": 0, "num_predict": 16, "stop": [middle]});
    let lines = ask(
        &engine,
        Op::Chat,
        &chat(question, &json!({"options": options})),
    )
    .await;
    assert_eq!(Some(text(&lines).as_str()), free.split(&middle).next());
    assert_eq!(lines.last().unwrap()["done_reason"], "stop");
}

#[tokio::test]
async fn dropping_the_stream_stops_the_writing_within_two_tokens() {
    let engine = open();
    let mut activity = engine.activity();
    let body = chat(
        "Write a long story.",
        &json!({"options": {"num_predict": 900, "seed": 1}}),
    );
    let mut lines = start(&engine, Op::Chat, &body).await.unwrap();
    for _ in 0..3 {
        lines.next().await.unwrap().unwrap();
    }
    drop(lines);
    let at_drop = activity.borrow().written;
    let after = until(&mut activity, |now| now.phase == Phase::Ready).await;
    assert!(
        after.written - at_drop <= 2,
        "{} tokens too many",
        after.written - at_drop
    );
}

#[tokio::test]
async fn dropping_the_stream_stops_the_reading_of_a_long_prompt_too() {
    let engine = open();
    let mut activity = engine.activity();
    let long = "word ".repeat(2000);
    let body = chat(
        &long,
        &json!({"options": {"num_ctx": 4096, "num_predict": 1}}),
    );
    let lines = start(&engine, Op::Chat, &body).await.unwrap();
    drop(lines);
    let after = until(&mut activity, |now| now.phase == Phase::Ready).await;
    assert!(after.read < 1000 && after.written == 0, "{after:?}");
}

#[tokio::test]
async fn two_requests_at_once_are_both_answered() {
    let engine = open();
    let (one, two) = (chat("Say one.", &json!({})), chat("Say two.", &json!({})));
    let (one, two) = tokio::join!(ask(&engine, Op::Chat, &one), ask(&engine, Op::Chat, &two));
    assert!(one.last().unwrap()["done"] == true && two.last().unwrap()["done"] == true);
}

#[tokio::test]
async fn one_more_than_may_wait_is_told_that_the_engine_is_busy() {
    let waiting = 1;
    let engine = Builtin::open(
        &model_file(),
        Settings {
            waiting,
            ..settings()
        },
    )
    .unwrap();
    let story = chat(
        "Write a long story.",
        &json!({"options": {"num_predict": 900, "seed": 1}}),
    );
    let mut first = start(&engine, Op::Chat, &story).await.unwrap();
    first.next().await.unwrap().unwrap();
    let short = chat("Say hello.", &json!({}));
    let mut second = Box::pin(ask(&engine, Op::Chat, &short));
    // A look is enough to queue it.
    assert!(
        tokio::time::timeout(Duration::ZERO, &mut second)
            .await
            .is_err()
    );
    let third = engine.start(Op::Chat, Body::from(short.to_string())).await;
    assert!(matches!(third, Err(EngineError::Busy(_))));
    drop(first);
    assert_eq!(second.await.last().unwrap()["done"], true);
}

#[tokio::test]
async fn generate_knows_raw_prompts_and_goes_on_from_a_context() {
    let engine = open();
    let options = json!({"temperature": 0, "num_predict": 8});
    let raw = json!({"model": "smollm2:135m", "prompt": "The sky is", "raw": true, "stream": false, "options": options});
    let raw = ask(&engine, Op::Generate, &raw).await;
    assert_eq!(raw[0]["prompt_eval_count"], 3);
    assert!(raw[0].get("context").is_none() && !text(&raw).is_empty());

    let ask_for = |more: Value| {
        let mut body = json!({"model": "smollm2:135m", "prompt": "Say hello.", "system": "Be terse.", "stream": false, "options": options});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let first = ask(&engine, Op::Generate, &ask_for(json!({}))).await;
    let context = first[0]["context"].as_array().unwrap().clone();
    let next = ask(&engine, Op::Generate, &ask_for(json!({"context": context}))).await;
    let counts = [&first, &next].map(|lines| lines[0]["prompt_eval_count"].as_u64().unwrap());
    assert_eq!(counts[1], counts[0] + context.len() as u64);
    let strange = refusal(
        &engine,
        Op::Generate,
        &ask_for(json!({"context": [99_999_999]})),
    )
    .await;
    assert_eq!(strange.0, 400);
}

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
    // The engine is none the worse for it.
    assert_eq!(
        ask(&engine, Op::Chat, &chat("x", &json!({})))
            .await
            .last()
            .unwrap()["done"],
        true
    );
}

/// Each of these takes nearly as much as is let through.
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

/// All that llama.cpp reads, put together by chance.
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

/// So many by chance, the same each time.
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
    // Far more than any of them takes where other programs are busy.
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
    // What is refused takes nothing: many must not be, or nothing was tried.
    assert!(taken[0] >= 15 && taken[1] >= 20, "{taken:?}");
}

#[tokio::test]
async fn characters_of_several_tokens_come_out_whole() {
    let engine = open();
    // The schema leaves the model no choice but the tokens of these characters.
    let wanted = "Zażółć 🦀 日本";
    let body = chat(
        "x",
        &json!({"format": {"const": wanted}, "options": {"temperature": 0, "num_predict": 100}}),
    );
    let lines = ask(&engine, Op::Chat, &body).await;
    let said: String = serde_json::from_str(&text(&lines)).unwrap();
    assert_eq!(said, wanted);
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains('\u{fffd}'))
    );
    // And cut off in the middle of the crab, there is no half of it.
    let body = chat(
        "x",
        &json!({"format": {"const": "🦀🦀🦀🦀"}, "options": {"temperature": 0, "num_predict": 4}}),
    );
    let cut = text(&ask(&engine, Op::Chat, &body).await);
    assert!(
        cut.trim_start_matches('"').chars().all(|c| c == '🦀'),
        "{cut}"
    );
}

#[tokio::test]
async fn a_conversation_that_is_too_long_loses_its_oldest_messages_or_is_refused() {
    let engine = open();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let long = "word ".repeat(100);
    let mut messages = vec![turn("system", "Be brief.")];
    messages.extend((0..10).map(|_| turn("user", &long)));
    messages.push(turn("user", "Say hello."));
    let options = json!({"num_ctx": 512, "num_predict": 4});
    let body = chat("", &json!({"messages": messages, "options": options}));
    let lines = ask(&engine, Op::Chat, &body).await;
    let read = lines.last().unwrap()["prompt_eval_count"].as_u64().unwrap();
    assert!((300..512).contains(&read), "{read} tokens were kept");
    let (status, message) = refusal(
        &engine,
        Op::Chat,
        &chat(&"word ".repeat(900), &json!({"options": options})),
    )
    .await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with("the prompt is longer than the context length"),
        "{message}"
    );
    let whole = chat(
        "",
        &json!({"messages": messages, "options": options, "truncate": false}),
    );
    assert_eq!(refusal(&engine, Op::Chat, &whole).await.0, 400);
}

#[tokio::test]
async fn a_prompt_of_megabytes_is_refused_and_harms_nothing() {
    let engine = open();
    for letter in [" ", "a", "1", "\n", "🦀"] {
        for repeat in [100_000, 2_000_000] {
            let prompt = letter.repeat(repeat);
            let body = json!({"model": "smollm2:135m", "prompt": prompt, "raw": true});
            let (status, message) = refusal(&engine, Op::Generate, &body).await;
            assert_eq!(status, 400);
            assert!(
                message.starts_with("the prompt is longer than"),
                "{message}"
            );
        }
    }
    let lines = ask(&engine, Op::Chat, &chat("x", &json!({}))).await;
    assert_eq!(lines.last().unwrap()["done"], true);
}

#[tokio::test]
async fn an_answer_ends_where_the_context_does() {
    let engine = open();
    let body = chat(
        "Write a long story.",
        &json!({"options": {"num_ctx": 64, "num_predict": -1, "seed": 3}}),
    );
    let lines = ask(&engine, Op::Chat, &body).await;
    let last = lines.last().unwrap();
    let count = |name: &str| last[name].as_u64().unwrap();
    assert!(
        count("prompt_eval_count") + count("eval_count") <= 65,
        "{last}"
    );
}

#[tokio::test]
async fn the_model_is_loaded_and_unloaded_on_request() {
    let engine = open();
    let mut activity = engine.activity();
    let loaded = async |engine: &Builtin| engine.report().await.unwrap().models[0].loaded;
    assert!(!loaded(&engine).await);
    let load = json!({"model": "smollm2:135m"});
    let lines = ask(&engine, Op::Chat, &load).await;
    assert_eq!((lines.len(), &lines[0]["done_reason"]), (1, &json!("load")));
    until(&mut activity, |now| now.phase == Phase::Ready).await;
    assert!(loaded(&engine).await);
    let unload = json!({"model": "smollm2:135m", "keep_alive": 0});
    let lines = ask(&engine, Op::Generate, &unload).await;
    assert_eq!(
        (&lines[0]["done_reason"], &lines[0]["response"]),
        (&json!("unload"), &json!(""))
    );
    until(&mut activity, |now| now.phase == Phase::Unloaded).await;
    assert!(!loaded(&engine).await);
}

#[tokio::test]
async fn an_idle_model_leaves_memory_by_itself_and_comes_back() {
    let keep_alive = Duration::from_millis(20);
    let engine = Builtin::open(
        &model_file(),
        Settings {
            keep_alive,
            ..settings()
        },
    )
    .unwrap();
    let mut activity = engine.activity();
    let body = chat("Say hello.", &json!({}));
    let first = text(&ask(&engine, Op::Chat, &body).await);
    until(&mut activity, |now| now.phase == Phase::Unloaded).await;
    assert_eq!(first, text(&ask(&engine, Op::Chat, &body).await));
}

#[tokio::test]
async fn dropping_the_engine_breaks_off_the_answer_and_ends_the_thread() {
    let engine = open();
    let mut activity = engine.activity();
    let body = chat(
        "Write a long story.",
        &json!({"options": {"num_predict": 900, "seed": 1}}),
    );
    let mut lines = start(&engine, Op::Chat, &body).await.unwrap();
    lines.next().await.unwrap().unwrap();
    drop(engine);
    let ended = async { while activity.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let rest: Vec<_> = lines.collect().await;
    assert!(matches!(rest.last(), Some(Err(EngineError::Broken(_)))));
    assert!(rest.len() < 100, "{} lines after the end", rest.len());
}

#[tokio::test]
async fn a_report_names_the_model_as_ollama_would() {
    let engine = open();
    let report = engine.report().await.unwrap();
    assert!(report.engine_up);
    assert_eq!(report.models[0].name.as_str(), "smollm2:135m");
    let tag: Value = serde_json::from_str(report.models[0].tag.get()).unwrap();
    assert_eq!(tag["details"]["family"], "llama");
    assert_eq!(tag["details"]["parameter_size"], "134.52M");
    assert_eq!(tag["details"]["quantization_level"], "Q4_1");
    assert_eq!(tag["details"]["context_length"], 8192);
    assert_eq!(tag["digest"].as_str().unwrap().len(), 64);
    assert_eq!(engine.activity().borrow().phase, Phase::Unloaded);
}

#[tokio::test]
async fn a_wrong_model_or_option_is_refused_without_loading_anything() {
    let engine = open();
    let wrong = json!({"model": "nosuch:1b", "messages": [{"role": "user", "content": "x"}]});
    let expected = (404, "model 'nosuch:1b' not found".to_owned());
    assert_eq!(refusal(&engine, Op::Chat, &wrong).await, expected);
    let hot = chat("x", &json!({"options": {"temperature": "hot"}}));
    let expected = (
        500,
        "option \"temperature\" must be of type float32".to_owned(),
    );
    assert_eq!(refusal(&engine, Op::Chat, &hot).await, expected);
    let embed = json!({"model": "smollm2:135m", "input": "x"});
    assert_eq!(refusal(&engine, Op::Embed, &embed).await.0, 501);
    assert_eq!(engine.activity().borrow().phase, Phase::Unloaded);
}

#[tokio::test]
async fn a_file_that_is_no_model_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Builtin::open(&path, settings()).unwrap_err()
    };
    assert!(matches!(open("text", b"hello"), OpenError::NotGguf(_)));
    assert!(matches!(open("empty", b""), OpenError::NotGguf(_)));
    assert!(matches!(open("stub", b"GGUF"), OpenError::Damaged(_)));
    let model = std::fs::read(model_file()).unwrap();
    let half = open("half", &model[..model.len() / 2]);
    assert!(
        matches!(half, OpenError::Unsupported { .. } | OpenError::Damaged(_)),
        "{half}"
    );
    let mut alien = model;
    let at = alien
        .windows(5)
        .position(|bytes| bytes == b"llama")
        .unwrap();
    alien[at..at + 5].copy_from_slice(b"xxxxx");
    let alien = open("alien", &alien);
    assert!(matches!(alien, OpenError::Unsupported { .. }), "{alien}");
    let missing = Builtin::open(&folder.path().join("nothing"), settings()).unwrap_err();
    assert!(
        missing.to_string().contains("scripts/fetch-model.sh"),
        "{missing}"
    );
    let is_folder = Builtin::open(folder.path(), settings()).unwrap_err();
    assert!(
        matches!(is_folder, OpenError::Unreadable { .. }),
        "{is_folder}"
    );
}
