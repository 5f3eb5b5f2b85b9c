use proto::{EngineKind, ErrorDetail, JobId, ModelEntry, Timestamp};

use super::*;
use crate::{Answer as _, Named};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/openai/", $name))
    };
}

fn name(model: &str) -> ModelName {
    ModelName::new(model).unwrap()
}

fn named() -> Named {
    Named {
        job: JobId([0xab; 16]),
        model: "m".into(),
        created: Timestamp(1_795_320_469_500),
    }
}

fn chat_lines() -> Vec<Bytes> {
    let lines = include_str!("../../fixtures/ollama/chat-lines.ndjson").lines();
    lines
        .map(|line| Bytes::from_static(line.as_bytes()))
        .collect()
}

fn native_of(body: &str) -> serde_json::Value {
    let native = ChatRequest::parse(body.as_bytes())
        .unwrap()
        .native(&name("m"));
    serde_json::from_slice(&native).unwrap()
}

fn refusal(body: &str) -> String {
    ChatRequest::parse(body.as_bytes()).unwrap_err().message
}

#[test]
fn every_field_finds_its_native_place() {
    let request = ChatRequest::parse(fixture!("request.json").as_bytes()).unwrap();
    assert_eq!(request.model.as_deref(), Some("m"));
    assert!(request.stream && request.include_usage);
    assert_eq!(
        request.native(&name("m")),
        fixture!("request-native.json").trim_end()
    );
}

#[test]
fn a_short_request_gets_ollamas_defaults_for_this_api() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"unknown":{}}"#;
    let request = ChatRequest::parse(body.as_bytes()).unwrap();
    assert!(!request.stream && !request.include_usage);
    assert_eq!(
        request.native(&name("m")),
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"options":{"temperature":1.0,"top_p":1.0}}"#
    );
}

