// Written from crates/proto: UPDATE=1 cargo test -p hearth-proto typescript

/**
 * Overall state of the agent.
 */
export type Phase = "starting" | "ready" | "working" | "listening" | "speaking" | "paused" | "connecting" | "relay_offline" | "engine_offline" | "error" | "stopping";

/**
 * State of one hop: confirmed, unknown, or broken.
 */
export type HopState = "unknown" | "up" | "down";

/**
 * One hop between requester and model.
 */
export type Hop = { 
/**
 * State of the hop.
 */
state: HopState, 
/**
 * Address or name, without secrets.
 */
name: string, 
/**
 * The problem in one sentence; empty while the hop is up.
 */
problem?: string, };

/**
 * Carrier of the agent's connection to the relay.
 */
export type CarrierKind = "websocket" | "long_poll" | "poll";

/**
 * Operation of the engine. Never a method and a path.
 */
export type Op = "chat" | "generate" | "embed" | "pull" | "copy" | "delete" | "create";

/**
 * A running job.
 */
export type LiveJob = { 
/**
 * Identifier.
 */
id: string, 
/**
 * Name of the key that submitted it.
 */
who: string, 
/**
 * Model.
 */
model: string, 
/**
 * Operation.
 */
op: Op, 
/**
 * Time at which this machine started it.
 */
started_at: number, 
/**
 * Number of tokens (log lines) so far; 0 for clients that chose not to receive progress.
 */
tokens: number, 
/**
 * Tokens per second since the first token; 0 before it.
 */
tokens_per_second: number, };

/**
 * Another local program that publishes fields of the status.
 */
export type Publisher = { 
/**
 * Name of the program, as it reported it.
 */
name: string, 
/**
 * Fields that it publishes now.
 */
fields: Array<string>, 
/**
 * Address it is read from, if it did not connect to the hub itself.
 */
origin?: string | null, 
/**
 * Whether it has been silent for a while and did not answer a ping, so that its fields may be
 * wrong.
 */
stale?: boolean, };

/**
 * A snapshot of the agent's status.
 */
export type Status = { 
/**
 * Overall state.
 */
status: Phase, 
/**
 * The state as text in the owner's language.
 */
text: string, 
/**
 * Whether a voice command is being recorded.
 */
is_listening: boolean, 
/**
 * Whether speech is being output.
 */
is_speaking: boolean, 
/**
 * Whether the wake word was detected.
 */
wake_word_detected: boolean, 
/**
 * Whether the owner wants the overlay shown.
 */
overlay_visible: boolean, 
/**
 * `false` exactly while paused.
 */
monitoring: boolean, 
/**
 * The running jobs.
 */
jobs: Array<LiveJob>, 
/**
 * The hop to the relay.
 */
relay: Hop, 
/**
 * The hop to the engine.
 */
engine: Hop, 
/**
 * Carrier of the connection to the relay, while there is one.
 */
carrier: CarrierKind | null, 
/**
 * Other programs, and the fields each of them publishes.
 */
publishers?: Array<Publisher>, 
/**
 * Sequence number; rises with each change.
 */
seq: number, };

/**
 * Information about a program. None of it is proof: a program may use any name, and may be run
 * by another one.
 */
export type Program = { 
/**
 * Name of the program, as it reported it; may be empty.
 */
name: string, 
/**
 * Executable file of its process, if the system reports it.
 */
file?: string | null, 
/**
 * Process id, if the system reports it.
 */
process?: number | null, 
/**
 * Origin of the web page, if it is an allowed one.
 */
origin?: string | null, };

/**
 * A program whose command waits for the owner's approval.
 */
export type Waiting = { 
/**
 * Identifier for `approve` and `deny`.
 */
id: string, 
/**
 * The program.
 */
who: Program, 
/**
 * Name of the command.
 */
command: string, 
/**
 * Time at which it is refused unless the owner answers.
 */
until: number, };

/**
 * A program that may send commands until its permission is revoked.
 */
export type Allowed = { 
/**
 * Identifier for `revoke`.
 */
id: string, 
/**
 * The program, as it was when it asked.
 */
who: Program, 
/**
 * Time of the approval.
 */
since: number, };

/**
 * All pending questions to the owner, and all permanent permissions.
 */
