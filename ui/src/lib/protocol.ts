// What the pages are told. What comes over the wire is written from the Rust types, in `wire.ts`.

import type { CarrierKind, Pairs, Status } from "./wire";

export type {
  Allowed,
  Hop,
  HopState,
  LiveJob,
  Pairs,
  Phase,
  Program,
  Publisher,
  Status,
  Waiting,
} from "./wire";

export type Carrier = CarrierKind;

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
  /** Why a click in the tray was refused. */
  refused?: string;
  /** Programs that ask for leave to give commands, and those that have it. */
  pairs?: Pairs;
};

/** Before anything arrived, nothing is known. */
export const UNKNOWN: View = { link: { kind: "lost" }, autostart: false };
