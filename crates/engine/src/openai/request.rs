//! Conversion of Ollama's requests to OpenAI's.

use bytes::Bytes;
use proto::Op;
use serde_json::{Map, Value, json};

use super::{
    calls::Calls,
    message::{content, message},
};
use crate::EngineError;

/// A translated Ollama request.
#[derive(Debug, PartialEq)]
pub(super) struct Translated {
    /// Name of the model as requested.
    pub(super) model: String,
    /// The call to make.
    pub(super) call: Call,
}

/// The call that an Ollama request becomes.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    /// `POST /v1/chat/completions`, always streamed.
    Chat { body: Value, shape: Shape },
    /// `POST /v1/completions`, always streamed.
    Completion { body: Value, shape: Shape },
    /// `POST /v1/embeddings`.
    Embed { body: Value },
    /// Nothing to generate: Ollama would load or unload the model; such a server always has it
    /// loaded.
    Load { form: Form, loading: Loading },
    /// No input to embed.
    EmbedNothing,
}

/// The format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) form: Form,
    /// Whether the answer is streamed as lines.
    pub(super) stream: bool,
}

/// The place of the text in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In `message`, as in `/api/chat`.
    Chat,
    /// In `response`, as in `/api/generate`.
    Generate,
}

/// What a request without a prompt wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loading {
    Load,
    Unload,
}

impl Loading {
    /// The reason in the answer.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Unload => "unload",
        }
    }
}

pub(super) fn translate(op: Op, body: &Bytes) -> Result<Translated, EngineError> {
    let too_large = |message| EngineError::Refused {
        status: 413,
        message,
    };
    proto::refuse_intricate(body).map_err(too_large)?;
    let request: Value =
        serde_json::from_slice(body).map_err(|_| refused("the request is not JSON"))?;
    let Value::Object(request) = request else {
        return Err(refused("the request is not a JSON object"));
    };
    let model = match request.get("model").and_then(Value::as_str) {
        Some(model) if !model.is_empty() => model.to_owned(),
        Some(_) | None => return Err(refused("model is required")),
    };
    let call = match op {
        Op::Chat => chat(&model, &request)?,
        Op::Generate => generate(&model, &request)?,
        Op::Embed => embed(&model, &request)?,
        Op::Pull | Op::Copy | Op::Delete | Op::Create => {
            return Err(refused("this engine's models cannot be changed"));
        }
    };
    Ok(Translated { model, call })
}

pub(super) fn refused(message: &str) -> EngineError {
    EngineError::Refused {
        status: 400,
        message: message.to_owned(),
    }
}

fn chat(model: &str, request: &Map<String, Value>) -> Result<Call, EngineError> {
    let messages = match request.get("messages") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(messages)) => messages.as_slice(),
        Some(_) => return Err(refused("messages must be a list")),
    };
    if messages.is_empty() {
        return Ok(load(Form::Chat, request));
    }
    let mut calls = Calls::default();
    let messages = messages.iter().enumerate();
    let messages = messages.map(|(n, said)| message(n, said, &mut calls));
    let messages: Result<Vec<Value>, _> = messages.collect();
    let mut body = common(model, request)?;
    body.insert("messages".into(), Value::Array(messages?));
    copy(request, "tools", &mut body, "tools");
    Ok(Call::Chat {
        body: Value::Object(body),
        shape: shape(Form::Chat, request),
    })
}

fn generate(model: &str, request: &Map<String, Value>) -> Result<Call, EngineError> {
    let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
    let (prompt, system) = (text("prompt"), text("system"));
    if prompt.is_empty() {
        return Ok(load(Form::Generate, request));
    }
    if !text("suffix").is_empty() {
        return Err(refused("this engine cannot fill in text before a suffix"));
    }
    let mut body = common(model, request)?;
    let shape = shape(Form::Generate, request);
    if request.get("raw") == Some(&Value::Bool(true)) {
        body.insert("prompt".into(), prompt.into());
        return Ok(Call::Completion {
            body: Value::Object(body),
            shape,
        });
    }
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": content(prompt, request.get("images"))?}));
    body.insert("messages".into(), Value::Array(messages));
    Ok(Call::Chat {
        body: Value::Object(body),
        shape,
    })
}