export type Pairs = { 
/**
 * Pending questions, oldest first.
 */
waiting: Array<Waiting>, 
/**
 * Permissions, oldest first.
 */
allowed: Array<Allowed>, };

/**
 * A stable error code. Clients must switch on it, never on the message.
 */
export type ErrorCode = "bad_request" | "malformed_json" | "token_in_url" | "unauthorized" | "key_expired" | "token_expired" | "token_reused" | "forbidden" | "model_forbidden" | "priority_forbidden" | "forbidden_origin" | "forbidden_host" | "unknown_job" | "unknown_key" | "unknown_model" | "unknown_route" | "method_not_allowed" | "job_ended" | "stale_lease" | "chunk_gap" | "erased" | "job_unfinished" | "request_erased" | "too_slow" | "idempotency_conflict" | "too_large" | "unsupported_encoding" | "too_many_connections" | "rate_limited" | "unsupported_version" | "engine_refused" | "engine_failed" | "engine_unavailable" | "queue_full" | "busy" | "account_full" | "disk_full" | "no_worker" | "worker_lost" | "too_many_attempts" | "draining" | "store_unavailable" | "deadline_exceeded" | "outcome_unknown" | "cancelled" | "internal" | "unknown_command" | "nothing_to_do" | "field_taken" | "approval_required" | "approval_denied" | "unknown";

/**
 * Arguments of a command; each command documents which it needs.
 */
export type CommandArgs = { 
/**
 * For `set_monitoring`.
 */
on?: boolean | null, 
/**
 * For `cancel_job`.
 */
job?: string, 
/**
 * For `set_volume`: 0 to 100.
 */
volume?: number | null, 
/**
 * For `approve` and `deny`: identifier of the question to the owner.
 */
approval?: string | null, 
/**
 * For `approve`: whether the approval is permanent.
 */
always?: boolean | null, 
/**
 * For `revoke`: identifier of the permission to revoke.
 */
grant?: string | null, };

/**
 * A message from the hub to a client.
 */
export type ServerMessage = { "type": "status", 
/**
 * The snapshot.
 */
data: Status, } | { "type": "ack", 
/**
 * Name of the command.
 */
command: string, 
/**
 * The client's `id`, if it sent one.
 */
id?: string | null, 
/**
 * Result of the command `ping`.
 */
result?: unknown, } | { "type": "error", 
/**
 * Stable code.
 */
code: ErrorCode, 
/**
 * Message for humans.
 */
message: string, 
/**
 * Name of the command, if there was one.
 */
command?: string | null, 
/**
 * The client's `id`, if it sent one.
 */
id?: string | null, 
/**
 * Identifier of the question to the owner, if approval is needed; the outcome follows.
 */
approval?: string | null, } | { "type": "granted", 
/**
 * Identifier of the question to the owner.
 */
approval: string, 
/**
 * Token to be used from now on, in place of the local token. Sent only once.
 */
token: string, } | { "type": "pong" };

/**
 * A message from a client to the hub.
 */
export type ClientMessage = { "type": "command", 
/**
 * Name of a [`Command`].
 */
command: string, 
/**
 * Returned in the answer.
 */
id?: string | null, 
/**
 * Arguments, if the command needs any: `{"on":true}`, `{"job":"…"}`.
 */
args?: CommandArgs, 
/**
 * Name of the client; shown to the owner when approval is needed.
 */
name?: string, } | { "type": "ping" };

/**
 * A permission of a connection.
 */
export type Right = "read" | "command" | "publish";

/**
 * Reason why a snapshot is sent.
 */
export type Cause = "first" | "behind" | "resubscribed";

/**
 * A field that other programs may publish.
 */
export type Field = "is_listening" | "wake_word_detected" | "is_speaking" | "text";

/**
 * Fields of a publisher. An absent field stays unchanged; `null` withdraws it.
 */
export type Published = { 
/**
 * Whether a voice command is being recorded.
 */
is_listening?: boolean | null, 
/**
 * Whether the wake word was detected.
 */
wake_word_detected?: boolean | null, 
/**
 * Whether speech is being output.
 */
is_speaking?: boolean | null, 
/**
 * The status as text.
 */
text?: string | null, };