#[test]
fn both_names_of_the_token_limit_are_taken_and_zero_is_not() {
    let with = |field: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{field}}}"#);
    for field in [
        r#""max_tokens":7"#,
        r#""max_completion_tokens":7"#,
        r#""max_tokens":9,"max_completion_tokens":7"#,
    ] {
        assert_eq!(
            native_of(&with(field))["options"]["num_predict"],
            7,
            "{field}"
        );
    }
    assert!(refusal(&with(r#""max_tokens":0"#)).contains("max_tokens"));
    let none = native_of(&with(r#""max_tokens":-1"#));
    assert_eq!(none["options"].get("num_predict"), None, "no limit");
}

#[test]
fn a_thought_that_is_kept_under_both_of_its_names_is_one() {
    let said = |thought: &str| {
        let body = format!(r#"{{"messages":[{{"role":"assistant","content":"x",{thought}}}]}}"#);
        native_of(&body)["messages"][0]["thinking"].clone()
    };
    assert_eq!(said(r#""reasoning":"hm","reasoning_content":"hm""#), "hm");
    assert_eq!(said(r#""reasoning":null,"reasoning_content":"hm""#), "hm");
    assert_eq!(said(r#""reasoning":"hm""#), "hm");
}

#[test]
fn reasoning_effort_becomes_think() {
    let think = |field: &str| {
        native_of(&format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],{field}}}"#
        ))["think"]
            .clone()
    };
    assert_eq!(think(r#""reasoning_effort":"none""#), false);
    assert_eq!(think(r#""reasoning_effort":"minimal""#), "low");
    assert_eq!(think(r#""reasoning":{"effort":"xhigh"}"#), "max");
    assert_eq!(think(r#""seed":1"#), serde_json::Value::Null);
    let huge = r#"{"messages":[{"role":"user","content":"x"}],"reasoning_effort":"huge"}"#;
    assert!(refusal(huge).contains("invalid reasoning value: \"huge\""));
}

#[test]
fn a_response_format_becomes_a_format() {
    let of = |format: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"response_format":{format}}}"#)
    };
    assert_eq!(
        native_of(&of(r#"{"type":"json_object"}"#))["format"],
        "json"
    );
    assert_eq!(
        native_of(&of(r#"{"type":"text"}"#))["format"],
        serde_json::Value::Null
    );
    assert!(refusal(&of(r#"{"type":"xml"}"#)).contains("xml"));
    assert!(refusal(&of(r#"{"type":"json_schema"}"#)).contains("schema"));
}

#[test]
fn a_tool_that_must_be_called_is_the_only_one_told_of() {
    let with = |choice: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],"tool_choice":{choice},"tools":[{{"type":"function","function":{{"name":"f"}}}},{{"type":"function","function":{{"name":"g"}}}}]}}"#
        )
    };
    let chosen = native_of(&with(r#"{"type":"function","function":{"name":"g"}}"#));
    let tools = chosen["tools"].as_array().unwrap();
    assert_eq!(
        (tools.len(), &tools[0]["function"]["name"]),
        (1, &"g".into())
    );
    for all in [r#""auto""#, r#""required""#] {
        assert_eq!(native_of(&with(all))["tools"].as_array().unwrap().len(), 2);
    }
    let unknown = with(r#"{"type":"function","function":{"name":"h"}}"#);
    let refused = ChatRequest::parse(unknown.as_bytes()).unwrap_err();
    assert_eq!(refused.param.as_deref(), Some("tool_choice"));
    assert!(refused.message.contains("`h`"), "{}", refused.message);
    let none = r#"{"messages":[{"role":"user","content":"x"}],"tool_choice":"required"}"#;
    assert!(refusal(none).contains("tool_choice"));
}

#[test]
fn a_field_of_a_wrong_type_is_named() {
    let param = |refused: ErrorDetail| refused.param.unwrap();
    for (body, field) in [
        (r#"{"messages":"x","temperature":1}"#, "messages"),
        (r#"{"messages":[],"temperature":"hot"}"#, "temperature"),
        (r#"{"stream":"yes","messages":[]}"#, "stream"),
        (r#"{"messages":[{"role":1}]}"#, "messages"),
        (r#"{"messages":[],"max_tokens":1.5}"#, "max_tokens"),
    ] {
        let refused = ChatRequest::parse(body.as_bytes()).unwrap_err();
        assert!(refused.message.starts_with(field), "{}", refused.message);
        assert_eq!(param(refused), field, "{body}");
    }
    let refused = TextRequest::parse(br#"{"prompt":"x","seed":"s"}"#).unwrap_err();
    assert_eq!(param(refused), "seed");
    let refused = EmbeddingRequest::parse(br#"{"input":"x","dimensions":"d"}"#).unwrap_err();
    assert_eq!(param(refused), "dimensions");
    let refused = ResponseRequest::parse(br#"{"input":"x","stream":1}"#).unwrap_err();
    assert_eq!(param(refused), "stream");
    let malformed = ChatRequest::parse(b"{").unwrap_err();
    assert_eq!(malformed.param, None);
}

#[test]
fn tools_are_left_out_when_none_may_be_chosen() {
    let body = r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}],"tool_choice":"none"}"#;
    assert_eq!(native_of(body).get("tools"), None);
}

#[test]
fn what_cannot_be_said_natively_is_refused_by_name() {
    let message =
        |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
    assert_eq!(refusal(r#"{"model":"m"}"#), "[] is too short - 'messages'");
    assert!(refusal(&message("null")).contains("content"));
    let url = r#"[{"type":"image_url","image_url":{"url":"http://x/y.png"}}]"#;
    assert!(refusal(&message(url)).contains("image URLs are not currently supported"));
    assert!(refusal(&message(r#"[{"type":"video"}]"#)).contains("video"));
    let call = r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"no"}}]}]}"#;
    assert!(refusal(call).contains("arguments"));
}

#[test]
fn a_stream_is_written_in_exactly_these_events() {
    let mut completion = Completion::new(named(), true);
    let events: Vec<u8> = chat_lines()
        .iter()
        .flat_map(|line| completion.events(line).unwrap())
        .collect();
    assert!(completion.is_finished());
    assert_eq!(
        String::from_utf8(events).unwrap(),
        fixture!("chat-stream.txt")
    );
}

#[test]
fn a_whole_answer_is_exactly_this_object() {
    let whole = Completion::new(named(), false)
        .whole(&chat_lines())
        .unwrap();
    assert_eq!(whole, fixture!("chat.json").trim_end());
}

#[test]
fn text_on_the_last_line_is_not_lost_and_length_is_told() {
    let line = br#"{"message":{"content":"all"},"done":true,"done_reason":"length"}"#;
    let mut completion = Completion::new(named(), false);
    let events = String::from_utf8(completion.events(line).unwrap().to_vec()).unwrap();
    assert!(
        events.contains(r#""delta":{"role":"assistant","content":"all"}"#),
        "{events}"
    );
    assert!(events.contains(r#""finish_reason":"length""#), "{events}");
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
}

#[test]
fn an_answer_that_breaks_off_is_an_error_not_a_success() {
    let mut lines = chat_lines();
    lines.pop();
    let error = Completion::new(named(), false).whole(&lines).unwrap_err();
    assert_eq!(error.code, ErrorCode::EngineFailed);
    assert!(Completion::new(named(), false).events(b"half {").is_err());
}

#[test]
fn logprobs_have_every_field_that_clients_read() {
    let line = br#"{"message":{"content":"a"},"done":true,"logprobs":[{"token":"a","logprob":-0.50,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]},{"token":"c","logprob":-2}]}"#;
    let want = r#""logprobs":{"content":[{"token":"a","logprob":-0.50,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]},{"token":"c","logprob":-2,"bytes":null,"top_logprobs":[]}]}"#;
    let whole = Completion::new(named(), false)
        .whole(&[Bytes::from_static(line)])
        .unwrap();
    assert!(String::from_utf8_lossy(&whole).contains(want), "{whole:?}");
    let events = Completion::new(named(), false).events(line).unwrap();
    assert!(String::from_utf8_lossy(&events).contains(want));
}

#[test]
fn a_stream_has_every_logprob_that_the_whole_object_has() {
    let lines = [
        r#"{"message":{"content":"a"},"done":false,"logprobs":[{"token":"a","logprob":-1}]}"#,
        r#"{"message":{"content":""},"done":false,"logprobs":[{"token":"b","logprob":-2}]}"#,
        r#"{"message":{"content":"ż"},"done":false,"logprobs":[{"token":"c","logprob":-3}]}"#,
        r#"{"message":{"content":""},"done":true,"logprobs":[{"token":"d","logprob":-4}]}"#,
    ]
    .map(|line| Bytes::from_static(line.as_bytes()));
    let tokens = |choice: &serde_json::Value| {
        let likely = choice["logprobs"]["content"].as_array().cloned();
        let tokens = likely.into_iter().flatten();
        tokens
            .map(|likely| likely["token"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    let whole = Completion::new(named(), false).whole(&lines).unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(tokens(&whole["choices"][0]), "abcd");
    let mut completion = Completion::new(named(), false);
    let streamed = lines.iter().map(|line| {
        let events = completion.events(line).unwrap();
        let events = std::str::from_utf8(&events).unwrap().lines();
        let chunks =
            events.filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok());
        chunks
            .map(|chunk: serde_json::Value| tokens(&chunk["choices"][0]))
            .collect::<String>()
    });
    assert_eq!(streamed.collect::<String>(), "abcd");
}

#[test]
fn a_request_that_would_take_far_more_memory_than_bytes_is_not_read() {
    let many = ",0".repeat(proto::limits::STRUCTURE_MAX);
    let with = |field: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"{field}":[0{many}]}}"#)
    };
    for field in ["tools", "unknown"] {
        let body = with(field);
        let refused = ChatRequest::parse(body.as_bytes()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
    }
    let text = format!(r#"{{"messages":[{{"role":"user","content":"{many}"}}]}}"#);
    assert!(ChatRequest::parse(text.as_bytes()).is_ok());
}

#[test]
fn a_call_without_an_id_gets_one_that_no_other_has() {
    let line = br#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}"#;
    let mut completion = Completion::new(named(), false);
    for n in 0..2 {
        let events = completion.events(line).unwrap();
        let id = format!(r#""id":"call_{}_{n}","index":{n},"#, JobId([0xab; 16]));
        let events = String::from_utf8_lossy(&events);
        assert!(events.contains(&id), "{events}");
    }
}

#[test]
fn one_request_has_one_answer() {
    let with = |n: u32| format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"n":{n}}}"#);
    assert!(ChatRequest::parse(with(1).as_bytes()).is_ok());
    assert!(refusal(&with(2)).starts_with("n must be 1"));
}

#[test]
fn errors_have_openais_shape() {
    assert_eq!(
        error(404, ErrorCode::UnknownModel, "model 'x' not found", None),
        r#"{"error":{"message":"model 'x' not found","type":"not_found_error","param":null,"code":"unknown_model"}}"#
    );
    assert_eq!(
        error_event(ErrorCode::WorkerLost, "gone"),
        "data: {\"error\":{\"message\":\"gone\",\"type\":\"api_error\",\"param\":null,\"code\":\"worker_lost\"}}\n\n"
    );
}

#[test]
fn models_are_listed_with_the_time_of_their_tag() {
    let tag = r#"{"name":"m:1b","modified_at":"2026-11-22T03:42:15.332796745Z"}"#;
    let report = WorkerReport {
        model_changes: false,
        engine: EngineKind::Ollama,
        engine_version: String::new(),
        engine_up: true,
        models: vec![ModelEntry {
            name: ModelName::new("m:1b").unwrap(),
            loaded: true,
            tag: serde_json::value::RawValue::from_string(tag.into()).unwrap(),
        }],
    };
    let entry = r#"{"id":"m:1b","object":"model","created":1795318935,"owned_by":"library"}"#;
    assert_eq!(
        models([&report]),
        format!(r#"{{"object":"list","data":[{entry}]}}"#)
    );
    assert_eq!(models([]), r#"{"object":"list","data":[]}"#);
    assert_eq!(model([&report], &name("m:1b")).unwrap(), entry);
    assert_eq!(model([&report], &name("other")), None);
}
