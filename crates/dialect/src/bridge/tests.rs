use proto::{ErrorCode, JobId, LeaseToken, ModelName, Op, Timestamp, limits};

use super::{polling::BridgeState, tunnel::TunnelMessage, *};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../fixtures/bridge/", $name)).trim_end()
    };
}

const TOKEN: LeaseToken = LeaseToken {
    job: JobId([0xab; 16]),
    attempt: 1,
};
const NOON: Timestamp = Timestamp(1_732_276_800_123);

fn request() -> EngineRequest<'static> {
    EngineRequest::of(TOKEN, Op::Chat, fixture!("native.json").as_bytes()).unwrap()
}

fn answer(json: &str) -> Answer {
    Answer::parse(json.as_bytes()).unwrap()
}

/// The answer of a desktop with this status and body.
fn response(status: u16, body: &str) -> Answer {
    let said = serde_json::json!({"requestId": "x", "status": status, "body": body});
    answer(&said.to_string())
}

fn failure(answer: &Answer) -> (usize, ErrorCode, Option<u16>, bool, String) {
    let Outcome { lines, end } = answer.outcome(Op::Chat);
    let Failure {
        error,
        is_retryable,
    } = end.unwrap_err();
    let (code, status) = (error.code, error.engine_status);
    (lines.len(), code, status, is_retryable, error.message)
}

#[test]
fn a_registration_is_answered_in_exactly_these_bytes() {
    let id = polling::new_id([0xab; 16]);
    assert!(polling::is_id(&id));
    assert_eq!(polling::registered(&id, "KEY"), fixture!("registered.json"));
    assert!(polling::is_registration(
        fixture!("register.json").as_bytes()
    ));
    for wrong in [
        "",
        "[]",
        r#"{"clientId":"a","platform":"b"}"#,
        r#"{"clientId":"a","platform":"","version":"c"}"#,
        r#"{"clientId":"a","platform":1,"version":"c"}"#,
    ] {
        assert!(!polling::is_registration(wrong.as_bytes()), "{wrong}");
    }
}

#[test]
fn an_id_is_a_uuid_in_lower_case() {
    let id = polling::new_id([0xff; 16]);
    assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    for wrong in [
        "",
        "x",
        &"0".repeat(32),
        &"0".repeat(36),
        &id.to_uppercase(),
        &id.replace('-', "_"),
        &format!("{id}0"),
    ] {
        assert!(!polling::is_id(wrong), "{wrong}");
    }
}

#[test]
fn a_job_is_polled_in_exactly_these_bytes() {
    let until = Timestamp(NOON.0 + 400_000);
    let polled = polling::polled(Some(&request()), false, NOON, until);
    assert_eq!(polled, fixture!("polled.json"));
    let nothing = polling::polled(None, false, NOON, until);
    assert_eq!(nothing, fixture!("polled-nothing.json"));
}

#[test]
fn a_job_is_sent_through_the_tunnel_in_exactly_these_bytes() {
    assert_eq!(request().http_request(), fixture!("tunnel-request.json"));
    assert_eq!(tunnel::ping("ping-1", NOON), fixture!("tunnel-ping.json"));
    assert_eq!(tunnel::pong("ping-1", NOON), fixture!("tunnel-pong.json"));
}

#[test]
fn what_a_desktop_cannot_be_asked_is_not_expressed() {
    for (op, path) in [(Op::Generate, "/api/generate"), (Op::Embed, "/api/embed")] {
        let request = EngineRequest::of(TOKEN, op, b"{}").unwrap().http_request();
        let request = String::from_utf8_lossy(&request).into_owned();
        assert!(request.contains(path), "{request}");
    }
    assert_eq!(EngineRequest::of(TOKEN, Op::Pull, b"{}"), None);
    assert_eq!(EngineRequest::of(TOKEN, Op::Chat, b"\xff"), None);
}

#[test]
fn a_collected_stream_becomes_its_lines_byte_for_byte() {
    let answer = answer(fixture!("response.json"));
    assert_eq!(answer.id.as_deref(), Some(&*"ab".repeat(16)));
    let Outcome { lines, end } = answer.outcome(Op::Chat);
    let want: Vec<&str> = fixture!("response-lines.ndjson").lines().collect();
    assert_eq!(
        (lines, end),
        (want.iter().map(|l| (*l).into()).collect(), Ok(()))
    );
}

