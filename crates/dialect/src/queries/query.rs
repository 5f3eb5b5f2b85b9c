//! Queries and log entries in the format of the query service.

use bytes::Bytes;
use proto::{JobState, ModelName, Timestamp};
use serde::{Deserialize, Serialize, Serializer};

use super::Text;
use crate::ollama::json;

/// Status of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waiting.
    Queued,
    /// Claimed by a worker.
    InProgress,
    /// Answered.
    Done,
    /// Failed or cancelled.
    Failed,
}

impl Status {
    /// Parses a status name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "queued" => Some(Self::Queued),
            "in_progress" => Some(Self::InProgress),
            "done" => Some(Self::Done),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }

    /// Returns the status for a job's state.
    #[must_use]
    pub const fn of(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Leased => Self::InProgress,
            JobState::Completed => Self::Done,
            JobState::Failed | JobState::Cancelled => Self::Failed,
        }
    }

    /// Returns the job states that have this status.
    #[must_use]
    pub const fn states(self) -> &'static [JobState] {
        match self {
            Self::Queued => &[JobState::Queued],
            Self::InProgress => &[JobState::Leased],
            Self::Done => &[JobState::Completed],
            Self::Failed => &[JobState::Failed, JobState::Cancelled],
        }
    }
}

/// A query, with its fields in the original order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's own")]
pub struct Query {
    pub id: u64,
    pub project: i64,
    pub project_name: String,
    pub user: Option<u64>,
    pub user_name: String,
    pub query_text: Text,
    pub answer_text: Text,
    pub status: Status,
    #[serde(serialize_with = "time")]
    pub query_created: Timestamp,
    #[serde(serialize_with = "time_if_any")]
    pub query_started: Option<Timestamp>,
    #[serde(serialize_with = "time_if_any")]
    pub query_finished: Option<Timestamp>,
    pub logs_count: u64,
    /// Log entries; only present when a single query is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<Vec<Log>>,
}

/// An entry of a query's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the wire's own")]
pub struct Log {
    pub id: u64,
    pub project: i64,
    pub query: u64,
    pub log_data: Text,
    #[serde(serialize_with = "time")]
    pub create_dtime: Timestamp,
}

/// A page of queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Total number of queries.
    pub count: u64,
    /// URL of the next page.
    pub next: Option<String>,
    /// URL of the previous page.
    pub previous: Option<String>,
    /// Queries of this page.
    pub results: Vec<Query>,
}

/// Serializes one query.
#[must_use]
pub fn query(query: &Query) -> Bytes {
    json(query)
}

/// Serializes several queries without paging.
#[must_use]
pub fn queries(queries: &[Query]) -> Bytes {
    json(&queries)
}

/// Serializes a page of queries.
#[must_use]
pub fn page(page: &Page) -> Bytes {
    json(page)
}

/// Serializes one log entry.
#[must_use]
pub fn log(log: &Log) -> Bytes {
    json(log)
}

/// Serializes all log entries of a query.
#[must_use]
pub fn logs(logs: &[Log]) -> Bytes {
    json(&logs)
}

#[derive(Serialize, Deserialize)]
struct Native {
    model: ModelName,
    messages: Vec<Message>,
    stream: bool,
}

#[derive(Serialize, Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// Returns the text of a query as a native `chat` request.
#[must_use]
pub fn native(text: &str, model: &ModelName) -> Bytes {
    json(&Native {
        model: model.clone(),
        messages: vec![Message {
            role: "user".into(),
            content: text.to_owned(),
        }],
        stream: true,
    })
}

/// Returns the text from a request written by [`native`]; empty for anything else.
#[must_use]
pub fn text_of(native: &[u8]) -> String {
    let read: Result<Native, _> = serde_json::from_slice(native);
    let message = read.ok().and_then(|mut native| native.messages.pop());
    message.map(|message| message.content).unwrap_or_default()
}

/// Formats RFC 3339 in UTC with microseconds, as the clients parse it.
pub(super) fn moment(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

fn time<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&moment(*at))
}

fn time_if_any<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    at.map(moment).serialize(to)
}
