//! Answers of the scripted engine for cases that the small real model cannot play.

use hearth_tests::scripted_ollama::{Answer, Gate, Step};
use serde_json::{Value, json};

const AT: &str = "2026-11-22T04:07:23.85663942Z";

/// The answer with this name, as one object if no stream was requested.
pub(crate) fn named(name: &str, whole: bool) -> Option<Answer> {
    let messages = match name {
        "a_tool_call" => vec![json!({ "content": "", "tool_calls": [tool_call()] })],
        "thoughts" => vec![
            json!({ "content": "", "thinking": "Six times " }),
            json!({ "content": "", "thinking": "seven." }),
            json!({ "content": "It is " }),
            json!({ "content": "42." }),
        ],
        "words" => vec![
            json!({ "content": "Six times " }),
            json!({ "content": "seven." }),
        ],
        "a_death" => {
            let begun = line(&json!({ "content": "Six times " }));
            return Some(Answer::begin().send_lines([begun.as_str()]).then(Step::Cut));
        }
        "no_vectors" => {
            let error = json!({ "error": "This server does not support embeddings." });
            return Some(Answer::json(501, &error.to_string()));
        }
        "half" => {
            let begun = line(&json!({ "content": "Six times " }));
            let answer = Answer::begin().send_lines([begun.as_str()]);
            return Some(answer.then(Step::Wait(Gate::default())));
        }
        _ => return None,
    };
    if whole {
        return Some(Answer::json(200, &joined(&messages)));
    }
    let mut lines: Vec<String> = messages.iter().map(line).collect();
    lines.push(last(""));
    Some(Answer::lines(lines.iter().map(String::as_str)))
}

/// A word with multi-byte characters.
pub(crate) const SPOKEN: &str = "Żar";

/// Sends [`SPOKEN`] twice, each time after a gate opens, as `/api/chat` or `/api/generate` does.
pub(crate) fn with_silences(path: &str, gates: &[Gate; 2]) -> Answer {
    let as_asked = |line: String| match path {
        "/api/generate" => {
            let mut line: Value = serde_json::from_str(&line).unwrap();
            line["response"] = line["message"]["content"].take();
            line.as_object_mut().unwrap().remove("message");
            line.to_string()
        }
        _ => line,
    };
    let word = as_asked(line(&json!({ "content": SPOKEN })));
    let [first, second] = gates;
    Answer::begin()
        .then(Step::Wait(first.clone()))
        .send_lines([word.as_str()])
        .then(Step::Wait(second.clone()))
        .send_lines([word.as_str(), &as_asked(last(""))])
        .then(Step::Finish)
}

fn tool_call() -> Value {
    let arguments = json!({ "city": "Kraków", "days": 3 });
    json!({ "id": "call_ab12cd34", "function": { "index": 0, "name": "weather", "arguments": arguments } })
}

fn line(message: &Value) -> String {
    let mut message = message.clone();
    message["role"] = json!("assistant");
    json!({ "model": "tiny", "created_at": AT, "message": message, "done": false }).to_string()
}

fn last(text: &str) -> String {
    let message = json!({ "role": "assistant", "content": text });
    finished(&message)
}

fn finished(message: &Value) -> String {
    json!({
        "model": "tiny", "created_at": AT, "message": message, "done": true, "done_reason": "stop",
        "total_duration": 92_836_952, "prompt_eval_count": 31, "eval_count": 4,
        "eval_duration": 50_642_259,
    })
    .to_string()
}

/// Merges all messages of an answer into one.
fn joined(messages: &[Value]) -> String {
    let mut whole = json!({ "role": "assistant", "content": "" });
    for message in messages {
        for (name, value) in message.as_object().into_iter().flatten() {
            whole[name] = match (whole[name].as_str(), value.as_str()) {
                (so_far, Some(text)) => json!(so_far.unwrap_or_default().to_owned() + text),
                (_, None) => value.clone(),
            };
        }
    }
    finished(&whole)
}
