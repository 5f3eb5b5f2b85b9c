use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal;)*) => {
        /// A stable word for what went wrong. Clients switch on it, never on prose.
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
            /// Every code, for the table in the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "unknown" }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $doc.trim(),)*
                    Self::Unknown => "A code this version does not know yet.",
                }
            }

            /// The HTTP status that carries it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* Self::Unknown => 500 }
            }
        }
    };
}

codes! {
    /// The request is not what the route takes; the message names the field.
    BadRequest = "bad_request", 400;
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400;
    /// A token stood in the URL, where logs would keep it.
    TokenInUrl = "token_in_url", 400;
    /// No key, or one that is unknown, revoked or expired.
    Unauthorized = "unauthorized", 401;
    /// The key was good until its time had passed.
    KeyExpired = "key_expired", 401;
    /// The token was good until its time had passed; renew it.
    TokenExpired = "token_expired", 401;
    /// The token that renews was shown before; the session has ended, log in again.
    TokenReused = "token_reused", 401;
    /// The key is good but lacks the scope.
    Forbidden = "forbidden", 403;
    /// The key may not ask for this model.
    ModelForbidden = "model_forbidden", 403;
    /// The key may not ask for so urgent a job.
    PriorityForbidden = "priority_forbidden", 403;
    /// The browser origin is not on the list.
    ForbiddenOrigin = "forbidden_origin", 403;
    /// The `Host` header names something other than this listener.
    ForbiddenHost = "forbidden_host", 403;
    /// No such job, or not yours: the two are never told apart.
    UnknownJob = "unknown_job", 404;
    /// No key that is in force has this id.
    UnknownKey = "unknown_key", 404;
    /// No online worker has the model, and none that is away is known to.
    UnknownModel = "unknown_model", 404;
    /// No such route.
    UnknownRoute = "unknown_route", 404;
    /// The route exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The job has ended; nothing about it can change.
    JobEnded = "job_ended", 409;
    /// Somebody else holds the job now; drop the work.
    StaleLease = "stale_lease", 409;
    /// Chunks must come in order; send from the number in the answer.
    ChunkGap = "chunk_gap", 409;
    /// Prompt and answer were erased, because the answer was fetched a while ago.
    Erased = "erased", 410;
    /// The job has no answer yet; ask again, or wait for its end.
    JobUnfinished = "job_unfinished", 409;
    /// The request of the job was erased, so that it cannot be made anew; submit it again.
    RequestErased = "request_erased", 410;
    /// The body came too slowly.
    TooSlow = "too_slow", 408;
    /// The idempotency key stands for another request already.
    IdempotencyConflict = "idempotency_conflict", 422;
    /// The body is over the limit.
    TooLarge = "too_large", 413;
    /// Requests must not be compressed.
    UnsupportedEncoding = "unsupported_encoding", 415;
    /// Too many connections are open with your key; close some, or use them again.
    TooManyConnections = "too_many_connections", 429;
    /// Too many requests from you.
    RateLimited = "rate_limited", 429;
    /// This version of the protocol is not spoken here.
    UnsupportedVersion = "unsupported_version", 400;
    /// The engine refused the request.
    EngineRefused = "engine_refused", 502;
    /// The engine broke off in the middle of an answer.
    EngineFailed = "engine_failed", 502;
    /// The engine cannot be reached.
    EngineUnavailable = "engine_unavailable", 503;
    /// The queue is full.
    QueueFull = "queue_full", 503;
    /// The relay has too much to do at once.
    Busy = "busy", 503;
    /// Your account's share is full: jobs that wait, what is kept of those that ended, or files.
    AccountFull = "account_full", 429;
    /// The relay's disk is full: what is running goes on, and nothing new is taken.
    DiskFull = "disk_full", 503;
    /// No worker is online.
    NoWorker = "no_worker", 503;
    /// The worker vanished and the stream cannot be continued.
    WorkerLost = "worker_lost", 502;
    /// It was tried too often.
    TooManyAttempts = "too_many_attempts", 502;
    /// The relay is shutting down.
    Draining = "draining", 503;
    /// The store cannot be read or written.
    StoreUnavailable = "store_unavailable", 503;
    /// The deadline passed first.
    DeadlineExceeded = "deadline_exceeded", 504;
    /// The requester withdrew it.
    Cancelled = "cancelled", 499;
    /// A fault of ours.
    Internal = "internal", 500;
    /// A command the hub does not know.
    UnknownCommand = "unknown_command", 400;
    /// Nobody is there to do what was asked.
    NothingToDo = "nothing_to_do", 409;
    /// Another publisher holds this field of the status; `takeover` takes it.
    FieldTaken = "field_taken", 409;
    /// The owner is asked first; nothing was done yet, and the outcome follows.
    ApprovalRequired = "approval_required", 401;
    /// The owner said no, or did not answer in time.
    ApprovalDenied = "approval_denied", 403;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The inside of every native error body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorDetail {
    /// Stable code.
    pub code: ErrorCode,
    /// What, where and what to do next, for a person.
    pub message: String,
    /// The field of the request that is wrong, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

impl ErrorDetail {
    /// A code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
        }
    }
}

/// Every native error: `{"error":{"code":"…","message":"…"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

impl ErrorBody {
    /// Wraps a code and a sentence.
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
