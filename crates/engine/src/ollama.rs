//! The client of an Ollama server.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use proto::{Body, EngineKind, ModelEntry, ModelName, Op, WorkerReport, limits};
use reqwest::{Client, Method, Url, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};
use tokio::time::Duration;

use crate::{
    Engine, EngineError, EngineTimes, Lines,
    answer::{ResponseLines, ask, not_up, own_words, send_and_hear},
    client_builder,
    request::wants_lines,
    times::Limit,
};

/// Maximum time between two lines of a change of models: verifying a pulled model takes long and
/// produces no output.
pub const CHANGE_PAUSE: Duration = Duration::from_secs(30 * 60);

/// An Ollama server. It only gets requests for an [`Op`], byte for byte, and four kinds of requests
/// about itself and its models.
#[derive(Debug)]
pub struct Ollama {
    client: Client,
    base: String,
    times: EngineTimes,
}

impl Ollama {
    /// Creates a client for the Ollama at `url`, for example from [`crate::parse_host`]. Does not
    /// connect yet.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the system does not permit creating an HTTP client.
    pub fn new(url: &Url, times: EngineTimes) -> Result<Self, EngineError> {
        let client = client_builder(url)
            .connect_timeout(times.connect)
            .build()
            .map_err(|error| EngineError::Unavailable(error.to_string()))?;
        Ok(Self {
            client,
            base: url.as_str().trim_end_matches('/').to_owned(),
            times,
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let request = self.client.get(format!("{}{path}", self.base));
        let body = ask(request, self.times.report).await.map_err(not_up)?;
        serde_json::from_slice(&body).map_err(|_| {
            EngineError::Unavailable(format!("what answers at {path} is not an Ollama"))
        })
    }

    /// Returns the limits of the first line, which is the whole answer if it does not stream, and
    /// of the time between two lines. The owner's limits are for answers, not for changes of
    /// models.
    fn limits(&self, op: Op, streams: bool) -> (Limit, Limit) {
        let change = Limit::fixed(CHANGE_PAUSE);
        match (op.changes_models(), streams) {
            (true, true) => (change, change),
            (true, false) => (Limit::fixed(limits::MODEL_CHANGE), change),
            (false, true) => (self.times.to_first_line(), self.times.to_next_line()),
            (false, false) => (
                Limit::fixed(self.times.whole_answer),
                self.times.to_next_line(),
            ),
        }
    }
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Models<T> {
    models: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[async_trait]
impl Engine for Ollama {
    fn name(&self) -> String {
        format!("ollama at {}", self.base)
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Ollama
    }

    async fn report(&self) -> Result<WorkerReport, EngineError> {
        let (version, tags, loaded) = tokio::try_join!(
            self.get::<Version>("/api/version"),
            self.get::<Models<Box<RawValue>>>("/api/tags"),
            async { Ok(self.get::<Models<Named>>("/api/ps").await.ok()) },
        )?;
        let loaded: HashSet<String> = loaded
            .and_then(|ps| ps.models)
            .unwrap_or_default()
            .into_iter()
            .map(|model| model.name)
            .collect();
        let models = tags.models.unwrap_or_default().into_iter();
        let models = models.filter_map(|tag| {
            let Named { name } = serde_json::from_str(tag.get()).ok()?;
            let is_loaded = loaded.contains(&name);
            // A model whose name is not valid on the wire cannot be requested either.
            let name = ModelName::new(name).ok()?;
            Some(ModelEntry {
                name,
                loaded: is_loaded,
                tag,
            })
        });
        Ok(WorkerReport {
            model_changes: false,
            engine: EngineKind::Ollama,
            engine_version: version.version,
            engine_up: true,
            models: models.collect(),
        })
    }

    async fn show(&self, model: &ModelEntry) -> Result<Option<Box<RawValue>>, EngineError> {
        let request = self
            .client
            .post(format!("{}/api/show", self.base))
            .header(CONTENT_TYPE, "application/json")
            .body(serde_json::json!({ "model": model.name }).to_string());
        let show = ask(request, self.times.report).await?;
        Ok(trimmed(&show))
    }

    async fn running(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        let running = self.get::<Models<Box<RawValue>>>("/api/ps").await?;
        let mut running = running.models.unwrap_or_default();
        running.truncate(limits::RUNNING_MAX);
        Ok(running)
    }

    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError> {
        let (method, path, may_stream) = match op {
            Op::Chat => (Method::POST, "/api/chat", true),
            Op::Generate => (Method::POST, "/api/generate", true),
            Op::Embed => (Method::POST, "/api/embed", false),
            Op::Pull => (Method::POST, "/api/pull", true),
            Op::Create => (Method::POST, "/api/create", true),
            Op::Copy => (Method::POST, "/api/copy", false),
            Op::Delete => (Method::DELETE, "/api/delete", false),
        };
        let streams = may_stream && wants_lines(&body.0);
        let (to_first, to_next) = self.limits(op, streams);
        let first_by = to_first.starting_now();
        let request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json")
            .body(body.0);
        let response = send_and_hear(request, first_by, own_words).await?;
        // A response without the content type of a stream is one complete answer, whatever its
        // fields.
        let is_whole = !is_stream(&response);
        if matches!(op, Op::Copy | Op::Delete) {
            // An empty body means success.
            let done = Bytes::from_static(br#"{"status":"success"}"#);
            return Ok(Box::pin(stream::iter([Ok(done)])));
        }
        let lines = ResponseLines::new(response, first_by, to_next);
        Ok(Box::pin(stream::unfold(
            Reading::Lines(lines),
            move |reading| async move {
                match reading {
                    Reading::Lines(lines) => Some(next(lines, is_whole).await),
                    Reading::Rest(lines) => {
                        lines.finish().await;
                        None
                    }
                    Reading::Failed => None,
                }
            },
        )))
    }
}

/// Returns an answer to `/api/show`, without its lists and long texts if they make it too long. The
/// fields by which clients choose a model are always kept. `None` if it is not such an answer.
fn trimmed(show: &[u8]) -> Option<Box<RawValue>> {
    let whole = std::str::from_utf8(show).ok()?;
    let mut fields: Map<String, Value> = serde_json::from_str(whole).ok()?;
    if whole.len() <= limits::SHOW_MAX {
        return RawValue::from_string(whole.trim().to_owned()).ok();
    }
    let info = fields.get_mut("model_info").and_then(Value::as_object_mut);
    for value in info.into_iter().flat_map(Map::values_mut) {
        // Ollama itself shortens them in this way unless asked for everything.
        if value.is_array() {
            *value = Value::Null;
        }
    }
    for long in [
        "tensors",
        "license",
        "modelfile",
        "messages",
        "template",
        "system",
    ] {
        fields.shift_remove(long);
        let left = serde_json::to_string(&fields).ok()?;
        if left.len() <= limits::SHOW_MAX {
            return RawValue::from_string(left).ok();
        }
    }
    None
}

enum Reading {
    Lines(ResponseLines),
    Rest(ResponseLines),
    Failed,
}

#[derive(Deserialize)]
struct LineHead<'a> {
    #[serde(default)]
    done: bool,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
    /// Set in lines of a change of models, which has no other end marker.
    #[serde(default, borrow)]
    status: Option<&'a RawValue>,
}

fn is_stream(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-ndjson"))
}

async fn next(mut lines: ResponseLines, is_whole: bool) -> (Result<Bytes, EngineError>, Reading) {
    let line = match lines.next().await {
        Ok(Some(line)) => line,
        Ok(None) => {
            // Ollama stops in this way when a model repeats itself; only the end marker is missing.
            let problem = "it ended its answer without an end marker";
            return (Err(EngineError::Broken(problem.into())), Reading::Failed);
        }
        Err(error) => return (Err(error), Reading::Failed),
    };
    match serde_json::from_slice::<LineHead<'_>>(&line) {
        Ok(LineHead { error: Some(_), .. }) => {
            let problem = own_words(&line).unwrap_or_else(|| "an error without words".into());
            (Err(EngineError::Failed(problem)), Reading::Failed)
        }
        // The check for `{` is needed because serde also reads a list as a struct.
        Ok(LineHead { done, status, .. }) if line.starts_with(b"{") => {
            let is_last = done || is_whole || status.is_some_and(|s| s.get() == "\"success\"");
            let reading = if is_last {
                Reading::Rest
            } else {
                Reading::Lines
            };
            (Ok(line), reading(lines))
        }
        Ok(_) | Err(_) => {
            let problem = "a line of its answer is not Ollama's";
            (Err(EngineError::Broken(problem.into())), Reading::Failed)
        }
    }
}

/// Parses the output of an Ollama, for `tests/fuzz`.
#[cfg(feature = "fuzz")]
pub fn fuzz(bytes: &[u8]) {
    drop(trimmed(bytes));
    drop(own_words(bytes));
    drop(serde_json::from_slice::<LineHead<'_>>(bytes));
    drop(serde_json::from_slice::<Models<Box<RawValue>>>(bytes));
    drop(serde_json::from_slice::<Models<Named>>(bytes));
    drop(serde_json::from_slice::<Version>(bytes));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_short_answer_to_show_passes_byte_for_byte() {
        let show = r#"{"model_info":{"a":  0.00001,"b":1e3},"tensors":[1, 2]}"#;
        assert_eq!(trimmed(show.as_bytes()).unwrap().get(), show);
        assert!(trimmed(b"[]").is_none());
        assert!(trimmed(b"<html>").is_none());
    }

    #[test]
    fn a_long_answer_to_show_loses_its_lists_first_and_never_what_clients_choose_by() {
        let long = "x".repeat(limits::SHOW_MAX / 2 + 1);
        let many = vec!["x"; limits::SHOW_MAX / 2];
        let chosen_by = json!({"general.architecture": "llama", "llama.context_length": 8192});
        let show = |extra: &[(&str, Value)]| {
            let mut show = json!({"capabilities": ["completion"], "model_info": chosen_by});
            for (name, value) in extra {
                show[*name] = value.clone();
            }
            let trimmed = trimmed(show.to_string().as_bytes()).unwrap();
            assert!(trimmed.get().len() <= limits::SHOW_MAX);
            serde_json::from_str::<Value>(trimmed.get()).unwrap()
        };
        let kept = show(&[("tensors", json!(many)), ("license", json!(long))]);
        assert_eq!(kept["license"], long);
        assert_eq!(kept.get("tensors"), None);
        let kept = show(&[("license", json!(long)), ("modelfile", json!(long))]);
        assert_eq!(
            (kept.get("license"), &kept["modelfile"]),
            (None, &json!(long))
        );
        let mut info = chosen_by.clone();
        info["tokenizer.ggml.tokens"] = json!(many);
        let kept = show(&[("model_info", info)]);
        assert_eq!(kept["model_info"]["llama.context_length"], 8192);
        assert_eq!(kept["model_info"]["tokenizer.ggml.tokens"], Value::Null);
        let every = [
            "tensors",
            "license",
            "modelfile",
            "messages",
            "template",
            "system",
        ];
        let kept = show(&every.map(|name| (name, json!(long))));
        assert_eq!(kept["capabilities"], json!(["completion"]));
    }
}
