use std::time::Duration;

use super::*;

fn own() -> ModelName {
    ModelName::new("smollm2:135m").unwrap()
}

fn chat(body: &str) -> Result<Request, EngineError> {
    Request::read(Op::Chat, body.as_bytes(), &own())
}

fn generate(body: &str) -> Result<Request, EngineError> {
    Request::read(Op::Generate, body.as_bytes(), &own())
}

fn refusal(read: Result<Request, EngineError>) -> (u16, String) {
    match read {
        Err(EngineError::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[test]
fn a_conversation_is_read_with_ollamas_defaults() {
    let request = chat(
        r#"{"model":"SmolLM2:135m","messages":[{"role":"User","content":"hi"},{"role":"assistant","content":null}],"zzz":1} garbage"#,
    )
    .map_err(|error| error.to_string())
    .unwrap();
    assert_eq!(request.model, "SmolLM2:135m");
    assert!(request.stream && request.truncate && request.schema.is_none());
    let Work::Chat(messages) = request.work else {
        panic!("not a conversation")
    };
    let seen: Vec<_> = messages
        .iter()
        .map(|m| (m.role.as_str(), m.content.as_str()))
        .collect();
    assert_eq!(seen, [("user", "hi"), ("assistant", "")]);
}

#[test]
fn nothing_to_say_loads_and_keep_alive_zero_unloads() {
    let work = |body: &str| chat(body).map(|request| request.work).ok().unwrap();
    let model = r#""model":"smollm2:135m""#;
    assert!(matches!(
        work(&format!("{{{model}}}")),
        Work::Load(Shape::Chat)
    ));
    assert!(matches!(
        work(&format!(r#"{{{model},"messages":[],"keep_alive":"0s"}}"#)),
        Work::Unload(Shape::Chat)
    ));
    let request = generate(&format!(r#"{{{model},"keep_alive":"10m"}}"#))
        .ok()
        .unwrap();
    assert!(matches!(request.work, Work::Load(Shape::Generate)));
    assert_eq!(
        request.keep_alive,
        Some(KeepAlive::For(Duration::from_secs(600)))
    );
}

#[test]
fn what_would_take_far_more_memory_than_bytes_is_refused() {
    let with = |field: &str| chat(&format!(r#"{{"model":"smollm2:135m",{field}}}"#));
    let many = ",0".repeat(proto::limits::STRUCTURE_MAX);
    assert_eq!(refusal(with(&format!(r#""x":[0{many}]"#))).0, 413);
    let names: Vec<_> = (0..300).map(|n| format!(r#""a{n}":{{}}"#)).collect();
    let schema = format!(r#""format":{{"properties":{{{}}}}}"#, names.join(","));
    let (status, message) = refusal(with(&schema));
    assert_eq!(status, 400);
    assert!(message.contains("256 properties"), "{message}");
}

#[test]
fn chat_refusals_are_ollamas() {
    let m = r#""model":"smollm2:135m""#;
    for (body, status, text) in [
        (String::new(), 400, "missing request body"),
        ("{}".to_owned(), 400, "model is required"),
        (r#"{"model":"x","#.to_owned(), 400, "unexpected EOF"),
        (
            "[]".to_owned(),
            400,
            "json: cannot unmarshal array into Go value of type api.ChatRequest",
        ),
        (
            r#"{"model":1}"#.to_owned(),
            400,
            "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
        ),
        (
            r#"{"model":"nosuch:1b"}"#.to_owned(),
            404,
            "model 'nosuch:1b' not found",
        ),
        (r#"{"model":"a b"}"#.to_owned(), 400, "invalid model name"),
        (
            format!(r#"{{{m},"stream":"yes"}}"#),
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool",
        ),
        (
            format!(r#"{{{m},"messages":"hi"}}"#),
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            format!(r#"{{{m},"messages":[{{"role":"user","content":[]}}]}}"#),
            400,
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        (
            format!(r#"{{{m},"keep_alive":"soon"}}"#),
            400,
            "time: invalid duration \"soon\"",
        ),
        (
            format!(r#"{{{m},"options":{{"temperature":"hot"}}}}"#),
            500,
            "option \"temperature\" must be of type float32",
        ),
        (
            format!(r#"{{{m},"think":true}}"#),
            400,
            "\"smollm2:135m\" does not support thinking",
        ),
        (
            format!(r#"{{{m},"think":"lots"}}"#),
            400,
            "invalid think value: \"lots\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
        ),
        (
            format!(r#"{{{m},"think":3}}"#),
            400,
            "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)",
        ),
        (
            format!(r#"{{{m},"tools":[{{}}]}}"#),
            400,
            "registry.ollama.ai/library/smollm2:135m does not support tools",
        ),
        (
            format!(r#"{{{m},"tools":"x"}}"#),
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.tools of type api.Tools",
        ),
        (
            format!(r#"{{{m},"format":"xml"}}"#),
            500,
            "invalid format: \"\\\"xml\\\"\"; expected \"json\" or a valid JSON Schema object",
        ),
        (
            format!(r#"{{{m},"format":5}}"#),
            500,
            "invalid format: \"5\"; expected \"json\" or a valid JSON Schema object",
        ),
        (
            format!(r#"{{{m},"messages":[{{"role":"user","content":"x","images":["aGk="]}}]}}"#),
            400,
            NO_IMAGES,
        ),
    ] {
        assert_eq!(refusal(chat(&body)), (status, text.to_owned()), "{body}");
    }
}

#[test]
fn generate_refusals_are_ollamas() {
    let m = r#""model":"smollm2:135m""#;
    for (body, status, text) in [
        ("{}".to_owned(), 404, "model '' not found"),
        (
            format!(r#"{{{m},"prompt":5}}"#),
            400,
            "json: cannot unmarshal number into Go struct field GenerateRequest.prompt of type string",
        ),
        (
            format!(r#"{{{m},"prompt":"x","raw":true,"system":"y"}}"#),
            400,
            "raw mode does not support template, system, or context",
        ),
        (
            format!(r#"{{{m},"prompt":"x","suffix":"y"}}"#),
            400,
            "registry.ollama.ai/library/smollm2:135m does not support insert",
        ),
    ] {
        assert_eq!(
            refusal(generate(&body)),
            (status, text.to_owned()),
            "{body}"
        );
    }
}

#[test]
fn embeddings_are_refused_but_an_empty_list_of_them_is_easy() {
    let embed = |body: &str| embed(body.as_bytes(), &own());
    assert_eq!(
        embed(r#"{"model":"smollm2:135m","input":[]}"#),
        Ok("smollm2:135m".to_owned())
    );
    let status = |body| match embed(body) {
        Err(EngineError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(r#"{"model":"smollm2:135m","input":"x"}"#), 501);
    assert_eq!(status(r#"{"model":"smollm2:135m","input":5}"#), 400);
    assert_eq!(status(r#"{"model":"nosuch","input":"x"}"#), 404);
}
