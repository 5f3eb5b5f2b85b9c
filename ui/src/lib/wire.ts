// Written from crates/proto: UPDATE=1 cargo test -p hearth-proto typescript

/**
 * The one word that says how the agent is.
 */
export type Phase = "starting" | "ready" | "working" | "listening" | "speaking" | "paused" | "connecting" | "relay_offline" | "engine_offline" | "error" | "stopping";

/**
 * How one hop is: confirmed, not yet known, or broken.
 */
export type HopState = "unknown" | "up" | "down";

/**
 * One hop between requester and model.
 */
export type Hop = { 
/**
 * Whether it was confirmed.
 */
state: HopState, 
/**
 * Its address or name, without secrets.
 */
name: string, 
/**
 * What is wrong, in a sentence; empty while it is up.
 */
problem?: string, };

/**
 * How the agent talks to the relay.
 */
export type CarrierKind = "websocket" | "long_poll" | "poll";

/**
 * What is asked of the engine: a typed operation, never a method and a path.
 */
export type Op = "chat" | "generate" | "embed" | "pull" | "copy" | "delete" | "create";

/**
 * A job that is running now.
 */
export type LiveJob = { 
/**
 * The job.
 */
id: string, 
/**
 * The name of the key that asked.
 */
who: string, 
/**
 * The model.
 */
model: string, 
/**
 * The operation.
 */
op: Op, 
/**
 * When this machine began with it.
 */
started_at: number, 
/**
 * Tokens (log lines) so far; 0 where a client chose not to be told.
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
 * What it calls itself.
 */
name: string, 
/**
 * The fields that are its own now.
 */
fields: Array<string>, 
/**
 * Where it is read from, if it did not come to the hub itself.
 */
origin?: string | null, 
/**
 * Nothing was heard of it for a while, not even an answer to a ping: its fields may be wrong.
 */
stale?: boolean, };

/**
 * One snapshot of the agent.
 */
export type Status = { 
/**
 * How the agent is.
 */
status: Phase, 
/**
 * The same in the owner's language.
 */
text: string, 
/**
 * A command is being recorded.
 */
is_listening: boolean, 
/**
 * Somebody is speaking.
 */
is_speaking: boolean, 
/**
 * The wake word was heard.
 */
wake_word_detected: boolean, 
/**
 * The owner wants the overlay shown.
 */
overlay_visible: boolean, 
/**
 * `false` exactly while paused.
 */
monitoring: boolean, 
/**
 * What is running now.
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
 * How the agent talks to the relay, while it does.
 */
carrier: CarrierKind | null, 
/**
 * Other programs, and which of these fields are theirs.
 */
publishers?: Array<Publisher>, 
/**
 * Rises with each change.
 */
seq: number, };

/**
 * What is known of a program. None of it is proof: a program may call itself anything, and may
 * be run by another.
 */
export type Program = { 
/**
 * What it calls itself; may be empty.
 */
name: string, 
/**
 * The file that its process runs, where the system tells.
 */
file?: string | null, 
/**
 * Its process, where the system tells.
 */
process?: number | null, 
/**
 * The web page it is, if it is one of those on the list.
 */
origin?: string | null, };

/**
 * A program whose command waits for the owner's word.
 */
export type Waiting = { 
/**
 * Names it in `approve` and `deny`.
 */
id: string, 
/**
 * Who asks.
 */
who: Program, 
/**
 * The command's word.
 */
command: string, 
/**
 * When it is refused unless somebody answers.
 */
until: number, };

/**
 * A program that may give commands until that is revoked.
 */
export type Allowed = { 
/**
 * Names it in `revoke`.
 */
id: string, 
/**
 * Who asked, as it was then.
 */
who: Program, 
/**
 * Since when.
 */
since: number, };

/**
 * Everything the owner is asked, and everything he allowed for good.
 */
export type Pairs = { 
/**
 * The oldest first.
 */
waiting: Array<Waiting>, 
/**
 * The oldest first.
 */
allowed: Array<Allowed>, };

