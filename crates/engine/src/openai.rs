//! The client of servers with an OpenAI-compatible API.

mod calls;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod message;
mod reply;
mod request;
mod tool_calls;

use std::{collections::VecDeque, fmt};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use proto::{Body, EngineKind, ModelEntry, ModelName, Op, Timestamp, WorkerReport, limits};
use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use self::{
    reply::{Ending, Reply, date, loaded},
    request::{Call, Translated, translate},
};
use crate::{
    Clock, Engine, EngineError, EngineTimes, Lines,
    answer::{ResponseLines, ask, not_up, send},
    client_builder,
};

/// A server with an OpenAI-compatible API: llama.cpp, vLLM, LM Studio and many others.
///
/// Ollama's requests are translated to that API, and its answers back. Fields without a counterpart
/// (`num_ctx`, `top_k`, `keep_alive`, `template`, `context`, log probabilities …) are dropped.
pub struct OpenAiCompatible {
    client: Client,
    base: String,
    bearer: Option<HeaderValue>,
    times: EngineTimes,
    clock: Clock,
}

impl fmt::Debug for OpenAiCompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl OpenAiCompatible {
    /// Creates a client for the server at `url`, with or without a final `/v1`. Does not connect
    /// yet.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the key is invalid, or the system does not permit creating
    /// an HTTP client.
    pub fn new(
        url: &Url,
        key: Option<&SecretString>,
        times: EngineTimes,
        clock: Clock,
    ) -> Result<Self, EngineError> {
        let client = client_builder(url)
            .connect_timeout(times.connect)
            .build()
            .map_err(|error| EngineError::Unavailable(error.to_string()))?;
        let bearer = key.map(|key| {
            let value = format!("Bearer {}", key.expose_secret());
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                EngineError::Unavailable(
                    "its key contains characters that are not valid in a key".into(),
                )
            })?;
            value.set_sensitive(true);
            Ok::<_, EngineError>(value)
        });
        let base = url.as_str().trim_end_matches('/');
        Ok(Self {
            client,
            base: base.strip_suffix("/v1").unwrap_or(base).to_owned(),
            bearer: bearer.transpose()?,
            times,
            clock,
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer.clone()),
            None => request,
        }
    }

    async fn generate(&self, path: &str, body: &Value, reply: Reply) -> Result<Lines, EngineError> {
        let started = Instant::now();
        // The upstream request always streams, so that a silent server can be told from a busy one.
        let first_by = self.times.to_first_line().starting_now();
        let request = self.request(Method::POST, path).json(body);
        let response = send(request, first_by).await.map_err(own_fault)?;
        let answer = Answer {
            lines: ResponseLines::new(response, first_by, self.times.to_next_line()),
            reply,
            started,
            clock: self.clock.clone(),
        };
        Ok(Box::pin(
            stream::unfold(State::Reading(Box::new(answer)), next).boxed(),
        ))
    }

    async fn embed(&self, model: &str, body: &Value) -> Result<Bytes, EngineError> {
        let started = Instant::now();
        let request = self.request(Method::POST, "/v1/embeddings").json(body);
        let answer = ask(request, self.times.whole_answer)
            .await
            .map_err(own_fault)?;
        let mut answer: Embeddings = serde_json::from_slice(&answer)
            .map_err(|_| EngineError::Broken("its embeddings are not OpenAI's".into()))?;
        answer.data.sort_by_key(|embedding| embedding.index);
        let vectors: Vec<_> = answer.data.iter().map(|data| &*data.embedding).collect();
        let line = EmbedLine {
            model,
            embeddings: &vectors,
            total_duration: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            prompt_eval_count: answer.usage.map(|usage| usage.prompt_tokens),
        };
        let line = serde_json::to_vec(&line).map_err(|e| EngineError::Broken(e.to_string()))?;
        if line.len() > limits::LINE_MAX {
            return Err(EngineError::TooLong);
        }
        Ok(line.into())
    }
}

/// Maps a refused key to an error of the owner's configuration, not of the requester.
fn own_fault(error: EngineError) -> EngineError {
    match error {
        EngineError::Refused {
            status: status @ (401 | 403),
            message,
        } => EngineError::Unavailable(format!("it refused its key, HTTP {status}: {message}")),
        other @ (EngineError::Unavailable(_)
        | EngineError::Busy(_)
        | EngineError::Refused { .. }
        | EngineError::Failed(_)
        | EngineError::Broken(_)
        | EngineError::Unusable(_)
        | EngineError::TooLong) => other,
    }
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    created: Option<i64>,
    /// vLLM's name for the context length.
    #[serde(default)]
    max_model_len: Option<u64>,
    /// llama.cpp's addition to the API.
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    n_ctx_train: Option<u64>,
    #[serde(default)]
    n_embd: Option<u64>,
    #[serde(default)]
    n_params: Option<u64>,
}

#[derive(Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
    #[serde(default)]
    usage: Option<EmbedUsage>,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    index: u64,
    embedding: Box<RawValue>,
}

#[derive(Deserialize)]
struct EmbedUsage {
    #[serde(default)]
    prompt_tokens: u64,
}

#[derive(serde::Serialize)]
struct EmbedLine<'a> {
    model: &'a str,
    embeddings: &'a [&'a RawValue],
    total_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
}

#[async_trait]
impl Engine for OpenAiCompatible {
    fn name(&self) -> String {
        format!("OpenAI API at {}", self.base)
    }

    fn kind(&self) -> EngineKind {
        EngineKind::OpenAi
    }

