//! The contract between a worker and the relay: `hearth.worker.v1`.
//!
//! On the WebSocket carrier (`GET /api/worker/v1`, subprotocol [`SUBPROTOCOL`]) control messages
//! are JSON text frames, and everything large is a binary frame ([`Frame`]):
//!
//! ```text
//! worker                         relay
//! Hello{report, held}     ->
//!                         <-     Welcome, then Resume or Closed for each held lease
//! Detail{show | running}  ->                     data for the relay's metadata routes
//! Capacity{slots}         ->                     number of concurrent jobs; 0 while paused
//!                                                (a few that only load a model run besides)
//!                         <-     Lease, Frame::Body …    at most `slots` not ended at a time
//! Frame::Line …           ->                     numbered from 1; out of order is refused
//!                         <-     Stored{n}       lines up to n need not be kept any more
//!                         <-     Cancel          the requester is gone: stop, and send Nack(Never)
//! End | Nack              ->                     frees its slot; repeated after a reconnect
//!                         <-     Closed          the end is on disk (or the lease was stale)
//! ```
//!
//! A relay that shuts down sends `Drain`, leases nothing more, and closes with [`CLOSE_DRAIN`] when
//! the worker's jobs have ended or after 25 s. The worker reconnects after a random delay, with the
//! leases it still holds.
//!
//! On the HTTP carriers the same messages travel as bodies: see [`PollRequest`] and [`PollAnswer`].
//! A poll without a result is answered with 204; a relay that shuts down answers polls at once,
//! with the header [`DRAIN_HEADER`].

mod frame;
mod http;

use std::time::Duration;

use serde::{Deserialize, Serialize, de};
use serde_json::value::RawValue;

pub use self::{
    frame::{Frame, FrameError, FrameKind},
    http::{
        DetailsAnswer, DetailsRequest, EndRequest, LeaseAnswer, NackRequest, PollAnswer,
        PollRequest, PolledLease,
    },
};
use crate::{
    Detail, End, ErrorCode, LeaseToken, ModelName, Op, Timestamp, WorkerId, WorkerReport, limits,
};

/// The WebSocket subprotocol of this version.
pub const SUBPROTOCOL: &str = "hearth.worker.v1";

/// Close code: the version is not supported.
pub const CLOSE_VERSION: u16 = 4010;
/// Close code: the key was refused or revoked.
pub const CLOSE_UNAUTHORIZED: u16 = 4009;
/// Close code: a message violated the protocol, or the worker has too many connections; the reason
/// says what is wrong.
pub const CLOSE_PROTOCOL: u16 = 4007;
/// Close code: the token that opened the connection has expired; reconnect with a new one.
pub const CLOSE_EXPIRED: u16 = 4011;
/// Close code: the relay shuts down and will be back.
pub const CLOSE_DRAIN: u16 = 1012;

/// Header of a poll's answer: the relay shuts down and leases nothing more. Poll again after its
/// restart; results of running jobs are still accepted.
pub const DRAIN_HEADER: &str = "x-hearth-drain";

/// Treatment of a job that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Queue it again at once without counting the attempt (worker paused or draining).
    Now,
    /// Queue it again after this many milliseconds; the attempt counts.
    AfterMs(u64),
    /// Do not retry: the job ends as cancelled if its requester cancelled it, otherwise as failed.
    Never,
}