/**
 * A stable word for what went wrong. Clients switch on it, never on prose.
 */
export type ErrorCode = "bad_request" | "malformed_json" | "token_in_url" | "unauthorized" | "key_expired" | "token_expired" | "token_reused" | "forbidden" | "model_forbidden" | "priority_forbidden" | "forbidden_origin" | "forbidden_host" | "unknown_job" | "unknown_key" | "unknown_model" | "unknown_route" | "method_not_allowed" | "job_ended" | "stale_lease" | "chunk_gap" | "erased" | "job_unfinished" | "request_erased" | "too_slow" | "idempotency_conflict" | "too_large" | "unsupported_encoding" | "too_many_connections" | "rate_limited" | "unsupported_version" | "engine_refused" | "engine_failed" | "engine_unavailable" | "queue_full" | "busy" | "account_full" | "disk_full" | "no_worker" | "worker_lost" | "too_many_attempts" | "draining" | "store_unavailable" | "deadline_exceeded" | "cancelled" | "internal" | "unknown_command" | "nothing_to_do" | "field_taken" | "approval_required" | "approval_denied" | "unknown";

/**
 * Arguments of a command; each command says which it needs.
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
 * For `approve` and `deny`: what the owner is asked.
 */
approval?: string | null, 
/**
 * For `approve`: whether it holds for good.
 */
always?: boolean | null, 
/**
 * For `revoke`: whose leave ends.
 */
grant?: string | null, };

/**
 * Hub to client.
 */
export type ServerMessage = { "type": "status", 
/**
 * The snapshot.
 */
data: Status, } | { "type": "ack", 
/**
 * The command's own word.
 */
command: string, 
/**
 * The client's `id`, if it sent one.
 */
id?: string | null, 
/**
 * What the command `ping` gives.
 */
result?: unknown, } | { "type": "error", 
/**
 * Stable code.
 */
code: ErrorCode, 
/**
 * For a person.
 */
message: string, 
/**
 * The command's own word, if there was one.
 */
command?: string | null, 
/**
 * The client's `id`, if it sent one.
 */
id?: string | null, 
/**
 * What the owner is asked, if that is why; the outcome follows.
 */
approval?: string | null, } | { "type": "granted", 
/**
 * What the owner was asked.
 */
approval: string, 
/**
 * To be shown from now on, as the local token would be. It is told once.
 */
token: string, } | { "type": "pong" };

/**
 * Client to hub.
 */
export type ClientMessage = { "type": "command", 
/**
 * One of [`Command`]'s words.
 */
command: string, 
/**
 * Given back in the answer.
 */
id?: string | null, 
/**
 * What some commands need: `{"on":true}`, `{"job":"…"}`.
 */
args?: CommandArgs, 
/**
 * What the client calls itself; shown to the owner when he is asked.
 */
name?: string, } | { "type": "ping" };

/**
 * What a connection may do.
 */
export type Right = "read" | "command" | "publish";

/**
 * Why a snapshot is sent.
 */
export type Cause = "first" | "behind" | "resubscribed";

/**
 * A field that other programs may publish.
 */
export type Field = "is_listening" | "wake_word_detected" | "is_speaking" | "text";

/**
 * Some fields of a publisher. One that is absent stays as it is; `null` gives it back.
 */
export type Published = { 
/**
 * A command is being recorded.
 */
is_listening?: boolean | null, 
/**
 * The wake word was heard.
 */
wake_word_detected?: boolean | null, 
/**
 * Somebody is speaking.
 */
is_speaking?: boolean | null, 
/**
 * The status in words.
 */
text?: string | null, };

/**
 * Hub to client.
 */
