//! Sizes, times and counts that both ends must agree on, each with its reason.

use std::time::Duration;

/// Largest inference request, in bytes: room for a few images.
pub const BODY_MAX: usize = 32 * 1024 * 1024;
/// Most commas and openings in the JSON of a request, which becomes a tree of forty times its size
/// at worst: no conversation has as many, and images are texts.
pub const STRUCTURE_MAX: usize = 200_000;
/// The same of all lines of an answer that are put together.
pub const ANSWER_STRUCTURE_MAX: usize = 2_000_000;
/// Largest control request (anything that is not a prompt or an answer), in bytes.
pub const CONTROL_BODY_MAX: usize = 64 * 1024;
/// Largest carrier frame, in bytes; longer lines and bodies are sent in parts.
pub const FRAME_MAX: usize = 256 * 1024;
/// Longest line of a job log, in bytes: Ollama's own Go client stops at 8 MB.
pub const LINE_MAX: usize = 8 * 1024 * 1024;
/// Largest answer to `/api/show` that is passed on, in bytes; what is longer loses its lists.
pub const SHOW_MAX: usize = 64 * 1024;
/// Most bytes of such answers that are kept for one worker.
pub const SHOWS_MAX: usize = 16 * 1024 * 1024;
/// Most models in the report of one worker; those after them are not known of.
pub const MODELS_MAX: usize = 4_096;
/// Most models of one worker that are told to be in memory.
pub const RUNNING_MAX: usize = 64;
/// Longest change of an engine's models: a large one may be pulled over a slow line.
pub const MODEL_CHANGE: Duration = Duration::from_secs(6 * 60 * 60);
/// Most jobs that wait for no slot which run at one worker at once; more take slots.
pub const URGENT_MAX: usize = 4;
/// Largest message on the status hub, in bytes.
pub const HUB_MESSAGE_MAX: usize = 64 * 1024;
/// Most sockets on the status hub.
pub const HUB_SOCKETS_MAX: usize = 1024;
/// Read buffer of every WebSocket: the library's 128 KiB makes a thousand idle sockets cost 130 MB.
pub const WS_READ_BUFFER: usize = 4 * 1024;
/// Read buffer of the hub's end: commands are short, and there may be a thousand readers.
pub const HUB_READ_BUFFER: usize = 1024;
/// How long a lease lasts unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(60);
/// How long a lease of a worker of the polling relay lasts: it cannot renew, and may try 3 × 120 s.
pub const LEGACY_LEASE: Duration = Duration::from_secs(400);
/// How often a worker renews a lease when no chunk does it for it.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a requester who waits sees nothing before it gets a sign of life: proxies cut at 60 s.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(12);
/// How long an answer in one piece is waited for before white space is sent ahead of it.
pub const PAD_AFTER: Duration = Duration::from_secs(20);
/// Extra life given to every live lease when the relay starts, so that workers can come back.
pub const RESTART_GRACE: Duration = Duration::from_secs(30);
/// Longest a worker may put off the next attempt of a job it gave back.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// How often a job is tried before it is given up.
pub const ATTEMPTS_MAX: u32 = 5;
/// Longest hold of a native long poll; most proxies cut at 30 s.
pub const POLL_HOLD: Duration = Duration::from_secs(25);
/// Longest hold of a poll of the polling relay: its workers give up at 10 s.
pub const LEGACY_POLL_HOLD: Duration = Duration::from_secs(8);
/// Ping interval on the carrier, and how long without any frame before it is taken for dead.
pub const CARRIER_PING: Duration = Duration::from_secs(20);
/// See [`CARRIER_PING`].
pub const CARRIER_DEAD: Duration = Duration::from_secs(45);
/// Unacknowledged chunk bytes a worker keeps per job before it stops reading the engine.
pub const UNACKED_MAX: usize = 4 * 1024 * 1024;
/// Most leases one worker holds: those that run, and those whose end the relay has not confirmed.
pub const HELD_MAX: usize = 64;
/// Bytes of ended answers the relay has not confirmed, beyond which a worker takes no more jobs.
pub const UNCONFIRMED_MAX: usize = 16 * 1024 * 1024;
/// Most jobs queued per account, and in all.
pub const QUEUED_PER_ACCOUNT_MAX: usize = 1_000;
/// See [`QUEUED_PER_ACCOUNT_MAX`].
pub const QUEUED_MAX: usize = 100_000;
/// Most bytes of queued request bodies per account, and in all.
pub const QUEUED_BYTES_PER_ACCOUNT_MAX: usize = 256 * 1024 * 1024;
/// See [`QUEUED_BYTES_PER_ACCOUNT_MAX`].
pub const QUEUED_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Most bytes of all request bodies that are on their way.
pub const ARRIVING_MAX: usize = 512 * 1024 * 1024;
/// Most bytes of one answer, and of all answers that are being written. Both are in memory.
pub const LOG_MAX: usize = 64 * 1024 * 1024;
/// See [`LOG_MAX`].
pub const LOGS_MAX: usize = 512 * 1024 * 1024;
/// What each line of an answer costs beside its bytes: many short lines are not cheap.
pub const LINE_COST: usize = 64;
/// What each job costs its account beside its request and its answer.
pub const JOB_COST: u64 = 1024;
/// Most bytes that are kept of one account: requests and answers of all its jobs until they are
/// erased.
pub const KEPT_PER_ACCOUNT_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Longest deadline of a job, in which an agent that is away may come back.
pub const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// Most bytes of why a job failed, as its worker says it.
pub const REASON_MAX: usize = 1024;
