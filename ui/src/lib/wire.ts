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