    async fn report(&self) -> Result<WorkerReport, EngineError> {
        let request = self.request(Method::GET, "/v1/models");
        let body = ask(request, self.times.report).await.map_err(not_up)?;
        let models: Models = serde_json::from_slice(&body).map_err(|_| {
            let problem = "what answers at /v1/models is not OpenAI's API";
            EngineError::Unavailable(problem.into())
        })?;
        Ok(WorkerReport {
            model_changes: false,
            engine: EngineKind::OpenAi,
            engine_version: String::new(),
            engine_up: true,
            models: models
                .data
                .into_iter()
                .filter_map(|model| entry(&model))
                .collect(),
        })
    }

    async fn show(&self, model: &ModelEntry) -> Result<Option<Box<RawValue>>, EngineError> {
        let answer = ask(self.request(Method::GET, "/v1/models"), self.times.report).await?;
        let models: Models = serde_json::from_slice(&answer)
            .map_err(|_| EngineError::Broken("its models are not OpenAI's".into()))?;
        let found = models
            .data
            .iter()
            .find(|said| said.id == model.name.as_str());
        Ok(found.and_then(shown))
    }

    async fn running(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        // Such servers do not report which models are in memory.
        Ok(Vec::new())
    }

    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError> {
        let Translated { model, call } = translate(op, &body.0)?;
        let one = |line: Bytes| -> Lines { Box::pin(stream::iter([Ok(line)])) };
        match call {
            Call::Chat { body, shape } => {
                let reply = Reply::new(model, shape);
                self.generate("/v1/chat/completions", &body, reply).await
            }
            Call::Completion { body, shape } => {
                let reply = Reply::new(model, shape);
                self.generate("/v1/completions", &body, reply).await
            }
            Call::Embed { body } => self.embed(&model, &body).await.map(one),
            Call::Load { form, loading } => {
                Ok(one(loaded(&model, form, loading, self.clock.now())))
            }
            Call::EmbedNothing => {
                let line = json!({"model": model, "embeddings": []}).to_string();
                Ok(one(line.into()))
            }
        }
    }
}

/// Converts a model of such a server to an entry of Ollama's `/api/tags`.
fn entry(model: &Model) -> Option<ModelEntry> {
    let name = ModelName::new(model.id.as_str()).ok()?;
    let created = Timestamp(model.created.unwrap_or(0).saturating_mul(1_000));
    let tag = json!({
        "name": model.id, "model": model.id, "modified_at": date(created), "size": 0,
        "digest": "", "details": {"parent_model": "", "format": "", "family": "",
            "families": null, "parameter_size": "", "quantization_level": ""},
    });
    Some(ModelEntry {
        name,
        // Such servers do not report it; most serve only what they have loaded.
        loaded: true,
        tag: RawValue::from_string(tag.to_string()).ok()?,
    })
}

/// Converts a model of such a server to an answer of Ollama's `/api/show`. The architecture is
/// unknown, so lengths are given under `general`.
fn shown(model: &Model) -> Option<Box<RawValue>> {
    let meta = model.meta.as_ref();
    let told = [
        (
            "general.parameter_count",
            meta.and_then(|meta| meta.n_params),
        ),
        (
            "general.context_length",
            model.max_model_len.or_else(|| meta?.n_ctx_train),
        ),
        (
            "general.embedding_length",
            meta.and_then(|meta| meta.n_embd),
        ),
    ];
    let mut info = serde_json::Map::new();
    info.insert("general.basename".into(), model.id.as_str().into());
    for (key, number) in told {
        info.extend(number.map(|number| (key.to_owned(), number.into())));
    }
    let created = Timestamp(model.created.unwrap_or(0).saturating_mul(1_000));
    let show = json!({
        "modelfile": "", "parameters": "", "template": "",
        "details": {"parent_model": "", "format": "", "family": "", "families": null,
            "parameter_size": "", "quantization_level": ""},
        "model_info": info, "tensors": [], "capabilities": ["completion"],
        "modified_at": date(created),
    });
    RawValue::from_string(show.to_string()).ok()
}

struct Answer {
    lines: ResponseLines,
    reply: Reply,
    started: Instant,
    clock: Clock,
}

enum State {
    Reading(Box<Answer>),
    Ending(VecDeque<Bytes>),
    Over,
}

async fn next(state: State) -> Option<(Result<Bytes, EngineError>, State)> {
    match state {
        State::Reading(answer) => answer.next().await,
        State::Ending(lines) => give(lines),
        State::Over => None,
    }
}

fn give(mut lines: VecDeque<Bytes>) -> Option<(Result<Bytes, EngineError>, State)> {
    let line = lines.pop_front()?;
    Some((Ok(line), State::Ending(lines)))
}

impl Answer {
    async fn next(mut self: Box<Self>) -> Option<(Result<Bytes, EngineError>, State)> {
        let ending = loop {
            let line = match self.lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => break Ending::Cut,
                Err(error) => return Some((Err(error), State::Over)),
            };
            let data = match line.strip_prefix(b"data:") {
                Some(data) => data.trim_ascii(),
                // Some servers send an error as a bare line instead of an event.
                None if line.starts_with(b"{") => &line,
                // Comments and event names carry no data.
                None => continue,
            };
            if data == b"[DONE]" {
                break Ending::Done;
            }
            match self.reply.event(data, self.clock.now()) {
                Ok(Some(line)) => return Some((Ok(line), State::Reading(self))),
                Ok(None) => {}
                Err(error) => return Some((Err(error), State::Over)),
            }
        };
        let Self {
            lines,
            reply,
            started,
            clock,
        } = *self;
        if ending == Ending::Done {
            lines.finish().await;
        }
        match reply.end(ending, started.elapsed(), clock.now()) {
            Ok(last) => give(last.into()),
            Err(error) => Some((Err(error), State::Over)),
        }
    }
}
