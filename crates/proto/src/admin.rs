//! What an operator is told over `/api/admin`: never a prompt, an answer or a secret.

use serde::{Deserialize, Serialize};

use crate::{Account, EngineKind, JobId, ModelName, Op, Priority, Timestamp, WorkerId};

/// `GET /api/admin/overview`: what a relay is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Overview {
    /// The relay's version.
    pub version: String,
    /// The moment by the relay's clock.
    pub now: Timestamp,
    /// What waits.
    pub queue: QueueView,
    /// How many jobs failed that nobody has retried; counted up to 1,000.
    pub dead: u64,
    /// Who answers jobs: those that are here, and those that were within the last hour.
    pub workers: Vec<WorkerView>,
    /// The jobs that run, oldest first, at most 200.
    pub jobs: Vec<RunningJob>,
    /// The minutes of the last hour in which anything ended, oldest first; in
    /// `GET /api/admin/events` these are an event of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub minutes: Vec<MinuteView>,
}

/// How much waits and runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QueueView {
    /// Jobs that wait.
    pub queued: u64,
    /// Bytes of their requests.
    pub queued_bytes: u64,
    /// Jobs that run.
    pub leased: u64,
    /// How many wait with priority 1, 2, … 10.
    pub by_priority: Vec<u64>,
}

/// How a worker is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkerCarrier {
    /// A WebSocket.
    Websocket,
    /// Requests, held or not.
    Http,
    /// The requests of an older system.
    Legacy,
}

/// Somebody who answers jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkerView {
    /// Its name.
    pub name: WorkerId,
    /// The id of its key, if it showed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it is here now.
    pub online: bool,
    /// How it is connected; absent once it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<WorkerCarrier>,
    /// When it was heard last.
    pub last_seen: Timestamp,
    /// What runs its models, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineView>,
    /// Its models; none of a worker of an older system, which is taken to run any.
    pub models: Vec<ModelView>,
    /// How many jobs it runs at most; 0 while its owner paused it, absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// How many it runs.
    pub running: u32,
}

/// An engine as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EngineView {
    /// Which.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub kind: EngineKind,
    /// Its version.
    pub version: String,
    /// Whether it answers.
    pub up: bool,
}

/// A model of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelView {
    /// Its name.
    pub name: ModelName,
    /// Whether it is in memory.
    pub loaded: bool,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub account: Account,
    /// The name of the key that asked.
    pub who: String,
    /// What was asked.
    pub op: Op,
    /// Of which model.
    pub model: ModelName,
    /// Urgency.
    pub priority: Priority,
    /// How often it has been lent.
    pub attempt: u32,
    /// Who answers it; not known of a job that runs since before a restart of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// Since when; not known likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Lines of the answer so far: about one for each token.
    pub tokens: u64,
    /// How fast they come, to a tenth; absent until that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

/// What ended within one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MinuteView {
    /// When it began.
    pub at: Timestamp,
    /// Jobs that were answered.
    pub completed: u32,
    /// Jobs that were given up.
    pub failed: u32,
    /// Jobs that were withdrawn.
    pub cancelled: u32,
    /// Lines of their answers.
    pub tokens: u64,
    /// From acceptance to end, half of the answered jobs took at most so long; right to a
    /// sixteenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_ms: Option<u64>,
    /// And nineteen of twenty at most so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
}

/// `GET /api/admin/keys`: a key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyView {
    /// What it is found by.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Whose jobs it submits and reads.
    pub account: Account,
    /// What it may do: `enqueue`, `read`, `work`, `admin`.
    pub scopes: Vec<String>,
    /// Whose jobs it may lease; `all` is everybody's.
    pub serve: Vec<String>,
    /// The only models it may ask for, or its agent may be lent; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// The most urgent that its jobs may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<Priority>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// About when it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Its whole text; only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
}

/// `POST /api/admin/keys`: a key to be made.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What its owner calls it, 1 to 64 characters.
    pub name: String,
    /// Whose jobs it submits and reads, `default` when absent.
    #[serde(default)]
    pub account: Option<Account>,
    /// What it may do: `enqueue`, `read`, `work`, `admin`; at least one.
    pub scopes: Vec<String>,
    /// Whose jobs it may lease beside its own account's; `all` is everybody's.
    #[serde(default)]
    pub serve: Vec<String>,
    /// The only models it may ask for, or its agent may be lent; `*` and `?` stand for others.
    #[serde(default)]
    pub models: Vec<String>,
    /// The most urgent that its jobs may be; 1 is the highest.
    #[serde(default)]
    pub max_priority: Option<Priority>,
    /// Seconds until it ends by itself, at most 100 years.
    #[serde(default)]
    pub expires_in_s: Option<u64>,
}

/// What is shown once; `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_overview_matches_its_fixture() {
        let json = include_str!("../fixtures/admin/overview.json");
        let overview: Overview = serde_json::from_str(json).unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_value(&overview).unwrap(), json);
    }

    #[test]
    fn a_new_keys_text_is_never_printed() {
        assert_eq!(format!("{:?}", Secret("hearth_x".into())), "Secret(hidden)");
    }
}
