// What the status hub says, as `crates/proto/src/status.rs` writes it.
// `protocol.test.ts` holds these types to the fixture that the Rust tests read.

export type Phase =
  | "starting"
  | "ready"
  | "working"
  | "listening"
  | "speaking"
  | "paused"
  | "connecting"
  | "relay_offline"
  | "engine_offline"
  | "error"
  | "stopping";

export type HopState = "unknown" | "up" | "down";

export type Hop = { state: HopState; name: string; problem?: string };

export type Carrier = "websocket" | "long_poll" | "poll";

export type LiveJob = {
  id: string;
  who: string;
  model: string;
  op: "chat" | "generate" | "embed";
  started_at: number;
  tokens: number;
  tokens_per_second: number;
};

export type Status = {
  status: Phase;
  text: string;
  is_listening: boolean;
  is_speaking: boolean;
  wake_word_detected: boolean;
  overlay_visible: boolean;
  monitoring: boolean;
  jobs: LiveJob[];
  relay: Hop;
  engine: Hop;
  carrier: Carrier | null;
  publishers?: Publisher[];
  seq: number;
};

/** Another program, and which fields are its own. */
export type Publisher = { name: string; fields: string[]; origin?: string; stale?: boolean };

/** What is known of a program; none of it is proof. */
export type Program = { name: string; file?: string; process?: number; origin?: string };

/** A program whose command waits for the owner's word. */
export type Waiting = { id: string; who: Program; command: string; until: number };

/** A program that may give commands until that is revoked. */
export type Allowed = { id: string; who: Program; since: number };

export type Pairs = { waiting: Waiting[]; allowed: Allowed[] };

/** What a page can know: the truth, or that it does not know. */
export type Link = { kind: "live"; status: Status } | { kind: "lost" };

/** Everything the desktop tells its pages; each one is whole. */
export type View = {
  link: Link;
  autostart: boolean;
  /** The owner's language; the agent knows it first. */
  language?: string;
  /** Why there is no tray, and what to do about it. */
  no_tray?: string;
  /** Programs that ask for leave to give commands, and those that have it. */
  pairs?: Pairs;
};

/** Before anything arrived, nothing is known. */
export const UNKNOWN: View = { link: { kind: "lost" }, autostart: false };