/**
 * A message from the hub to a client.
 */
export type HubMessage = { "type": "hello", 
/**
 * Supported versions.
 */
versions: Array<number>, 
/**
 * Challenge of the hub.
 */
nonce: string, 
/**
 * Version of Hearth on the hub's side.
 */
server: string, 
/**
 * Time within which `identify` must arrive, in milliseconds.
 */
identify_within_ms: number, } | { "type": "identified", 
/**
 * Version used from now on.
 */
version: number, 
/**
 * Permissions of this connection.
 */
rights: Array<Right>, 
/**
 * Its subscriptions, without unknown names.
 */
subscriptions: Array<string>, 
/**
 * Proof that the hub knows the token, too; only for a client that proved it first.
 */
proof?: string, } | { "type": "snapshot", 
/**
 * Sequence number of this status.
 */
seq: number, 
/**
 * Reason why it is sent.
 */
cause: Cause, 
/**
 * All fields, as in the legacy mode, except `seq`.
 */
data: Omit<Status, "seq">, } | { "type": "delta", 
/**
 * Sequence number of the status to apply this to: the one sent last.
 */
from: number, 
/**
 * Sequence number of the new status.
 */
seq: number, 
/**
 * The changed fields, each complete.
 */
data: Partial<Omit<Status, "seq">>, } | { "type": "response", 
/**
 * Identifier of the request.
 */
id: string, 
/**
 * Name of the request.
 */
request: string, 
/**
 * 200, or the HTTP status of `code`.
 */
status: number, 
/**
 * Error code, if it failed.
 */
code?: ErrorCode | null, 
/**
 * Error message for humans.
 */
message?: string | null, 
/**
 * Result, if the request has one.
 */
result?: unknown, 
/**
 * Identifier of the question to the owner. After the code `approval_required`, another
 * response to the same request follows.
 */
approval?: string | null, } | { "type": "granted", 
/**
 * Identifier of the question to the owner.
 */
approval: string, 
/**
 * Token to be proven from now on, in place of the local token. Sent only once.
 */
token: string, } | { "type": "request", 
/**
 * To be returned in the response.
 */
id: string, 
/**
 * `stop_tts` or `set_volume`.
 */
request: string, 
/**
 * Arguments of the command.
 */
args?: CommandArgs, } | { "type": "taken", 
/**
 * The fields.
 */
fields: Array<Field>, 
/**
 * Name of the other publisher.
 */
by: string, } | { "type": "error", 
/**
 * The HTTP status of `code`.
 */
status: number, 
/**
 * Error code.
 */
code: ErrorCode, 
/**
 * Error message for humans.
 */
message: string, };

/**
 * A message from a client to the hub.
 */
export type PeerMessage = { "type": "identify", 
/**
 * One of the hub's versions.
 */
version: number, 
/**
 * Challenge of the client; required for a proof.
 */
nonce?: string, 
/**
 * Proof that the client knows the token; without it, the client may only read.
 */
proof?: string, 
/**
 * Name of the client.
 */
name?: string, 
/**
 * Names of [`Topic`]s; [`Topic::USUAL`] if absent.
 */
subscriptions?: Array<string> | null, } | { "type": "reidentify", 
/**
 * Names of [`Topic`]s.
 */
subscriptions: Array<string>, } | { "type": "request", 
/**
 * Returned in the response.
 */
id: string, 
/**
 * Name of a command, or `ping`.
 */
request: string, 
/**
 * Arguments, if the command needs any.
 */
args?: CommandArgs, } | { "type": "publish", 
/**
 * Returned in the response.
 */
id: string, 
/**
 * The new values.
 */
fields: Published, 
/**
 * Whether to take over fields that another program publishes.
 */
takeover?: boolean, } | { "type": "response", 
/**
 * Identifier of the request.
 */
id: string, 
/**
 * 200, or an HTTP error status.
 */
status: number, 
/**
 * Error message for humans.
 */
message?: string | null, };

/**
 * The content of every native error body.
 */
export type ErrorDetail = { 
/**
 * Stable code.
 */
code: ErrorCode, 
/**
 * Message for humans: what happened, where, and what to do next.
 */
message: string, 
/**
 * The field of the request that is wrong, if there is one.
 */
param?: string, };

