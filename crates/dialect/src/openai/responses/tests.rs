use bytes::Bytes;
use proto::{ErrorCode, JobId, ModelName, Timestamp};
use serde_json::Value;

use super::*;
use crate::{Answer as _, Named};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/responses/", $name))
    };
}

fn native_of(body: &str) -> Value {
    let request = ResponseRequest::parse(body.as_bytes()).unwrap();
    let native = request.native(&ModelName::new("m").unwrap());
    serde_json::from_slice(&native).unwrap()
}

fn refusal(body: &str) -> String {
    ResponseRequest::parse(body.as_bytes()).unwrap_err().message
}

fn answer() -> ResponseAnswer {
    let named = Named {
        job: JobId([0xab; 16]),
        model: "m".into(),
        created: Timestamp(1_795_320_469_500),
    };
    let request = ResponseRequest::parse(br#"{"input":"x","instructions":"Be brief."}"#);
    ResponseAnswer::new(named, &request.unwrap())
}

fn chat_lines() -> Vec<Bytes> {
    let lines = include_str!("../../../fixtures/ollama/chat-lines.ndjson").lines();
    lines
        .map(|line| Bytes::from_static(line.as_bytes()))
        .collect()
}

/// Returns the name and data of every event.
fn events(text: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(text).unwrap();
    let events = text.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        let data = data.strip_prefix("data: ").unwrap();
        (name, serde_json::from_str(data).unwrap())
    });
    events.collect()
}

#[test]
fn every_field_finds_its_native_place() {
    let request = ResponseRequest::parse(fixture!("request.json").as_bytes()).unwrap();
    assert_eq!(request.model.as_deref(), Some("m"));
    assert!(request.stream);
    let native = request.native(&ModelName::new("m").unwrap());
    assert_eq!(native, fixture!("request-native.json").trim_end());
    assert!(!format!("{request:?}").contains("brief"));
}

#[test]
fn a_short_request_gets_the_defaults_of_this_api() {
    let request = ResponseRequest::parse(br#"{"model":"m","input":"x","store":true}"#).unwrap();
    assert!(!request.stream);
    let native = request.native(&ModelName::new("m").unwrap());
    assert_eq!(
        native,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"options":{"temperature":1.0,"top_p":1.0}}"#
    );
}

