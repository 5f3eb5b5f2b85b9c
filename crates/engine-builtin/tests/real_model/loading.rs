//! Tests of loading and unloading the model, and of what is reported about it.

use std::time::Duration;

use engine::{Engine, EngineError};
use futures_util::StreamExt;
use hearth_engine_builtin::{Builtin, OpenError, Phase, Settings};
use proto::{EngineKind, Op};
use serde_json::{Value, json};

use super::*;

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
    assert_eq!(report.engine, EngineKind::Builtin);
    assert_eq!(engine.kind(), report.engine);
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
    assert!(missing.to_string().contains("--model"), "{missing}");
    let is_folder = Builtin::open(folder.path(), settings()).unwrap_err();
    assert!(
        matches!(is_folder, OpenError::Unreadable { .. }),
        "{is_folder}"
    );
}
