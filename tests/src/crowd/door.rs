//! The APIs in which questions are asked.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Shared, reader};
use crate::{
    auditor::{Ending, Seen},
    tagged_engine::Question,
};

/// One API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `POST /api/jobs`, then its events.
    Native,
    /// `POST /api/ollama/request`, then its status.
    Polling,
    /// `POST /api/chat`, streamed.
    Ollama,
    /// `POST /v1/chat/completions`, streamed.
    OpenAi,
    /// `POST /v1/messages`, streamed.
    Anthropic,
}

/// Length of the cycle in which the APIs are used.
pub(super) const TURNS: u64 = 10;
const SECOND_TRY: Duration = Duration::from_millis(50);

impl Door {
    const fn of(n: u64) -> Self {
        match n % TURNS {
            3 => Self::Ollama,
            5 => Self::OpenAi,
            7 => Self::Anthropic,
            9 => Self::Polling,
            _ => Self::Native,
        }
    }
}

/// Asks a question and follows its answer to the end, or until it is lost.
pub(super) async fn ask(shared: &Shared, n: u64, question: &Question) {
    let name = &question.name;
    shared.note(name, Seen::Asked(question.behavior.promise()));
    let prompt = question.to_string();
    let messages = json!([{ "role": "user", "content": prompt }]);
    match Door::of(n) {
        Door::Native => {
            if let Some(id) = submit(shared, n, question, &messages).await {
                shared.note(name, Seen::Acknowledged(id.clone()));
                reader::follow(shared, n, name, &id, 0).await;
            }
        }
        Door::Polling => polling(shared, n, name, &prompt).await,
        Door::Ollama => {
            let body = json!({ "model": "tiny", "messages": messages });
            if let Some(answer) = shared.post(n, "/api/chat", &body).await {
                reader::lines(answer, |line| shared.native_line(name, line)).await;
            }
        }
        Door::OpenAi => {
            let body = json!({ "model": "tiny", "messages": messages, "stream": true });
            if let Some(answer) = shared.post(n, "/v1/chat/completions", &body).await {
                reader::events(answer, |event| shared.openai_event(name, &event.data)).await;
            }
        }
        Door::Anthropic => {
            let body = json!({ "model": "tiny", "messages": messages, "stream": true,
                "max_tokens": 64 });
            if let Some(answer) = shared.post(n, "/v1/messages", &body).await {
                reader::events(answer, |event| shared.anthropic_event(name, &event.data)).await;
            }
        }
    }
}

/// Submits a job under one idempotency key until it is accepted.
async fn submit(shared: &Shared, n: u64, question: &Question, messages: &Value) -> Option<String> {
    let body = json!({ "model": "tiny", "messages": messages, "stream": true });
    let submit = json!({ "op": "chat", "body": body, "deadline_ms": 3_600_000 });
    let until = Instant::now() + shared.patience;
    while Instant::now() < until {
        let mut request = shared
            .http
            .post(shared.url("/api/jobs"))
            .bearer_auth(shared.key(n))
            .header("idempotency-key", format!("once-{n}"))
            .json(&submit);
        if let Some(only) = &question.only {
            request = request.header("x-hearth-worker", only);
        }
        if let Ok(answer) = request.send().await {
            let status = answer.status();
            match answer.text().await {
                Ok(body) if status == StatusCode::ACCEPTED => return id(&body),
                Ok(body) => {
                    let is_busy =
                        status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                    shared.refused(body);
                    if !is_busy {
                        return None;
                    }
                }
                Err(_) => {}
            }
        }
        sleep(SECOND_TRY).await;
    }
    None
}

fn id(body: &str) -> Option<String> {
    let view: Value = serde_json::from_str(body).ok()?;
    Some(view["id"].as_str()?.to_owned())
}

async fn polling(shared: &Shared, n: u64, name: &str, prompt: &str) {
    let body = json!({ "model": "tiny", "prompt": prompt });
    let Some(answer) = shared.post(n, "/api/ollama/request", &body).await else {
        return;
    };
    let Some(id) = answer.text().await.ok().as_deref().and_then(id) else {
        return;
    };
    shared.note(name, Seen::Acknowledged(id.clone()));
    let until = Instant::now() + shared.patience;
    while Instant::now() < until {
        let path = format!("/api/ollama/status/{id}");
        let request = shared
            .http
            .get(shared.url(&path))
            .bearer_auth(shared.key(n));
        if let Ok(answer) = request.send().await {
            let found = answer.status();
            let status: Value = answer.json().await.unwrap_or_default();
            match status["status"].as_str() {
                Some("completed") => {
                    let text = status["response"].as_str().unwrap_or_default();
                    shared.note(name, Seen::Piece(0, text.to_owned()));
                    shared.note(name, Seen::Ended(0, Ending::Completed));
                    return;
                }
                Some("error") => {
                    // The text is not a code; all that counts is that it failed.
                    shared.note(name, Seen::Ended(0, Ending::Failed(String::new())));
                    return;
                }
                _ if found == StatusCode::NOT_FOUND => return,
                _ => {}
            }
        }
        sleep(4 * SECOND_TRY).await;
    }
}

impl Shared {
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn key(&self, n: u64) -> &str {
        let at = usize::try_from(n).unwrap_or_default() % self.keys.len();
        &self.keys[at]
    }

    /// Sends one request; `None` if it was refused or the connection broke.
    async fn post(&self, n: u64, path: &str, body: &Value) -> Option<Response> {
        let request = self.http.post(self.url(path)).bearer_auth(self.key(n));
        let answer = request.json(body).send().await.ok()?;
        if answer.status().is_success() {
            return Some(answer);
        }
        let body = answer.text().await.unwrap_or_default();
        self.refused(body);
        None
    }

    fn native_line(&self, name: &str, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(text) = line["message"]["content"]
            .as_str()
            .filter(|text| !text.is_empty())
        {
            self.note(name, Seen::Piece(0, text.to_owned()));
        }
        if line["done"] == true {
            self.note(name, Seen::Ended(0, Ending::Completed));
        }
        self.error(name, &line["error"]);
    }

    fn openai_event(&self, name: &str, data: &str) {
        if data == "[DONE]" {
            self.note(name, Seen::Ended(0, Ending::Completed));
            return;
        }
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        let text = chunk["choices"][0]["delta"]["content"].as_str();
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.note(name, Seen::Piece(0, text.to_owned()));
        }
        self.error(name, &chunk["error"]);
    }

    fn anthropic_event(&self, name: &str, data: &str) {
        let event: Value = serde_json::from_str(data).unwrap_or_default();
        if let Some(text) = event["delta"]["text"].as_str() {
            self.note(name, Seen::Piece(0, text.to_owned()));
        }
        if event["type"] == "message_stop" {
            self.note(name, Seen::Ended(0, Ending::Completed));
        }
        self.error(name, &event["error"]);
    }

    fn error(&self, name: &str, error: &Value) {
        if !error.is_null() {
            self.refused(error.to_string());
            self.note(name, Seen::Ended(0, Ending::Failed(String::new())));
        }
    }
}