fn embed(model: &str, request: &Map<String, Value>) -> Result<Call, EngineError> {
    let input = request.get("input").unwrap_or(&Value::Null);
    let is_empty = match input {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(texts) => texts.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(refused("invalid input type"));
        }
    };
    if is_empty {
        return Ok(Call::EmbedNothing);
    }
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), input.clone());
    copy(request, "dimensions", &mut body, "dimensions");
    Ok(Call::Embed {
        body: Value::Object(body),
    })
}

fn load(form: Form, request: &Map<String, Value>) -> Call {
    let unloads = match request.get("keep_alive") {
        Some(Value::Number(seconds)) => seconds.as_f64() == Some(0.0),
        Some(Value::String(text)) => matches!(text.as_str(), "0" | "0s" | "0m" | "0h"),
        _ => false,
    };
    let loading = if unloads {
        Loading::Unload
    } else {
        Loading::Load
    };
    Call::Load { form, loading }
}

fn shape(form: Form, request: &Map<String, Value>) -> Shape {
    Shape {
        form,
        stream: request.get("stream") != Some(&Value::Bool(false)),
    }
}

/// Returns the fields shared by both kinds of generation. Options without a counterpart are
/// dropped, as Ollama itself ignores unknown options.
fn common(model: &str, request: &Map<String, Value>) -> Result<Map<String, Value>, EngineError> {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    if let Some(Value::Object(options)) = request.get("options") {
        for same in [
            "temperature",
            "top_p",
            "seed",
            "stop",
            "presence_penalty",
            "frequency_penalty",
        ] {
            copy(options, same, &mut body, same);
        }
        // Ollama's "no limit" is expressed by omitting the field; 0 would mean "nothing at all".
        let limit = options.get("num_predict").and_then(Value::as_i64);
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            body.insert("max_tokens".into(), limit.into());
        }
    }
    if let Some(Value::String(effort)) = request.get("think") {
        body.insert("reasoning_effort".into(), effort.as_str().into());
    }
    match request.get("format") {
        None | Some(Value::Null) => {}
        Some(Value::String(format)) if format.is_empty() => {}
        Some(Value::String(format)) if format == "json" => {
            body.insert("response_format".into(), json!({"type": "json_object"}));
        }
        Some(schema @ Value::Object(_)) => {
            let named = json!({"name": "answer", "strict": true, "schema": schema});
            let format = json!({"type": "json_schema", "json_schema": named});
            body.insert("response_format".into(), format);
        }
        Some(_) => return Err(refused("format must be \"json\" or a JSON schema")),
    }
    Ok(body)
}

