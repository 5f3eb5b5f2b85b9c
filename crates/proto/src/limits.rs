//! Limits of size, time and number that both sides must agree on, each with its reason.

use std::time::Duration;

/// Maximum size of an inference request, in bytes: room for a few images.
pub const BODY_MAX: usize = 32 * 1024 * 1024;
/// Maximum number of commas and opening brackets in the JSON of a request, whose parsed tree may
/// take forty times the size of its text. No conversation has as many, and images are strings.
pub const STRUCTURE_MAX: usize = 200_000;
/// Maximum number of commas and opening brackets in all lines of an answer that are merged.
pub const ANSWER_STRUCTURE_MAX: usize = 2_000_000;
/// Maximum size of a control request (one without a prompt or an answer), in bytes.
pub const CONTROL_BODY_MAX: usize = 64 * 1024;
/// Maximum size of a carrier frame, in bytes; longer lines and bodies are sent in parts.
pub const FRAME_MAX: usize = 256 * 1024;
/// Maximum length of a line of a job's log, in bytes: Ollama's own Go client stops at 8 MB.
pub const LINE_MAX: usize = 8 * 1024 * 1024;
/// Maximum size of a forwarded `/api/show` answer, in bytes; a longer one loses its lists.
pub const SHOW_MAX: usize = 64 * 1024;
/// Maximum size of all such answers kept for one worker, in bytes.
pub const SHOWS_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of models in the report of one worker; further ones are ignored.
pub const MODELS_MAX: usize = 4_096;
/// Maximum number of models of one worker that are reported as loaded.
pub const RUNNING_MAX: usize = 64;
/// Maximum duration of a change of an engine's models: pulling a large one may take hours.
pub const MODEL_CHANGE: Duration = Duration::from_secs(6 * 60 * 60);
/// Maximum number of urgent jobs, which need no slot, at one worker; further ones take a slot.
pub const URGENT_MAX: usize = 4;
/// Maximum size of a message of the status hub, in bytes.
pub const HUB_MESSAGE_MAX: usize = 64 * 1024;
/// Maximum number of connections of the status hub.
pub const HUB_SOCKETS_MAX: usize = 1024;
/// Read buffer of every WebSocket, in bytes. With the library's default of 128 KiB a thousand idle
/// connections would take 130 MB.
pub const WS_READ_BUFFER: usize = 4 * 1024;
/// Read buffer of the hub's connections, in bytes: commands are short, and there may be a thousand
/// readers.
pub const HUB_READ_BUFFER: usize = 1024;
/// Length of a lease unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(60);
/// Length of a lease for a worker of the polling relay: it cannot renew, and may try 3 × 120 s.
pub const LEGACY_LEASE: Duration = Duration::from_secs(400);
/// Interval at which a worker renews a lease when no chunk renews it.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Maximum time without output on a requester's stream before a keep-alive is sent: proxies close
/// idle connections after 60 s.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(12);
/// Time after which white space is sent ahead of an answer in one piece, to keep the connection
/// open.
pub const PAD_AFTER: Duration = Duration::from_secs(20);
/// Time by which every live lease is extended when the relay starts, so that workers can reconnect.
pub const RESTART_GRACE: Duration = Duration::from_secs(30);
/// Maximum delay that a worker may request before the next attempt of a job it gave back.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// Maximum number of attempts of a job before it fails.
pub const ATTEMPTS_MAX: u32 = 5;
/// Maximum time a native long poll is held: most proxies close a request after 30 s.
pub const POLL_HOLD: Duration = Duration::from_secs(25);
/// Maximum time a poll of the polling relay is held: its workers time out after 10 s.
pub const LEGACY_POLL_HOLD: Duration = Duration::from_secs(8);
/// Interval of pings on the carrier.
pub const CARRIER_PING: Duration = Duration::from_secs(20);
/// Time without any frame after which a carrier counts as dead.
pub const CARRIER_DEAD: Duration = Duration::from_secs(45);
/// Maximum number of unacknowledged chunk bytes that a worker keeps per job before it stops reading
/// from the engine.
pub const UNACKED_MAX: usize = 4 * 1024 * 1024;
/// Maximum number of leases of one worker: running ones, and those whose end the relay has not
/// confirmed.
pub const HELD_MAX: usize = 64;
/// Number of bytes of ended but unconfirmed answers above which a worker takes no more jobs.
pub const UNCONFIRMED_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of queued jobs per account.
pub const QUEUED_PER_ACCOUNT_MAX: usize = 1_000;
/// Maximum number of queued jobs in total.
pub const QUEUED_MAX: usize = 100_000;
/// Maximum size of queued request bodies per account, in bytes.
pub const QUEUED_BYTES_PER_ACCOUNT_MAX: usize = 256 * 1024 * 1024;
/// Maximum size of queued request bodies in total, in bytes.
pub const QUEUED_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Maximum size of all request bodies that are being received, in bytes.
pub const ARRIVING_MAX: usize = 512 * 1024 * 1024;
/// Maximum size of all request bodies that workers have not read yet, in bytes.
pub const SENDING_MAX: usize = 256 * 1024 * 1024;
/// Maximum size of one answer, in bytes. Answers that are being written are in memory.
pub const LOG_MAX: usize = 64 * 1024 * 1024;
/// Maximum size of all answers that are being written, in bytes.
pub const LOGS_MAX: usize = 512 * 1024 * 1024;
/// Number of bytes that a line of an answer counts besides its own, because many short lines are
/// not cheap.
pub const LINE_COST: usize = 64;
/// Number of bytes that each job counts for its account besides its request and its answer.
pub const JOB_COST: u64 = 1024;
/// Number of bytes that an idempotency key counts for its account once its job is erased: what the
/// longest one takes in the store, in a table and in an index.
pub const KEY_COST: u64 = 1024;
/// Maximum size kept for one account, in bytes: requests and answers of all its jobs until they are
/// erased, and idempotency keys of erased ones.
pub const KEPT_PER_ACCOUNT_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Maximum number of jobs on one page of a list.
pub const LISTED_MAX: usize = 1_000;
/// Number up to which an overview counts dead jobs.
pub const DEAD_COUNTED_MAX: usize = 1_000;
/// Maximum deadline of a job, within which an offline agent may come back.
pub const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum length of an idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// Maximum length of the reason of a failure as sent by a worker, in bytes.
pub const REASON_MAX: usize = 1024;