export type HubMessage = { "type": "hello", 
/**
 * The versions that are spoken.
 */
versions: Array<number>, 
/**
 * The hub's challenge.
 */
nonce: string, 
/**
 * Hearth's version on the hub's side.
 */
server: string, 
/**
 * How long the hub waits for `identify`.
 */
identify_within_ms: number, } | { "type": "identified", 
/**
 * The version spoken from now on.
 */
version: number, 
/**
 * What this connection may do.
 */
rights: Array<Right>, 
/**
 * What it is subscribed to; words that are not known here are left out.
 */
subscriptions: Array<string>, 
/**
 * That the hub knows the token too; only for who proved it first.
 */
proof?: string, } | { "type": "snapshot", 
/**
 * The number of this status.
 */
seq: number, 
/**
 * Why it is sent.
 */
cause: Cause, 
/**
 * Every field, as in the legacy mode, but for `seq`.
 */
data: Omit<Status, "seq">, } | { "type": "delta", 
/**
 * The status this is to be applied to: the one that was sent last.
 */
from: number, 
/**
 * The number of the new one.
 */
seq: number, 
/**
 * The fields that changed, each whole.
 */
data: Partial<Omit<Status, "seq">>, } | { "type": "response", 
/**
 * The request's own.
 */
id: string, 
/**
 * The request's own word.
 */
request: string, 
/**
 * 200, or the HTTP status of `code`.
 */
status: number, 
/**
 * Why not, in a stable word.
 */
code?: ErrorCode | null, 
/**
 * The same for a person.
 */
message?: string | null, 
/**
 * What some requests give.
 */
result?: unknown, 
/**
 * What the owner is asked, or was. With the code `approval_required` another response
 * to the same request follows.
 */
approval?: string | null, } | { "type": "granted", 
/**
 * What the owner was asked.
 */
approval: string, 
/**
 * To be proven from now on, as the local token would be. It is told once.
 */
token: string, } | { "type": "request", 
/**
 * To be given back.
 */
id: string, 
/**
 * `stop_tts` or `set_volume`.
 */
request: string, 
/**
 * What the command needs.
 */
args?: CommandArgs, } | { "type": "taken", 
/**
 * Which.
 */
fields: Array<Field>, 
/**
 * Who.
 */
by: string, } | { "type": "error", 
/**
 * The HTTP status of `code`.
 */
status: number, 
/**
 * Why, in a stable word.
 */
code: ErrorCode, 
/**
 * The same for a person.
 */
message: string, };

/**
 * Client to hub.
 */
export type PeerMessage = { "type": "identify", 
/**
 * One of the hub's versions.
 */
version: number, 
/**
 * The client's challenge; a proof needs one.
 */
nonce?: string, 
/**
 * That the client knows the token; without it, it may only read.
 */
proof?: string, 
/**
 * What the client calls itself.
 */
name?: string, 
/**
 * Words of [`Topic`]; [`Topic::USUAL`] if absent.
 */
subscriptions?: Array<string> | null, } | { "type": "reidentify", 
/**
 * Words of [`Topic`].
 */
subscriptions: Array<string>, } | { "type": "request", 
/**
 * Given back in the response.
 */
id: string, 
/**
 * A command's word, or `ping`.
 */
request: string, 
/**
 * What some commands need.
 */
args?: CommandArgs, } | { "type": "publish", 
/**
 * Given back in the response.
 */
id: string, 
/**
 * What they are now.
 */
fields: Published, 
/**
 * Whether to take what another publishes.
 */
takeover?: boolean, } | { "type": "response", 
/**
 * The request's own.
 */
id: string, 
/**
 * 200, or the HTTP status of what went wrong.
 */
status: number, 
/**
 * The same for a person.
 */
message?: string | null, };

/**
 * What may be asked of the agent; `ping` beside them asks the hub.
 */
export type Command = "toggle_monitoring" | "set_monitoring" | "stop_tts" | "set_volume" | "show_overlay" | "hide_overlay" | "toggle_overlay" | "cancel_job" | "open_settings" | "quit";

/**
 * What can be subscribed to.
 */
export type Topic = "status" | "progress";