/**
 * State of a job. `Leased` may return to `Queued`; the last three are final.
 */
export type JobState = "queued" | "leased" | "completed" | "failed" | "cancelled";

/**
 * Delivery state of a webhook.
 */
export type WebhookState = "waiting" | "delivered" | "given_up";

/**
 * State of a job's webhook.
 */
export type WebhookView = { 
/**
 * Delivery state.
 */
state: WebhookState, 
/**
 * Number of attempts.
 */
tries: number, 
/**
 * Error of the last attempt.
 */
error?: string, 
/**
 * The secret, if the relay generated it; only in the response to the submission.
 */
secret?: string, };

/**
 * `GET /api/jobs/{id}`: a job as its requester sees it. Never contains the prompt.
 */
export type JobView = { 
/**
 * Identifier.
 */
id: string, 
/**
 * Current state.
 */
state: JobState, 
/**
 * Account that owns the job.
 */
account: string, 
/**
 * Operation.
 */
op: Op, 
/**
 * Model.
 */
model: string, 
/**
 * The only worker that may answer, if the requester chose one.
 */
worker?: string, 
/**
 * Priority.
 */
priority: number, 
/**
 * Number of times it has been leased.
 */
attempt: number, 
/**
 * Time of acceptance.
 */
created_at: number, 
/**
 * Time of its end, if it has ended.
 */
finished_at?: number, 
/**
 * Time after which the answer is no longer wanted, if given.
 */
deadline?: number, 
/**
 * Reason of a failure.
 */
error?: ErrorDetail, 
/**
 * The job that retries this failed or cancelled one; not in lists.
 */
retried_as?: string, 
/**
 * Its webhook and delivery state; not in lists.
 */
webhook?: WebhookView, 
/**
 * Number of jobs before it, while it is queued.
 */
position?: number, 
/**
 * Estimated waiting time in milliseconds, while it is queued and if it can be estimated.
 */
expected_wait_ms?: number, };

/**
 * Numbers of waiting and running jobs.
 */
export type QueueView = { 
/**
 * Number of waiting jobs.
 */
queued: number, 
/**
 * Size of their requests in bytes.
 */
queued_bytes: number, 
/**
 * Number of running jobs.
 */
leased: number, 
/**
 * Number of waiting jobs with priority 1, 2, … 10.
 */
by_priority: Array<number>, };

/**
 * Carrier of a worker's connection.
 */
export type WorkerCarrier = "websocket" | "long_poll" | "legacy";

/**
 * An engine as reported by its worker.
 */
export type EngineView = { 
/**
 * Kind.
 */
kind: string, 
/**
 * Version.
 */
version: string, 
/**
 * Whether the engine responds.
 */
up: boolean, };

/**
 * A model of a worker.
 */
export type ModelView = { 
/**
 * Name.
 */
name: string, 
/**
 * Whether it is loaded in memory.
 */
loaded: boolean, };

/**
 * A worker, which answers jobs.
 */
export type WorkerView = { 
/**
 * Name.
 */
name: string, 
/**
 * Identifier of its key, if it sent one.
 */
key?: string, 
/**
 * Whether it is connected now.
 */
online: boolean, 
/**
 * Carrier of its connection; absent while it is offline.
 */
carrier?: WorkerCarrier, 
/**
 * Time of its last message.
 */
last_seen: number, 
/**
 * Its engine, if reported.
 */
engine?: EngineView, 
/**
 * Its models; empty for a worker of an older protocol, which is assumed to run any.
 */
models: Array<ModelView>, 
/**
 * Maximum number of concurrent jobs; 0 while its owner paused it, absent if unknown.
 */
slots?: number, 
/**
 * Number of jobs it runs.
 */
running: number, };

/**
 * A running job.
 */
export type RunningJob = { 
/**
 * Identifier.
 */
id: string, 
/**
 * Account that owns the job.
 */
account: string, 
/**
 * Name of the key that submitted it.
 */
who: string, 
/**
 * Operation.
 */
op: Op, 
/**
 * Model.
 */
model: string, 
/**
 * Priority.
 */
priority: number, 
/**
 * Number of times it has been leased.
 */
attempt: number, 
/**
 * Worker that runs it; unknown if it has been running since before a restart of the relay.
 */
worker?: string, 
/**
 * Start of the lease; unknown in the same case.
 */
since?: number, 
/**
 * Number of lines of the answer so far: about one per token.
 */
tokens: number, 
/**
 * Tokens per second, rounded to a tenth; absent until it can be computed.
 */
tokens_per_second?: number, };

