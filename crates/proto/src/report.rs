//! The report of a worker about its engine and models.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{ModelName, limits};

/// A worker's report about its engine; metadata routes are answered from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Kind of the engine.
    pub engine: EngineKind,
    /// Version of the engine, for example `0.33.0`; empty while it is unreachable.
    pub engine_version: String,
    /// Whether the engine answered the last probe. A worker whose engine is down leases nothing.
    pub engine_up: bool,
    /// Whether the worker's owner permits pulling, copying, deleting and creating models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub model_changes: bool,
    /// Models it can run; at most [`crate::limits::MODELS_MAX`] are read.
    #[serde(deserialize_with = "few")]
    pub models: Vec<ModelEntry>,
}

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ModelEntry>, D::Error> {
    let mut models = Vec::deserialize(from)?;
    models.truncate(limits::MODELS_MAX);
    Ok(models)
}

/// Kinds of engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// An Ollama server.
    Ollama,
    /// The model in the agent's own process.
    Builtin,
    /// Another server with an OpenAI-compatible API.
    OpenAi,
}

/// One model of an engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Name.
    pub name: ModelName,
    /// Whether it is loaded in memory.
    pub loaded: bool,
    /// The engine's own entry in `/api/tags`, passed on byte for byte.
    pub tag: Box<RawValue>,
}

/// Details about an engine, sent after its report in separate messages, so that the first message
/// of a connection stays small.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The engine's answer about one model.
    Show(ModelShow),
    /// The entries of the engine's `/api/ps`, byte for byte.
    Running(Vec<Box<RawValue>>),
}

/// The engine's own answer to `/api/show` for one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelShow {
    /// The model.
    pub model: ModelName,
    /// The answer, at most [`crate::limits::SHOW_MAX`] bytes.
    pub show: Box<RawValue>,
}
