use proto::{EngineKind, JobId, ModelEntry};

use super::*;
use crate::{Answer as _, Named};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/anthropic/", $name))
    };
}

fn name(model: &str) -> ModelName {
    ModelName::new(model).unwrap()
}

fn message() -> Message {
    Message::new(Named {
        job: JobId([0xab; 16]),
        model: "m".into(),
        created: Timestamp(1_795_320_469_500),
    })
}

fn chat_lines() -> Vec<Bytes> {
    let lines = include_str!("../../fixtures/ollama/chat-lines.ndjson").lines();
    lines
        .map(|line| Bytes::from_static(line.as_bytes()))
        .collect()
}

fn native_of(body: &str) -> serde_json::Value {
    let request = MessagesRequest::parse(body.as_bytes()).unwrap();
    serde_json::from_slice(&request.native(&name("m"))).unwrap()
}

fn refusal(body: &str) -> String {
    MessagesRequest::parse(body.as_bytes()).unwrap_err().message
}

/// Returns a request with these fields in addition to the required ones.
fn with(fields: &str) -> String {
    format!(r#"{{"max_tokens":9,"messages":[{{"role":"user","content":"x"}}],{fields}}}"#)
}

/// Returns a request with one message that has these blocks.
fn saying(role: &str, blocks: &str) -> String {
    format!(r#"{{"max_tokens":9,"messages":[{{"role":"{role}","content":{blocks}}}]}}"#)
}

#[test]
fn every_field_finds_its_native_place() {
    let request = MessagesRequest::parse(fixture!("request.json").as_bytes()).unwrap();
    assert_eq!(request.model.as_deref(), Some("m"));
    assert!(request.stream);
    let want = fixture!("request-native.json").trim_end();
    assert_eq!(request.native(&name("m")), want);
    assert!(!format!("{request:?}").contains("cat"));
}

#[test]
fn a_short_request_says_nothing_that_was_not_asked() {
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
    let request = MessagesRequest::parse(body.as_bytes()).unwrap();
    assert!(!request.stream);
    assert_eq!(
        request.native(&name("m")),
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"options":{"num_predict":9}}"#
    );
}

#[test]
fn thinking_and_formats_become_native_ones() {
    let think = |kind: &str| native_of(&with(&format!(r#""thinking":{{"type":"{kind}"}}"#)));
    assert_eq!(think("enabled")["think"], true);
    assert_eq!(think("disabled")["think"], false);
    assert_eq!(think("adaptive").get("think"), None);
    let format = r#""output_config":{"format":{"type":"json_schema","schema":{"type":"object"}}}"#;
    assert_eq!(native_of(&with(format))["format"]["type"], "object");
}

#[test]
fn only_the_tools_that_may_be_called_are_told() {
    let tools = |choice: &str| {
        let tool = |name: &str| format!(r#"{{"name":"{name}","input_schema":{{}}}}"#);
        let tools = format!(r#""tools":[{},{}]"#, tool("a"), tool("b"));
        let native = native_of(&with(&format!(r#"{tools},"tool_choice":{choice}"#)));
        let tools = native["tools"].as_array().cloned().unwrap_or_default();
        tools
            .iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(tools(r#"{"type":"auto"}"#), ["a", "b"]);
    assert_eq!(tools(r#"{"type":"tool","name":"b"}"#), ["b"]);
    assert_eq!(tools(r#"{"type":"none"}"#), [""; 0]);
}

#[test]
fn what_cannot_be_said_natively_is_refused_by_name() {
    assert_eq!(
        refusal(r#"{"messages":[{"role":"user","content":"x"}]}"#),
        "max_tokens: field required"
    );
    assert!(refusal(r#"{"max_tokens":1}"#).contains("at least one message"));
    assert!(refusal(r#"{"max_tokens":0,"messages":[]}"#).contains("at least 1"));
    assert!(refusal(r#"{"max_tokens":-1,"messages":[]}"#).contains("at least 1"));
    assert!(refusal(&saying("tool", r#""x""#)).contains("role `tool`"));
    assert!(refusal(&saying("user", "[]")).contains("empty"));
    assert!(refusal(&saying("user", "7")).contains("a string or a list of parts"));
    let url = r#"[{"type":"image","source":{"type":"url","url":"http://x/y.png"}}]"#;
    assert!(refusal(&saying("user", url)).contains("not fetched"));
    let pdf = r#"[{"type":"document","source":{"type":"base64","data":"JVBERi0="}}]"#;
    assert!(refusal(&saying("user", pdf)).contains("PDF"));
    assert!(refusal(&saying("user", r#"[{"type":"video"}]"#)).contains("`video`"));
    assert!(refusal(&saying("user", r#"[{"type":"text"}]"#)).contains("not complete"));
    let search = r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#;
    assert!(refusal(&with(search)).contains("at Anthropic"));
    assert!(refusal(&with(r#""tools":[{"name":"a"}]"#)).contains("input_schema"));
}

#[test]
fn a_stream_is_written_in_exactly_these_events() {
    let mut message = message();
    let events: Vec<u8> = chat_lines()
        .iter()
        .flat_map(|line| message.events(line).unwrap())
        .collect();
    assert!(message.is_finished());
    assert_eq!(String::from_utf8(events).unwrap(), fixture!("stream.txt"));
}

#[test]
fn a_whole_message_is_exactly_this_object() {
    let whole = message().whole(&chat_lines()).unwrap();
    assert_eq!(whole, fixture!("message.json").trim_end());
}

#[test]
fn a_cut_answer_says_so_and_one_that_breaks_off_is_an_error() {
    let line = br#"{"message":{"content":"all"},"done":true,"done_reason":"length"}"#;
    let whole = message().whole(&[Bytes::from_static(line)]).unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["stop_reason"], "max_tokens");
    let events = message().events(line).unwrap();
    let events = String::from_utf8_lossy(&events);
    assert!(events.contains(r#""stop_reason":"max_tokens""#), "{events}");
    assert!(
        events.contains(r#"{"type":"text_delta","text":"all"}"#),
        "{events}"
    );

    let mut lines = chat_lines();
    lines.pop();
    let error = message().whole(&lines).unwrap_err();
    assert_eq!(error.code, ErrorCode::EngineFailed);
    assert!(message().events(b"half {").is_err());
}

#[test]
fn a_sign_of_life_before_the_first_token_begins_the_message_once() {
    let mut message = message();
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let first = text(message.heartbeat());
    assert!(first.starts_with("event: message_start\ndata: "), "{first}");
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    assert!(first.ends_with(ping), "{first}");
    assert_eq!(text(message.heartbeat()), ping);
    let events = text(message.events(&chat_lines()[0]).unwrap());
    assert!(
        events.starts_with("event: content_block_start\n"),
        "{events}"
    );
}

#[test]
fn a_failure_is_an_event_of_its_own() {
    let failure = message().failure(ErrorCode::QueueFull, "full");
    let id = request_id(JobId([0xab; 16]));
    assert_eq!(
        failure,
        format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\",\
             \"message\":\"full\",\"code\":\"queue_full\"}},\"request_id\":\"{id}\"}}\n\n"
        )
    );
}

#[test]
fn errors_have_anthropics_types() {
    let kind = |status: u16, code| {
        let body = error(status, code, "no", None);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["type"], &body["request_id"]),
            (&"error".into(), &().into())
        );
        body["error"]["type"].as_str().unwrap().to_owned()
    };
    for (code, want) in [
        (ErrorCode::BadRequest, "invalid_request_error"),
        (ErrorCode::Unauthorized, "authentication_error"),
        (ErrorCode::Forbidden, "permission_error"),
        (ErrorCode::UnknownModel, "not_found_error"),
        (ErrorCode::MethodNotAllowed, "invalid_request_error"),
        (ErrorCode::TooLarge, "request_too_large"),
        (ErrorCode::RateLimited, "rate_limit_error"),
        (ErrorCode::EngineFailed, "api_error"),
        (ErrorCode::NoWorker, "api_error"),
        (ErrorCode::QueueFull, "overloaded_error"),
        (ErrorCode::DeadlineExceeded, "timeout_error"),
    ] {
        assert_eq!(kind(code.http_status(), code), want, "{code}");
    }
}

#[test]
fn tokens_are_counted_by_the_engine_which_may_not_cut_the_prompt() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let request = CountRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(
        request.native(&name("m")),
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"options":{"num_predict":1},"truncate":false}"#
    );
    assert_eq!(
        request.answer(&chat_lines()).unwrap(),
        r#"{"input_tokens":12}"#
    );
    let uncounted = [Bytes::from_static(
        br#"{"message":{"content":""},"done":true}"#,
    )];
    assert!(request.answer(&uncounted).is_err());
    assert!(request.answer(&chat_lines()[..2]).is_err());
}

#[test]
fn models_are_one_page() {
    let tag = r#"{"name":"m:1b","modified_at":"2026-11-22T03:42:15.332796745Z"}"#;
    let report = WorkerReport {
        model_changes: false,
        engine: EngineKind::Ollama,
        engine_version: String::new(),
        engine_up: true,
        models: vec![ModelEntry {
            name: name("m:1b"),
            loaded: true,
            tag: serde_json::value::RawValue::from_string(tag.into()).unwrap(),
        }],
    };
    let entry =
        r#"{"type":"model","id":"m:1b","display_name":"m:1b","created_at":"2026-11-22T03:42:15Z"}"#;
    assert_eq!(
        models([&report]),
        format!(r#"{{"data":[{entry}],"has_more":false,"first_id":"m:1b","last_id":"m:1b"}}"#)
    );
    assert_eq!(
        models([]),
        r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#
    );
    assert_eq!(model([&report], &name("m:1b")).unwrap(), entry);
    assert_eq!(model([&report], &name("other")), None);
}