/**
 * The jobs that ended within one minute.
 */
export type MinuteView = { 
/**
 * Start of the minute.
 */
at: number, 
/**
 * Number of completed jobs.
 */
completed: number, 
/**
 * Number of failed jobs.
 */
failed: number, 
/**
 * Number of cancelled jobs.
 */
cancelled: number, 
/**
 * Number of lines of their answers.
 */
tokens: number, 
/**
 * Median time in milliseconds from acceptance to end of the completed jobs, exact to a
 * sixteenth.
 */
median_ms?: number, 
/**
 * 95th percentile of that time, in milliseconds.
 */
slow_ms?: number, };

/**
 * `GET /api/admin/overview`: the state of a relay.
 */
export type Overview = { 
/**
 * Version of the relay.
 */
version: string, 
/**
 * Current time by the relay's clock.
 */
now: number, 
/**
 * The waiting jobs.
 */
queue: QueueView, 
/**
 * Number of failed jobs that were not retried; counted up to 1,000.
 */
dead: number, 
/**
 * The workers that are online, or were within the last hour.
 */
workers: Array<WorkerView>, 
/**
 * The running jobs, oldest first, at most 200.
 */
jobs: Array<RunningJob>, 
/**
 * The minutes of the last hour in which a job ended, oldest first. `GET /api/admin/events`
 * sends them as a separate event.
 */
minutes?: Array<MinuteView>, };

/**
 * `GET /api/admin/keys`: a key without its secret.
 */
export type KeyView = { 
/**
 * Identifier.
 */
id: string, 
/**
 * Name given by its owner.
 */
name: string, 
/**
 * Account for which it submits and reads jobs.
 */
account: string, 
/**
 * Scopes: `enqueue`, `read`, `work`, `admin`.
 */
scopes: Array<string>, 
/**
 * Accounts whose jobs it may lease; `all` stands for every account.
 */
serve: Array<string>, 
/**
 * Patterns of the models it may request and its agents may lease; empty for all models.
 */
models?: Array<string>, 
/**
 * Highest priority of its jobs.
 */
max_priority?: number, 
/**
 * Time of creation.
 */
created_at: number, 
/**
 * Time of expiry, if any.
 */
expires_at?: number, 
/**
 * Approximate time of its last use.
 */
last_used_at?: number, 
/**
 * Time of revocation, if revoked.
 */
revoked_at?: number, 
/**
 * The complete key; only in the response to its creation.
 */
key?: string, };

/**
 * `POST /api/admin/keys`: a key to be created.
 */
export type NewKey = { 
/**
 * Name, 1 to 64 characters.
 */
name: string, 
/**
 * Account for which it submits and reads jobs; `default` when absent.
 */
account?: string, 
/**
 * Scopes: `enqueue`, `read`, `work`, `admin`; at least one.
 */
scopes: Array<string>, 
/**
 * Accounts whose jobs it may lease besides its own; `all` stands for every account.
 */
serve?: Array<string>, 
/**
 * Patterns of the models it may request and its agents may lease; `*` and `?` are wild cards.
 */
models?: Array<string>, 
/**
 * Highest priority of its jobs; 1 is the highest of all.
 */
max_priority?: number, 
/**
 * Seconds until it expires, at most 100 years.
 */
expires_in_s?: number, };

/**
 * A command to the agent; `ping`, which is not among them, is answered by the hub.
 */
export type Command = "toggle_monitoring" | "set_monitoring" | "stop_tts" | "set_volume" | "show_overlay" | "hide_overlay" | "toggle_overlay" | "cancel_job" | "open_settings" | "quit";

/**
 * A subscription.
 */
export type Topic = "status" | "progress";

/**
 * Maximum number of jobs on one page of a list.
 */
export const LISTED_MAX = 1000;

/**
 * Number up to which an overview counts dead jobs.
 */
export const DEAD_COUNTED_MAX = 1000;