impl Retry {
    /// Returns the retry of a job that failed in this attempt, with full jitter over 2 s, 4 s, 8 s …
    /// up to 300 s; `random` is between 0 and 1.
    #[must_use]
    pub fn after_failure(attempt: u32, random: f64) -> Self {
        let ceiling = 2_u64.saturating_pow(attempt.max(1)).min(300);
        let wait = Duration::from_secs(ceiling).mul_f64(random.clamp(0.0, 1.0));
        Self::AfterMs(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Beginnings of messages that Ollama sends with status 500 although the request is wrong.
const FAULTS_OF_REQUESTS: [&str; 4] = [
    "option \"",
    "invalid format:",
    "template:",
    "image input is not supported",
];

/// Whether a request that an engine refused with this error may succeed later, or at another
/// engine. A refusal is final, except a failure of the engine itself, which it reports with a status
/// of 500 or above; 501 means that it does not support the request.
#[must_use]
pub fn may_succeed_later(status: u16, message: &str) -> bool {
    let mut faults = FAULTS_OF_REQUESTS.iter();
    let is_requests = faults.any(|fault| message.starts_with(fault));
    status >= 500 && status != 501 && !is_requests
}

/// A message from a worker to the relay, in JSON.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerMessage {
    /// The first message of a connection.
    Hello {
        /// Name of the worker.
        worker: WorkerId,
        /// Version of Hearth on the worker's side.
        version: String,
        /// Its engine and models.
        report: WorkerReport,
        /// Leases it still holds from an earlier connection.
        #[serde(default)]
        held: Vec<LeaseToken>,
    },
    /// The engine or its models changed.
    Report {
        /// The new report.
        report: WorkerReport,
    },
    /// Details about the engine beyond its report.
    Detail {
        /// The detail.
        detail: Detail,
    },
    /// Sets the number of jobs this connection may run concurrently. A job whose end was sent no
    /// longer runs. 0 stops leasing.
    Capacity {
        /// Number of slots, at most 64.
        slots: u32,
    },
    /// Renews leases of jobs that produce no output.
    Extend {
        /// The leases to renew.
        tokens: Vec<LeaseToken>,
    },
    /// A job ended; all its lines were sent before.
    End {
        /// The lease.
        token: LeaseToken,
        /// Number of lines that were sent.
        lines: u64,
        /// Outcome of the job.
        end: End,
    },
    /// A job is given back.
    Nack {
        /// The lease.
        token: LeaseToken,
        /// Treatment of the job.
        retry: Retry,
        /// Error code of the failure.
        code: ErrorCode,
        /// Error message for humans.
        message: String,
        /// HTTP status of the engine, if the engine refused the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine_status: Option<u16>,
    },
    /// A message of a later version.
    Unknown,
}

/// Reads a message in two steps: serde buffers a tagged enum while it looks for the tag, and a
/// report, whose entries are kept byte for byte, cannot be read from that buffer.
impl<'de> Deserialize<'de> for WorkerMessage {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Hello {
            worker: WorkerId,
            version: String,
            report: WorkerReport,
            #[serde(default)]
            held: Vec<LeaseToken>,
        }
        #[derive(Deserialize)]
        struct Report {
            report: WorkerReport,
        }
        #[derive(Deserialize)]
        struct More {
            detail: Detail,
        }
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Message {
            Hello,
            Report,
            Detail,
            Capacity {
                slots: u32,
            },
            Extend {
                tokens: Vec<LeaseToken>,
            },
            End {
                token: LeaseToken,
                lines: u64,
                end: End,
            },
            Nack {
                token: LeaseToken,
                retry: Retry,
                code: ErrorCode,
                message: String,
                #[serde(default)]
                engine_status: Option<u16>,
            },
            #[serde(other)]
            Unknown,
        }
        let json = Box::<RawValue>::deserialize(from)?;
        let read = || -> serde_json::Result<Self> {
            Ok(match serde_json::from_str(json.get())? {
                Message::Hello => {
                    let hello: Hello = serde_json::from_str(json.get())?;
                    Self::Hello {
                        worker: hello.worker,
                        version: hello.version,
                        report: hello.report,
                        held: hello.held,
                    }
                }
                Message::Report => {
                    let Report { report } = serde_json::from_str(json.get())?;
                    Self::Report { report }
                }
                Message::Detail => {
                    let More { detail } = serde_json::from_str(json.get())?;
                    Self::Detail { detail }
                }
                Message::Capacity { slots } => Self::Capacity { slots },
                Message::Extend { tokens } => Self::Extend { tokens },
                Message::End { token, lines, end } => Self::End { token, lines, end },
                Message::Nack {
                    token,
                    retry,
                    code,
                    message,
                    engine_status,
                } => Self::Nack {
                    token,
                    retry,
                    code,
                    message,
                    engine_status,
                },
                Message::Unknown => Self::Unknown,
            })
        };
        read().map_err(de::Error::custom)
    }
}

/// A message from the relay to a worker, in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RelayMessage {
    /// The answer to `Hello`.
    Welcome {
        /// Version of Hearth on the relay's side.
        version: String,
        /// Length of a lease, in milliseconds.
        lease_ms: u64,
        /// Interval of renewals, in milliseconds.
        heartbeat_ms: u64,
    },
    /// A job for this worker. `body_len` bytes follow as [`Frame::body`] parts with this token.
    Lease(LeaseHead),
    /// A held lease is still valid; lines up to `stored` need not be sent again.
    Resume {
        /// The lease.
        token: LeaseToken,
        /// Number of the last stored line, 0 if none.
        stored: u64,
    },
    /// Lines up to `n` are stored.
    Stored {
        /// The lease.
        token: LeaseToken,
        /// Number of the last stored line.
        n: u64,
    },
    /// The requester cancelled the job: stop the engine and give the job back.
    Cancel {
        /// The lease.
        token: LeaseToken,
    },
    /// The lease is over: its end is on disk, or it was already stale.
    Closed {
        /// The lease.
        token: LeaseToken,
        /// `None` if the end was accepted, otherwise why not (`stale_lease`, `unknown_job`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
    },
    /// The relay shuts down and leases nothing more.
    Drain,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// Number of jobs running at one worker; both sides of a link count them in the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running {
    ordinary: usize,
    urgent: usize,
}

impl Running {
    /// Number of slots they take. Urgent jobs take none, unless there are more than
    /// [`limits::URGENT_MAX`] of them.
    #[must_use]
    pub const fn slots(self) -> usize {
        self.ordinary + self.urgent.saturating_sub(limits::URGENT_MAX)
    }

    /// Number of further urgent jobs that would take no slot.
    #[must_use]
    pub const fn room_beside(self) -> usize {
        limits::URGENT_MAX.saturating_sub(self.urgent)
    }

    /// Number of jobs.
    #[must_use]
    pub const fn count(self) -> usize {
        self.ordinary + self.urgent
    }
}

