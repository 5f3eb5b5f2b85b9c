use proto::{ErrorCode, JobId, LeaseToken, ModelName, Op, Timestamp};

use super::*;

const JOB: JobId = JobId([0xab; 16]);
const FIRST: LeaseToken = LeaseToken {
    job: JOB,
    attempt: 1,
};

fn model() -> ModelName {
    ModelName::new("qwen2.5:7b").unwrap()
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/relay_polling/", $name)).trim_end()
    };
}

#[test]
fn a_request_becomes_a_native_chat() {
    let request = Request::parse(fixture!("request.json").as_bytes()).unwrap();
    assert_eq!(request.native(&model()), fixture!("request-native.json"));
}

#[test]
fn absent_and_null_fields_get_the_documented_defaults() {
    let request = Request::parse(
        br#"{"prompt":"x","system_prompt":null,"model":null,"temperature":null,"max_tokens":null,"other":1}"#,
    )
    .unwrap();
    assert_eq!(
        request.native(&model()),
        r#"{"model":"qwen2.5:7b","messages":[{"role":"user","content":"x"}],"stream":true,"options":{"temperature":0.7,"num_predict":2000}}"#
    );
    assert_eq!(request, Request::parse(br#"{"prompt":"x"}"#).unwrap());
}

#[test]
fn a_request_out_of_range_is_refused_by_field() {
    for (body, field) in [
        (r#"{}"#, "prompt"),
        (r#"{"prompt":" "}"#, "prompt"),
        (r#"{"prompt":"x","temperature":2.5}"#, "temperature"),
        (r#"{"prompt":"x","max_tokens":0}"#, "max_tokens"),
        (r#"{"prompt":"x","max_tokens":8001}"#, "max_tokens"),
    ] {
        let refused = Request::parse(body.as_bytes()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest, "{body}");
        assert!(refused.message.contains(field), "{}", refused.message);
    }
}

#[test]
fn a_job_is_polled_in_exactly_these_bytes() {
    let native = fixture!("request-native.json").as_bytes();
    let request = PolledRequest::of(FIRST, Op::Chat, &model(), native, Timestamp(0)).unwrap();
    assert_eq!(polled(&request), fixture!("polled.json"));
}

#[test]
fn what_the_requester_did_not_say_is_polled_as_null() {
    let native = br#"{"model":"qwen2.5:7b","messages":[{"role":"user","content":"x"}]}"#;
    let request = PolledRequest::of(FIRST, Op::Chat, &model(), native, Timestamp(0)).unwrap();
    assert_eq!(polled(&request), fixture!("polled-nulls.json"));
}

#[test]
fn what_a_poller_cannot_be_told_is_not_told_to_it() {
    let of = |op, body: &str| PolledRequest::of(FIRST, op, &model(), body.as_bytes(), Timestamp(0));
    assert!(of(Op::Generate, r#"{"prompt":"x","system":"y"}"#).is_some());
    assert!(of(Op::Embed, r#"{"input":"x"}"#).is_none());
    assert!(of(Op::Generate, r#"{"prompt":"x","suffix":"y"}"#).is_none());
    let user = r#"{"role":"user","content":"x"}"#;
    let chat = |rest: &str| of(Op::Chat, &format!(r#"{{"messages":[{user}]{rest}}}"#));
    assert!(chat(r#","tools":[],"format":null"#).is_some());
    assert!(chat(r#","tools":[{}]"#).is_none());
    assert!(chat(r#","format":"json""#).is_none());
    assert!(
        of(
            Op::Chat,
            &format!(r#"{{"messages":[{user},{user},{user}]}}"#)
        )
        .is_none()
    );
    assert!(
        of(
            Op::Chat,
            r#"{"messages":[{"role":"user","content":"x","images":["aa"]}]}"#
        )
        .is_none()
    );
}

#[test]
fn a_poll_id_names_the_attempt_from_the_second_on() {
    assert_eq!(poll_id(FIRST), JOB.to_string());
    let third = LeaseToken {
        attempt: 3,
        ..FIRST
    };
    assert_eq!(poll_id(third), format!("{JOB}-3"));
    for given in [FIRST, third] {
        assert_eq!(token(&poll_id(given)), Some(given));
    }
    for wrong in ["", "request-123", &format!("{JOB}-x")] {
        assert_eq!(token(wrong), None, "{wrong}");
    }
}

#[test]
fn answers_are_read_with_and_without_a_response() {
    let answer = Answer::parse(fixture!("response.json").as_bytes()).unwrap();
    assert_eq!(answer.outcome(), Ok("Python to język programowania..."));
    let answer = Answer::parse(fixture!("response-failed.json").as_bytes()).unwrap();
    assert_eq!(answer.outcome(), Err("HTTPConnectionPool: Read timed out."));
    let outcome = |body: &str| {
        let answer = Answer::parse(body.as_bytes()).unwrap();
        answer.outcome().map(str::to_owned).map_err(str::to_owned)
    };
    assert_eq!(
        outcome(r#"{"id":"x","response":"","success":true}"#),
        Ok(String::new())
    );
    assert_eq!(
        outcome(r#"{"id":"x","response":"broken","success":false}"#),
        Err("broken".to_owned())
    );
    assert_eq!(outcome(r#"{"id":"x","response":"t"}"#), Ok("t".to_owned()));
    assert!(outcome(r#"{"id":"x","success":true}"#).is_err());
    assert!(Answer::parse(br#"{"response":"x"}"#).is_err());
}

#[test]
fn an_answer_becomes_the_lines_of_a_streaming_engine_and_its_text_again() {
    let lines = lines(Op::Chat, &model(), "a \"b\"", Timestamp(0));
    assert_eq!(
        lines[0],
        r#"{"model":"qwen2.5:7b","created_at":"1970-01-01T00:00:00.000Z","message":{"role":"assistant","content":"a \"b\""},"done":false}"#
    );
    assert_eq!(
        lines[1],
        r#"{"model":"qwen2.5:7b","created_at":"1970-01-01T00:00:00.000Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#
    );
    assert_eq!(text(&lines), "a \"b\"");
    assert_eq!(
        text(&super::lines(Op::Generate, &model(), "t", Timestamp(0))),
        "t"
    );
}

#[test]
fn each_status_has_exactly_its_keys() {
    let written = [
        queued(JOB),
        status(JOB, &Progress::Processing),
        status(
            JOB,
            &Progress::Completed {
                response: "Python to język...".into(),
                model: &model(),
            },
        ),
        status(JOB, &Progress::Error("gone")),
        status("nosuch", &Progress::NotFound),
    ]
    .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    assert_eq!(written.join("\n"), fixture!("status.ndjson"));
}