pub(super) fn copy(
    from: &Map<String, Value>,
    key: &str,
    to: &mut Map<String, Value>,
    as_key: &str,
) {
    if let Some(value) = from.get(key).filter(|value| !value.is_null()) {
        to.insert(as_key.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use proto::limits;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the calls read better so")]
    fn call(op: Op, body: Value) -> Call {
        translate(op, &body.to_string().into()).unwrap().call
    }

    #[test]
    fn a_chat_keeps_what_both_apis_know_and_drops_the_rest() {
        let request = json!({
            "model": "m", "stream": false, "think": "low",
            "messages": [
                {"role": "System", "content": "be brief"},
                {"role": "user", "content": "hi", "images": ["/9j/4AAQ"]},
                {"role": "assistant", "content": null, "tool_calls":
                    [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "tool_name": "f", "content": "7"},
            ],
            "options": {"temperature": 0.5, "num_predict": 9, "num_ctx": 8, "stop": ["x"],
                "seed": null},
            "format": {"type": "object"},
        });
        let expected = json!({
            "model": "m", "stream": true, "stream_options": {"include_usage": true},
            "temperature": 0.5, "stop": ["x"], "max_tokens": 9, "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema":
                {"name": "answer", "strict": true, "schema": {"type": "object"}}},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}},
                ]},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "call_2_0",
                    "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "content": "7", "name": "f", "tool_call_id": "call_2_0"},
            ],
        });
        let shape = Shape {
            form: Form::Chat,
            stream: false,
        };
        assert_eq!(
            call(Op::Chat, request),
            Call::Chat {
                body: expected,
                shape
            }
        );
    }

    #[test]
    fn every_call_has_an_id_of_its_own_and_every_answer_that_of_its_call() {
        let called = |name: &str| json!({"function": {"name": name, "arguments": {}}});
        let turn = |names: [&str; 2]| json!({"role": "assistant", "tool_calls": names.map(called)});
        let answer = |name: &str| json!({"role": "tool", "tool_name": name, "content": ""});
        let request = json!({"model": "m", "messages": [
            turn(["f", "g"]), answer("g"), answer("f"),
            {"role": "assistant", "tool_calls": [{"id": "own", "function": {"name": "f"}}]},
            {"role": "tool", "tool_call_id": "own", "content": ""},
            turn(["f", "f"]), answer("f"), {"role": "tool", "content": ""}, answer("f"),
        ]});
        let Call::Chat { body, .. } = call(Op::Chat, request) else {
            panic!("a chat");
        };
        let messages = body["messages"].as_array().unwrap();
        let said: Vec<_> = messages
            .iter()
            .map(|message| {
                let made = message["tool_calls"].as_array().into_iter().flatten();
                let made = made.map(|call| call["id"].as_str().unwrap());
                made.chain(message["tool_call_id"].as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            said,
            [
                "call_0_0 call_0_1",
                "call_0_1",
                "call_0_0",
                "own",
                "own",
                "call_5_0 call_5_1",
                "call_5_0",
                "call_5_1",
                ""
            ]
        );
    }

    #[test]
    fn no_limit_is_said_by_saying_nothing() {
        for limit in [0, -1, -2] {
            let request = json!({"model": "m", "prompt": "x", "options": {"num_predict": limit}});
            let Call::Chat { body, .. } = call(Op::Generate, request) else {
                panic!("a chat");
            };
            assert_eq!(body.get("max_tokens"), None);
        }
    }

    #[test]
    fn a_prompt_becomes_messages_unless_it_is_raw() {
        let request = json!({"model": "m", "prompt": "p", "system": "s", "format": "json"});
        let Call::Chat { body, shape } = call(Op::Generate, request) else {
            panic!("a chat");
        };
        assert_eq!(
            body["messages"],
            json!([{"role": "system", "content": "s"}, {"role": "user", "content": "p"}])
        );
        assert_eq!(body["response_format"], json!({"type": "json_object"}));
        assert_eq!((shape.form, shape.stream), (Form::Generate, true));
        let raw = json!({"model": "m", "prompt": "p", "raw": true});
        let Call::Completion { body, .. } = call(Op::Generate, raw) else {
            panic!("a completion");
        };
        assert_eq!(body["prompt"], "p");
    }

    #[test]
    fn asking_for_nothing_is_loading() {
        let load = |request| call(Op::Chat, request);
        for (request, loading) in [
            (json!({"model": "m"}), Loading::Load),
            (json!({"model": "m", "messages": []}), Loading::Load),
            (json!({"model": "m", "keep_alive": 0}), Loading::Unload),
            (json!({"model": "m", "keep_alive": "0s"}), Loading::Unload),
        ] {
            let form = Form::Chat;
            assert_eq!(load(request), Call::Load { form, loading });
        }
        let nothing = json!({"model": "m", "input": []});
        assert_eq!(call(Op::Embed, nothing), Call::EmbedNothing);
    }

    #[test]
    fn a_request_that_would_take_far_more_memory_than_bytes_is_not_read() {
        let many = |n| format!(r#"{{"model":"m","prompt":"p","x":[0{}]}}"#, ",0".repeat(n));
        assert!(translate(Op::Generate, &many(9).into()).is_ok());
        let refused = translate(Op::Generate, &many(limits::STRUCTURE_MAX).into());
        assert!(matches!(
            refused,
            Err(EngineError::Refused { status: 413, .. })
        ));
    }

    #[test]
    fn what_cannot_be_translated_is_refused_and_never_quoted() {
        for (op, body) in [
            (Op::Chat, "secret"),
            (Op::Chat, r#"["secret"]"#),
            (Op::Chat, r#"{"messages":["secret"]}"#),
            (Op::Chat, r#"{"model":"m","messages":["secret"]}"#),
            (
                Op::Chat,
                r#"{"model":"m","messages":[{"content":["secret"]}]}"#,
            ),
            (
                Op::Chat,
                r#"{"model":"m","messages":[{}],"format":"secret"}"#,
            ),
            (
                Op::Generate,
                r#"{"model":"m","prompt":"p","suffix":"secret"}"#,
            ),
            (Op::Embed, r#"{"model":"m","input":{"secret":1}}"#),
        ] {
            let error = translate(op, &Bytes::from_static(body.as_bytes())).unwrap_err();
            let EngineError::Refused { status, message } = error else {
                panic!("{body}");
            };
            assert_eq!(status, 400, "{body}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