/// Counts jobs from whether each of them is urgent.
impl FromIterator<bool> for Running {
    fn from_iter<T: IntoIterator<Item = bool>>(jobs: T) -> Self {
        jobs.into_iter()
            .fold(Self::default(), |mut running, is_urgent| {
                if is_urgent {
                    running.urgent += 1;
                } else {
                    running.ordinary += 1;
                }
                running
            })
    }
}

/// A leased job, without its body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseHead {
    /// Credential for everything about this lease.
    pub token: LeaseToken,
    /// Operation.
    pub op: Op,
    /// Model.
    pub model: ModelName,
    /// Name of the submitting key, shown to the worker's owner.
    pub who: String,
    /// Time by the relay's clock after which the answer is no longer wanted. For workers that do
    /// not know `remaining_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Milliseconds until the deadline when this was sent, because the clocks of two machines
    /// differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// Size of the body in bytes.
    pub body_len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: LeaseToken = LeaseToken {
        job: crate::JobId([0xcd; 16]),
        attempt: 3,
    };

    #[test]
    fn what_waits_for_no_slot_takes_one_only_where_there_are_too_many() {
        let of = |ordinary: usize, urgent: usize| -> Running {
            let jobs = [vec![false; ordinary], vec![true; urgent]].concat();
            jobs.into_iter().collect()
        };
        let seen = |running: Running| (running.slots(), running.room_beside(), running.count());
        assert_eq!(seen(of(2, 0)), (2, limits::URGENT_MAX, 2));
        assert_eq!(
            seen(of(2, limits::URGENT_MAX)),
            (2, 0, limits::URGENT_MAX + 2)
        );
        assert_eq!(
            seen(of(0, limits::URGENT_MAX + 1)),
            (1, 0, limits::URGENT_MAX + 1)
        );
    }

    #[test]
    fn the_wait_before_another_try_grows_to_five_minutes() {
        let wait = |attempt| match Retry::after_failure(attempt, 1.0) {
            Retry::AfterMs(wait) => wait / 1000,
            Retry::Now | Retry::Never => 0,
        };
        let waits: Vec<u64> = (1..=10).map(wait).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Retry::after_failure(u32::MAX, 0.0), Retry::AfterMs(0));
    }

    #[test]
    fn a_report_keeps_its_tags_byte_for_byte() {
        let hello = r#"{"type":"hello","worker":"w","version":"1","report":{"engine":"ollama","engine_version":"0.12.0","engine_up":true,"models":[{"name":"m","loaded":false,"tag":{"name":"m",  "size":1.50}}]},"held":[]}"#;
        let read: WorkerMessage = serde_json::from_str(hello).unwrap();
        assert!(matches!(read, WorkerMessage::Hello { .. }));
        assert_eq!(serde_json::to_string(&read).unwrap(), hello);
        let report = hello.replace("hello", "report");
        let read: WorkerMessage = serde_json::from_str(&report).unwrap();
        assert!(matches!(read, WorkerMessage::Report { .. }));
    }

    #[test]
    fn details_keep_their_bytes_on_both_carriers() {
        let show = r#"{"type":"detail","detail":{"show":{"model":"m","show":{"a":  0.00001}}}}"#;
        let running = r#"{"type":"detail","detail":{"running":[{"name":"m",  "size":1.50}]}}"#;
        for message in [show, running] {
            let read: WorkerMessage = serde_json::from_str(message).unwrap();
            assert!(matches!(read, WorkerMessage::Detail { .. }));
            assert_eq!(serde_json::to_string(&read).unwrap(), message);
        }
        let posted = r#"{"worker":"w","details":[{"running":[{"a":  1}]},{"show":{"model":"m","show":{}}}]}"#;
        let read: DetailsRequest = serde_json::from_str(posted).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), posted);
    }

    #[test]
    fn messages_of_later_versions_are_values() {
        let later = r#"{"type":"sing","song":"x"}"#;
        assert!(matches!(
            serde_json::from_str(later),
            Ok(WorkerMessage::Unknown)
        ));
        assert!(matches!(
            serde_json::from_str(later),
            Ok(RelayMessage::Unknown)
        ));
    }

    #[test]
    fn a_lease_is_written_as_documented() {
        let lease = RelayMessage::Lease(LeaseHead {
            token: TOKEN,
            op: Op::Chat,
            model: ModelName::new("m").unwrap(),
            who: "laptop".into(),
            deadline: None,
            remaining_ms: None,
            body_len: 12,
        });
        let json = serde_json::to_string(&lease).unwrap();
        assert_eq!(
            json,
            r#"{"type":"lease","token":{"job":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","attempt":3},"op":"chat","model":"m","who":"laptop","body_len":12}"#
        );
        assert_eq!(serde_json::from_str::<RelayMessage>(&json).unwrap(), lease);
        let timed = json.replace("12}", r#"12,"deadline":9000,"remaining_ms":5000}"#);
        let RelayMessage::Lease(head) = serde_json::from_str(&timed).unwrap() else {
            panic!("a lease")
        };
        assert_eq!(
            (head.deadline, head.remaining_ms),
            (Some(Timestamp(9000)), Some(5000))
        );
    }
}
