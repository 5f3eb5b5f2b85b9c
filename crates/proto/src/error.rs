//! Error codes and the error body of the native API.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal;)*) => {
        /// A stable error code. Clients must switch on it, never on the message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(ts_rs::TS))]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $doc] #[serde(rename = $text)] $name,)*
            /// A code this version does not know yet.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// All codes, for the table in the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as sent on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "unknown" }
            }

            /// The meaning in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $doc.trim(),)*
                    Self::Unknown => "A code this version does not know yet.",
                }
            }

            /// The HTTP status that is sent with it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* Self::Unknown => 500 }
            }
        }
    };
}

codes! {
    /// The request is invalid for this route; the message names the wrong field.
    BadRequest = "bad_request", 400;
    /// The body is not valid JSON.
    MalformedJson = "malformed_json", 400;
    /// The URL contains a key or token, which logs would record; send it in a header.
    TokenInUrl = "token_in_url", 400;
    /// No key or token was sent, or it is unknown or revoked.
    Unauthorized = "unauthorized", 401;
    /// The key has expired; ask the operator for a new one.
    KeyExpired = "key_expired", 401;
    /// The token has expired; renew it.
    TokenExpired = "token_expired", 401;
    /// The refresh token was used before, so the session has ended; log in again.
    TokenReused = "token_reused", 401;
    /// The key lacks the required scope, or this is not allowed here; the message says which.
    Forbidden = "forbidden", 403;
    /// The key does not permit this model.
    ModelForbidden = "model_forbidden", 403;
    /// The key does not permit a priority this high.
    PriorityForbidden = "priority_forbidden", 403;
    /// The browser origin is not on the list of allowed origins.
    ForbiddenOrigin = "forbidden_origin", 403;
    /// The `Host` header names something other than this listener.
    ForbiddenHost = "forbidden_host", 403;
    /// No such job, file or batch exists, or it belongs to another account.
    UnknownJob = "unknown_job", 404;
    /// No valid key has this id.
    UnknownKey = "unknown_key", 404;
    /// No worker that is online, or was recently, has this model.
    UnknownModel = "unknown_model", 404;
    /// The route does not exist.
    UnknownRoute = "unknown_route", 404;
    /// The route does not support this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The job or batch has ended and can no longer change.
    JobEnded = "job_ended", 409;
    /// Another worker holds the job now; stop working on it.
    StaleLease = "stale_lease", 409;
    /// Lines must arrive in order; continue with the number given in the response.
    ChunkGap = "chunk_gap", 409;
    /// The prompt and the answer were erased after their retention time; use a new idempotency key.
    Erased = "erased", 410;
    /// The job has no answer yet; repeat the request later, or wait for the job's end.
    JobUnfinished = "job_unfinished", 409;
    /// The request of the job was erased, so the job cannot be retried; submit it again.
    RequestErased = "request_erased", 410;
    /// The request body arrived too slowly.
    TooSlow = "too_slow", 408;
    /// The idempotency key was already used for another request; use a new one.
    IdempotencyConflict = "idempotency_conflict", 422;
    /// A request, a line or an answer exceeds a size limit; the message says which.
    TooLarge = "too_large", 413;
    /// Compressed requests are not supported; send the body uncompressed.
    UnsupportedEncoding = "unsupported_encoding", 415;
    /// Too many connections are open with your key or from your address; close some, or reuse them.
    TooManyConnections = "too_many_connections", 429;
    /// Too many requests; wait as long as `Retry-After` says.
    RateLimited = "rate_limited", 429;
    /// This version of the protocol is not supported.
    UnsupportedVersion = "unsupported_version", 400;
    /// The engine refused the request; the message says why.
    EngineRefused = "engine_refused", 502;
    /// The engine failed before or during its answer.
    EngineFailed = "engine_failed", 502;
    /// The engine cannot be reached, or is too busy.
    EngineUnavailable = "engine_unavailable", 503;
    /// The queue is full; try again later.
    QueueFull = "queue_full", 503;
    /// The relay is overloaded, or the status hub has no free connection; try again later.
    Busy = "busy", 503;
    /// The account has reached its limit of waiting jobs, stored data, files or batches.
    AccountFull = "account_full", 429;
    /// The relay's disk is full: running jobs continue, new ones are refused.
    DiskFull = "disk_full", 503;
    /// No worker that could answer is online; start an agent.
    NoWorker = "no_worker", 503;
    /// The connection to the worker was lost, and the stream cannot be continued.
    WorkerLost = "worker_lost", 502;
    /// The job was tried several times and never finished; submit it again.
    TooManyAttempts = "too_many_attempts", 502;
    /// The relay or the agent is shutting down; send the request again in a moment.
    Draining = "draining", 503;
    /// The store cannot be read or written.
    StoreUnavailable = "store_unavailable", 503;
    /// The deadline or the limit for waiting or running passed before the job or command ended.
    DeadlineExceeded = "deadline_exceeded", 504;
    /// It is unknown whether the request took effect; the message says what to do next.
    OutcomeUnknown = "outcome_unknown", 504;
    /// The requester, an administrator or the owner of the agent's machine cancelled the job.
    Cancelled = "cancelled", 499;
    /// An internal error of Hearth; its log has the reason.
    Internal = "internal", 500;
    /// The hub does not know this command.
    UnknownCommand = "unknown_command", 400;
    /// The command has nothing to act on.
    NothingToDo = "nothing_to_do", 409;
    /// Another publisher holds this field of the status; `takeover` replaces it.
    FieldTaken = "field_taken", 409;
    /// The owner must approve first; nothing was done yet, and the outcome follows.
    ApprovalRequired = "approval_required", 401;
    /// The owner refused, or did not answer in time.
    ApprovalDenied = "approval_denied", 403;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content of every native error body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct ErrorDetail {
    /// Stable code.
    pub code: ErrorCode,
    /// Message for humans: what happened, where, and what to do next.
    pub message: String,
    /// The field of the request that is wrong, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub param: Option<String>,
}

impl ErrorDetail {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
        }
    }
}

/// Body of every native error: `{"error":{"code":"…","message":"…"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

impl ErrorBody {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error: ErrorDetail::new(code, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_it_is_read() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }

    #[test]
    fn a_code_from_the_future_is_a_value_not_a_failure() {
        let code = serde_json::from_str::<ErrorCode>("\"not_invented_yet\"").unwrap();
        assert_eq!(code, ErrorCode::Unknown);
    }
}