#[test]
fn what_would_need_a_memory_is_refused_by_name() {
    let with = |field: &str| format!(r#"{{"input":"x",{field}}}"#);
    for field in ["previous_response_id", "conversation", "prompt"] {
        let message = refusal(&with(&format!(r#""{field}":"x""#)));
        assert!(
            message.starts_with(&format!("{field} is not supported")),
            "{message}"
        );
        let null = with(&format!(r#""{field}":null"#));
        assert!(ResponseRequest::parse(null.as_bytes()).is_ok());
    }
    assert!(refusal(&with(r#""background":true"#)).contains("background"));
    assert!(ResponseRequest::parse(with(r#""background":false"#).as_bytes()).is_ok());
}

#[test]
fn what_cannot_be_said_natively_is_refused_by_name() {
    assert_eq!(refusal("{}"), "input is required");
    assert_eq!(refusal(r#"{"input":[]}"#), "input is empty");
    assert!(refusal(r#"{"input":[{"type":"item_reference"}]}"#).contains("`item_reference`"));
    let file = r#"{"input":[{"role":"user","content":[{"type":"input_file"}]}]}"#;
    assert!(refusal(file).contains("`input_file`"));
    let url = r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://x/y.png"}]}]}"#;
    assert!(refusal(url).contains("image URLs are not currently supported"));
    let limit = r#"{"input":"x","max_output_tokens":0}"#;
    assert!(refusal(limit).contains("max_output_tokens"));
}

#[test]
fn tools_that_run_elsewhere_are_left_out_but_not_alone() {
    let with = |tools: &str| format!(r#"{{"input":"x","tools":[{tools}]}}"#);
    let search = r#"{"type":"web_search"}"#;
    let look = r#"{"type":"function","name":"look","parameters":{},"strict":true}"#;
    let native = native_of(&with(&format!("{search},{look}")));
    assert_eq!(native["tools"].as_array().unwrap().len(), 1);
    assert!(refusal(&with(search)).contains("OpenAI"));
    assert_eq!(native_of(&with("")).get("tools"), None);
}

#[test]
fn a_stream_is_written_in_exactly_these_events() {
    let mut answer = answer();
    let text: Vec<u8> = chat_lines()
        .iter()
        .flat_map(|line| answer.events(line).unwrap())
        .collect();
    assert!(answer.is_finished());
    let written = String::from_utf8(text).unwrap();
    assert_eq!(written, fixture!("stream.txt"));
}

#[test]
fn events_are_numbered_named_by_their_type_and_add_up() {
    let mut answer = answer();
    let text: Vec<u8> = chat_lines()
        .iter()
        .flat_map(|line| answer.events(line).unwrap())
        .collect();
    let events = events(&text);
    for (n, (name, data)) in events.iter().enumerate() {
        assert_eq!(
            (&data["type"], &data["sequence_number"]),
            (&name.as_str().into(), &n.into())
        );
    }
    let deltas = |of: &str| {
        let of = format!("response.{of}.delta");
        let deltas = events.iter().filter(|(name, _)| *name == of);
        deltas
            .map(|(_, data)| data["delta"].as_str().unwrap())
            .collect::<String>()
    };
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(
        output[0]["summary"][0]["text"],
        deltas("reasoning_summary_text")
    );
    assert_eq!(output[1]["content"][0]["text"], deltas("output_text"));
    assert_eq!(output[2]["arguments"], deltas("function_call_arguments"));
}

#[test]
fn a_whole_response_is_what_a_stream_ends_with() {
    let whole = answer().whole(&chat_lines()).unwrap();
    assert_eq!(whole, fixture!("response.json").trim_end());
    let mut streamed = answer();
    let last = chat_lines()
        .iter()
        .map(|line| streamed.events(line).unwrap())
        .last();
    let last = events(&last.unwrap()).pop().unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(
        (last.0.as_str(), &last.1["response"]),
        ("response.completed", &whole)
    );
}

#[test]
fn a_cut_answer_is_incomplete_and_one_that_breaks_off_an_error() {
    let line = br#"{"message":{"content":"all"},"done":true,"done_reason":"length"}"#;
    let last = events(&answer().events(line).unwrap()).pop().unwrap();
    assert_eq!(last.0, "response.incomplete");
    let response = &last.1["response"];
    assert_eq!(
        response["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(response["output"][0]["status"], "incomplete");
    let whole = answer().whole(&[Bytes::from_static(line)]).unwrap();
    assert_eq!(*response, serde_json::from_slice::<Value>(&whole).unwrap());

    let broken = answer().whole(&chat_lines()[..3]).unwrap_err();
    assert_eq!(broken.code, ErrorCode::EngineFailed);
    assert!(answer().events(b"half {").is_err());
}

#[test]
fn a_failure_ends_the_response_and_raises_in_every_client() {
    let mut answer = answer();
    answer.events(&chat_lines()[1]).unwrap();
    let failure = events(&answer.failure(ErrorCode::WorkerLost, "gone"));
    let [(failed, response), (error, raised)] = failure.as_slice() else {
        panic!("{failure:?}");
    };
    assert_eq!(
        (failed.as_str(), error.as_str()),
        ("response.failed", "error")
    );
    assert_eq!(response["response"]["status"], "failed");
    assert_eq!(response["response"]["error"]["code"], "worker_lost");
    assert_eq!(
        (&raised["message"], &raised["error"]["message"]),
        (&"gone".into(), &"gone".into())
    );
    assert_eq!(raised["error"]["type"], "api_error");
    let numbers = [&response["sequence_number"], &raised["sequence_number"]];
    assert_eq!(numbers, [5, 6]);
}
