use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{ModelName, limits};

/// What a worker tells the relay about its engine; metadata routes are answered from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Which kind of engine answers.
    pub engine: EngineKind,
    /// The engine's own version, for example `0.33.0`; empty while it is unreachable.
    pub engine_version: String,
    /// Whether the engine answered its last probe. A worker whose engine is down leases nothing.
    pub engine_up: bool,
    /// Whether the worker's owner allows those who may to pull, copy, delete and create models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub model_changes: bool,
    /// What it can run; no more than [`crate::limits::MODELS_MAX`] are read.
    #[serde(deserialize_with = "few")]
    pub models: Vec<ModelEntry>,
}

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ModelEntry>, D::Error> {
    let mut models = Vec::deserialize(from)?;
    models.truncate(limits::MODELS_MAX);
    Ok(models)
}

/// The kinds of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// An Ollama server.
    Ollama,
    /// The model in the agent's own process.
    Builtin,
    /// Another server that speaks OpenAI's API.
    OpenAi,
}

/// One model of an engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Its name.
    pub name: ModelName,
    /// Whether it is in memory now.
    pub loaded: bool,
    /// The engine's own entry of `/api/tags`, passed on byte for byte.
    pub tag: Box<RawValue>,
}

/// What is told of an engine beyond its report: after it, in messages of their own, so that the
/// first word of a connection stays small.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// What the engine says of one model.
    Show(ModelShow),
    /// The entries of its `/api/ps`, byte for byte.
    Running(Vec<Box<RawValue>>),
}

/// The engine's own answer to `/api/show` for one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelShow {
    /// The model.
    pub model: ModelName,
    /// The answer, at most [`crate::limits::SHOW_MAX`] bytes of it.
    pub show: Box<RawValue>,
}
