//! Tests of the engine with a real model. Run scripts/fetch-model.sh once, or name another GGUF
//! file of SmolLM2 in `HEARTH_TEST_MODEL`.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod loading;
mod schemas;

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use bytes::Bytes;
use engine::{Engine, EngineError, Lines};
use futures_util::StreamExt;
use hearth_engine_builtin::{Activity, Builtin, Phase, Settings};
use proto::{Body, Op};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Timeout, far longer than anything here takes on a slow machine.
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
    // From the middle of one word into the next: at least two tokens.
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
    // One poll is enough to queue it.
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
async fn characters_of_several_tokens_come_out_whole() {
    let engine = open();
    // The schema permits only the tokens of these characters.
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
    // If the answer is cut in the middle of the crab, half of it is not output.
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