#[test]
fn an_object_in_one_piece_is_one_line_wherever_it_was_wrapped() {
    let body = "{\r\n  \"message\": {\"content\": \"a\\nb\"},\n  \"done\": true\n}\n";
    let Outcome { lines, end } = response(200, body).outcome(Op::Chat);
    let want = r#"{    "message": {"content": "a\nb"},   "done": true }"#;
    assert_eq!((lines, end), (vec![want.into()], Ok(())));
    let TunnelMessage::Answer(embedded) = TunnelMessage::parse(fixture!("tunnel-response.json"))
    else {
        panic!("an answer")
    };
    let Outcome { lines, end } = embedded.outcome(Op::Embed);
    let want = r#"{"embeddings":[[0.10,-1e-7]]}"#;
    assert_eq!((lines, end), (vec![want.into()], Ok(())));
    let whole = r#"{"done":true,"error":null}"#;
    let Outcome { lines, end } = response(200, whole).outcome(Op::Chat);
    assert_eq!((lines, end), (vec![whole.into()], Ok(())));
    // Some clients send the object itself, and not its text.
    let inline = answer(r#"{"requestId":"x","status":"200","body":{"done":true}}"#);
    assert_eq!(inline.outcome(Op::Chat).lines, [r#"{"done":true}"#]);
}

#[test]
fn an_answer_without_its_last_line_has_failed() {
    let failed = ErrorCode::EngineFailed;
    let line = r#"{"message":{"content":"a"},"done":false}"#;
    for (body, lines) in [
        ("", 0),
        ("<html>", 0),
        ("[]", 0),
        (line, 1),
        (&format!("{line}\n{line}\n"), 2),
        (&format!("{line}\nhalf {{"), 1),
        (&format!("{line}\n[1]"), 1),
        (&format!("{line}\n{{\"error\":\"it died\"}}"), 1),
        (r#"{"error":"it died"}"#, 0),
    ] {
        let (count, code, status, is_retryable, message) = failure(&response(200, body));
        assert_eq!((count, code, status), (lines, failed, None), "{body}");
        assert_eq!(is_retryable, lines == 0, "{body}");
        assert_eq!(body.contains("died"), message == "it died", "{message}");
    }
}

#[test]
fn a_line_or_an_answer_that_is_too_long_is_refused_for_good() {
    let long = format!(r#"{{"x":"{}","done":true}}"#, "x".repeat(limits::LINE_MAX));
    let many = "{}\n".repeat(limits::LOG_MAX / (limits::LINE_COST + 2) + 1);
    for body in [long, many] {
        let (_, code, _, is_retryable, _) = failure(&response(200, &body));
        assert_eq!((code, is_retryable), (ErrorCode::TooLarge, false));
    }
}

#[test]
fn an_engines_error_is_told_as_a_native_worker_tells_it() {
    let (unavailable, refused) = (ErrorCode::EngineUnavailable, ErrorCode::EngineRefused);
    let unknown = ErrorCode::UnknownModel;
    let no_model = r#"{"error":"model 'x' not found"}"#;
    for (status, body, code, told, is_retryable, message) in [
        (
            404,
            no_model,
            unknown,
            Some(404),
            false,
            "model 'x' not found",
        ),
        (400, "invalid", refused, Some(400), false, "invalid"),
        (
            500,
            r#"{"error":"out of memory"}"#,
            refused,
            Some(500),
            true,
            "out of memory",
        ),
        (
            500,
            r#"{"error":"template: x"}"#,
            refused,
            Some(500),
            false,
            "template: x",
        ),
        (
            429,
            "slow down",
            unavailable,
            None,
            true,
            "the engine is busy: slow down",
        ),
        (
            504,
            "",
            unavailable,
            None,
            true,
            "the engine cannot be reached: an error without a reason",
        ),
        (
            302,
            "",
            unavailable,
            None,
            true,
            "the engine cannot be reached: HTTP 302: something other than an engine answers there",
        ),
    ] {
        let want = (0, code, told, is_retryable, message.to_owned());
        assert_eq!(failure(&response(status, body)), want, "{status} {body}");
    }
    let (_, code, _, is_retryable, message) = failure(&answer(fixture!("response-failed.json")));
    assert_eq!((code, is_retryable), (unavailable, true));
    assert_eq!(message, "the engine is busy: No LLM provider available");
    for (said, status) in [
        (r#"{"requestId":"x","error":"it broke"}"#, 500),
        (
            r#"{"requestId":"x","status":200,"error":{"message":"it broke"}}"#,
            500,
        ),
        (r#"{"requestId":"x","status":400,"error":"it broke"}"#, 400),
    ] {
        let (_, code, told, _, message) = failure(&answer(said));
        assert_eq!((code, told, &*message), (refused, Some(status), "it broke"));
    }
}

#[test]
fn a_long_error_is_cut_and_not_searched_for_its_message() {
    let zeros = ",0".repeat(limits::CONTROL_BODY_MAX);
    let body = format!(r#"{{"message":"it broke","x":[0{zeros}]}}"#);
    let (.., message) = failure(&response(500, &body));
    assert_eq!(message, body[..8_000]);
    let line = format!(r#"{{"error":{body}}}"#);
    let (.., message) = failure(&response(200, &line));
    assert_eq!(message, body[..8_000]);
}

#[test]
fn an_error_in_the_tunnel_is_one_whatever_its_code() {
    let heard = |text: &str| match TunnelMessage::parse(text) {
        TunnelMessage::Answer(answer) => failure(&answer),
        TunnelMessage::Ping(_) | TunnelMessage::Other => panic!("{text}"),
    };
    let (_, code, _, is_retryable, message) = heard(fixture!("tunnel-error.json"));
    assert_eq!((code, is_retryable), (ErrorCode::EngineUnavailable, true));
    assert_eq!(
        message,
        "the engine is busy: Failed to connect to local Ollama"
    );
    for odd in [
        r#"{"type":"error","id":"x"}"#,
        r#"{"type":"error","id":"x","error":"","code":200}"#,
        r#"{"type":"error","id":"x","error":null,"code":"TIMEOUT"}"#,
    ] {
        let (_, code, status, ..) = heard(odd);
        assert_eq!(
            (code, status),
            (ErrorCode::EngineRefused, Some(500)),
            "{odd}"
        );
    }
}

#[test]
fn a_ping_is_read_whatever_its_time_and_nonsense_is_ignored() {
    for time in [
        "\"2025-10-30T12:00:00.000123\"",
        "\"2025-10-30T12:00:00+00:00\"",
        "7",
        "null",
    ] {
        let ping = format!(r#"{{"type":"ping","id":"a","timestamp":{time}}}"#);
        assert_eq!(TunnelMessage::parse(&ping), TunnelMessage::Ping("a".into()));
    }
    for other in [
        "",
        "sing",
        "[]",
        r#"{"type":"ping"}"#,
        r#"{"type":"ping","id":""}"#,
        r#"{"type":"connection_ack","id":"a"}"#,
        &format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(300)),
        fixture!("tunnel-pong.json"),
    ] {
        assert_eq!(TunnelMessage::parse(other), TunnelMessage::Other, "{other}");
    }
}

#[test]
fn an_answer_to_nothing_has_no_id_and_nonsense_is_refused() {
    for nothing in ["{}", r#"{"requestId":""}"#, r#"{"requestId":null}"#] {
        assert_eq!(answer(nothing).id, None, "{nothing}");
    }
    for (wrong, code) in [
        ("", ErrorCode::BadRequest),
        ("{", ErrorCode::MalformedJson),
        (r#"{"requestId":7}"#, ErrorCode::BadRequest),
    ] {
        let refused = Answer::parse(wrong.as_bytes()).unwrap_err();
        assert_eq!(refused.code, code, "{wrong}");
    }
}

#[test]
fn the_models_of_enabled_providers_are_those_of_the_desktop() {
    let models = polling::models(fixture!("provider-status.json").as_bytes()).unwrap();
    let name = |name: &str| ModelName::new(name).unwrap();
    assert_eq!(models, [name("llama3.1:8b"), name("qwen2.5:7b")]);
    let objects =
        br#"{"providers":[{"availableModels":[{"name":"m"},7]},{"availableModels":null}]}"#;
    assert_eq!(polling::models(objects).unwrap(), [name("m")]);
    assert_eq!(polling::models(b"{}").unwrap(), []);
    assert!(polling::models(b"[").is_err());

    let report = polling::report(models);
    assert_eq!(
        report.models[0].tag.get(),
        r#"{"name":"llama3.1:8b","model":"llama3.1:8b"}"#
    );
    let state = BridgeState {
        id: &polling::new_id([0xab; 16]),
        seen: Some(NOON),
        is_online: true,
        models: &report.models,
        waiting: 3,
    };
    assert_eq!(polling::status(&state), fixture!("status.json"));
}

#[test]
fn acknowledgements_have_the_fields_that_desktops_read() {
    assert_eq!(
        polling::alive(NOON),
        r#"{"success":true,"timestamp":"2024-11-22T12:00:00.123Z"}"#
    );
    assert_eq!(
        polling::updated(NOON),
        r#"{"success":true,"message":"Provider status updated","timestamp":"2024-11-22T12:00:00.123Z"}"#
    );
}

#[test]
fn an_answer_is_not_printed() {
    let shown = format!("{:?}", response(200, "a secret"));
    assert_eq!(shown, r#"Answer { id: Some("x"), status: 200, .. }"#);
}
