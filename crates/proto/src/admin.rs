//! Types of the operators' API, `/api/admin`. They contain no prompt, answer or secret.

use serde::{Deserialize, Serialize};

use crate::{Account, EngineKind, JobId, ModelName, Op, Priority, Secret, Timestamp, WorkerId};

/// `GET /api/admin/overview`: the state of a relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Overview {
    /// Version of the relay.
    pub version: String,
    /// Current time by the relay's clock.
    #[cfg_attr(test, ts(type = "number"))]
    pub now: Timestamp,
    /// The waiting jobs.
    pub queue: QueueView,
    /// Number of failed jobs that were not retried; counted up to 1,000.
    pub dead: u64,
    /// The workers that are online, or were within the last hour.
    pub workers: Vec<WorkerView>,
    /// The running jobs, oldest first, at most 200.
    pub jobs: Vec<RunningJob>,
    /// The minutes of the last hour in which a job ended, oldest first. `GET /api/admin/events`
    /// sends them as a separate event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<MinuteView>>"))]
    pub minutes: Vec<MinuteView>,
}

/// Numbers of waiting and running jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct QueueView {
    /// Number of waiting jobs.
    pub queued: u64,
    /// Size of their requests in bytes.
    pub queued_bytes: u64,
    /// Number of running jobs.
    pub leased: u64,
    /// Number of waiting jobs with priority 1, 2, … 10.
    pub by_priority: Vec<u64>,
}

/// Carrier of a worker's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum WorkerCarrier {
    /// WebSocket of an agent, or of a desktop of the tunnel service.
    Websocket,
    /// HTTP requests of Hearth's own protocol, held open or not.
    LongPoll,
    /// HTTP requests of a worker of an older system.
    Legacy,
}

/// A worker, which answers jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct WorkerView {
    /// Name.
    #[cfg_attr(test, ts(type = "string"))]
    pub name: WorkerId,
    /// Identifier of its key, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub key: Option<String>,
    /// Whether it is connected now.
    pub online: bool,
    /// Carrier of its connection; absent while it is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub carrier: Option<WorkerCarrier>,
    /// Time of its last message.
    #[cfg_attr(test, ts(type = "number"))]
    pub last_seen: Timestamp,
    /// Its engine, if reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub engine: Option<EngineView>,
    /// Its models; empty for a worker of an older protocol, which is assumed to run any.
    pub models: Vec<ModelView>,
    /// Maximum number of concurrent jobs; 0 while its owner paused it, absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub slots: Option<u32>,
    /// Number of jobs it runs.
    pub running: u32,
}

/// An engine as reported by its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct EngineView {
    /// Kind.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[cfg_attr(test, ts(type = "string"))]
    pub kind: EngineKind,
    /// Version.
    pub version: String,
    /// Whether the engine responds.
    pub up: bool,
}

/// A model of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ModelView {
    /// Name.
    #[cfg_attr(test, ts(type = "string"))]
    pub name: ModelName,
    /// Whether it is loaded in memory.
    pub loaded: bool,
}

/// A running job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct RunningJob {
    /// Identifier.
    #[cfg_attr(test, ts(type = "string"))]
    pub id: JobId,
    /// Account that owns the job.
    #[cfg_attr(test, ts(type = "string"))]
    pub account: Account,
    /// Name of the key that submitted it.
    pub who: String,
    /// Operation.
    pub op: Op,
    /// Model.
    #[cfg_attr(test, ts(type = "string"))]
    pub model: ModelName,
    /// Priority.
    #[cfg_attr(test, ts(type = "number"))]
    pub priority: Priority,
    /// Number of times it has been leased.
    pub attempt: u32,
    /// Worker that runs it; unknown if it has been running since before a restart of the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub worker: Option<WorkerId>,
    /// Start of the lease; unknown in the same case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub since: Option<Timestamp>,
    /// Number of lines of the answer so far: about one per token.
    pub tokens: u64,
    /// Tokens per second, rounded to a tenth; absent until it can be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub tokens_per_second: Option<f64>,
}

/// The jobs that ended within one minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct MinuteView {
    /// Start of the minute.
    #[cfg_attr(test, ts(type = "number"))]
    pub at: Timestamp,
    /// Number of completed jobs.
    pub completed: u32,
    /// Number of failed jobs.
    pub failed: u32,
    /// Number of cancelled jobs.
    pub cancelled: u32,
    /// Number of lines of their answers.
    pub tokens: u64,
    /// Median time in milliseconds from acceptance to end of the completed jobs, exact to a
    /// sixteenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub median_ms: Option<u64>,
    /// 95th percentile of that time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub slow_ms: Option<u64>,
}

/// `GET /api/admin/keys`: a key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct KeyView {
    /// Identifier.
    pub id: String,
    /// Name given by its owner.
    pub name: String,
    /// Account for which it submits and reads jobs.
    #[cfg_attr(test, ts(type = "string"))]
    pub account: Account,
    /// Scopes: `enqueue`, `read`, `work`, `admin`.
    pub scopes: Vec<String>,
    /// Accounts whose jobs it may lease; `all` stands for every account.
    pub serve: Vec<String>,
    /// Patterns of the models it may request and its agents may lease; empty for all models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<String>>"))]
    pub models: Vec<String>,
    /// Highest priority of its jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub max_priority: Option<Priority>,
    /// Time of creation.
    #[cfg_attr(test, ts(type = "number"))]
    pub created_at: Timestamp,
    /// Time of expiry, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub expires_at: Option<Timestamp>,
    /// Approximate time of its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub last_used_at: Option<Timestamp>,
    /// Time of revocation, if revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub revoked_at: Option<Timestamp>,
    /// The complete key; only in the response to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub key: Option<Secret>,
}

/// `POST /api/admin/keys`: a key to be created.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Name, 1 to 64 characters.
    pub name: String,
    /// Account for which it submits and reads jobs; `default` when absent.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, type = "string"))]
    pub account: Option<Account>,
    /// Scopes: `enqueue`, `read`, `work`, `admin`; at least one.
    pub scopes: Vec<String>,
    /// Accounts whose jobs it may lease besides its own; `all` stands for every account.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<String>>"))]
    pub serve: Vec<String>,
    /// Patterns of the models it may request and its agents may lease; `*` and `?` are wild cards.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, as = "Option<Vec<String>>"))]
    pub models: Vec<String>,
    /// Highest priority of its jobs; 1 is the highest of all.
    #[serde(default)]
    #[cfg_attr(test, ts(optional, type = "number"))]
    pub max_priority: Option<Priority>,
    /// Seconds until it expires, at most 100 years.
    #[serde(default)]
    #[cfg_attr(test, ts(optional))]
    pub expires_in_s: Option<u64>,
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
        let priorities = overview.queue.by_priority.len();
        assert_eq!(priorities, 10, "one number for each priority");
    }
}
