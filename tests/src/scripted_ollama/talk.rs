//! The default answers of the scripted Ollama, whose models repeat their input.

use serde_json::{Value, json};

use super::{Answer, Request};

const AT: &str = "2026-11-22T04:07:23.85663942Z";

pub(super) fn answer(request: &Request, models: &[(String, bool)]) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => Answer::json(200, "Ollama is running"),
        ("GET", "/api/version") => Answer::json(200, r#"{"version":"0.33.0"}"#),
        ("GET", "/api/tags") => list(models.iter()),
        ("GET", "/api/ps") => list(models.iter().filter(|(_, loaded)| *loaded)),
        ("POST", "/api/show") => show(&request.body, models),
        ("POST", path @ ("/api/chat" | "/api/generate" | "/api/embed")) => {
            run(path, &request.body, models)
        }
        _ => Answer::json(404, "404 page not found"),
    }
}

fn list<'a>(models: impl Iterator<Item = &'a (String, bool)>) -> Answer {
    let entry = |(name, _): &(String, bool)| {
        json!({
            "name": name, "model": name, "modified_at": AT, "size": 98_362_745,
            "digest": "fd5f44c0b5aff6453726119fc560d73a8a995a55b4a49804bc24b1969ecf1794",
            "details": {"parent_model": "", "format": "gguf", "family": "llama",
                "families": ["llama"], "parameter_size": "134.52M",
                "quantization_level": "Q4_1"},
        })
    };
    let models: Vec<Value> = models.map(entry).collect();
    Answer::json(200, &json!({ "models": models }).to_string())
}

fn show(body: &[u8], models: &[(String, bool)]) -> Answer {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let model = request["model"].as_str().unwrap_or_default();
    if !models.iter().any(|(name, _)| name == model) {
        let error = json!({"error": format!("model '{model}' not found")});
        return Answer::json(404, &error.to_string());
    }
    let show = json!({
        "modelfile": format!("FROM {model}"),
        "details": {"format": "gguf", "family": "llama"},
        "model_info": {"general.architecture": "llama", "general.basename": model,
            "llama.context_length": 8192},
        "capabilities": ["completion"], "modified_at": AT,
    });
    Answer::json(200, &show.to_string())
}

fn run(path: &str, body: &[u8], models: &[(String, bool)]) -> Answer {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return Answer::json(400, r#"{"error":"unexpected EOF"}"#);
    };
    let model = request["model"].as_str().unwrap_or_default();
    let is_model = |name: &str| name == model || name.strip_suffix(":latest") == Some(model);
    if !models.iter().any(|(name, _)| is_model(name)) {
        let error = json!({"error": format!("model '{model}' not found")});
        return Answer::json(404, &error.to_string());
    }
    let said = match path {
        "/api/embed" => {
            let line = json!({"model": model, "embeddings": [[0.6, 0.8]], "total_duration": 1,
                "prompt_eval_count": 2});
            return Answer::json(200, &line.to_string());
        }
        "/api/chat" => request["messages"]
            .as_array()
            .and_then(|messages| messages.last())
            .and_then(|message| message["content"].as_str()),
        _ => request["prompt"].as_str(),
    };
    let words: Vec<&str> = said.unwrap_or_default().split_inclusive(' ').collect();
    let is_chat = path == "/api/chat";
    if request["stream"] == Value::Bool(false) {
        return Answer::json(
            200,
            &last_line(model, is_chat, &words.concat(), words.len()),
        );
    }
    let mut lines: Vec<String> = words
        .iter()
        .map(|word| {
            let mut line = line(model, is_chat, word);
            line["done"] = false.into();
            line.to_string()
        })
        .collect();
    lines.push(last_line(model, is_chat, "", words.len()));
    Answer::lines(lines.iter().map(String::as_str))
}

fn line(model: &str, is_chat: bool, text: &str) -> Value {
    if is_chat {
        let message = json!({"role": "assistant", "content": text});
        json!({"model": model, "created_at": AT, "message": message})
    } else {
        json!({"model": model, "created_at": AT, "response": text})
    }
}

fn last_line(model: &str, is_chat: bool, text: &str, count: usize) -> String {
    let mut line = line(model, is_chat, text);
    line["done"] = true.into();
    line["done_reason"] = "stop".into();
    line["total_duration"] = 92_836_952.into();
    line["prompt_eval_count"] = 31.into();
    line["eval_count"] = count.into();
    line["eval_duration"] = 50_642_259.into();
    line.to_string()
}
