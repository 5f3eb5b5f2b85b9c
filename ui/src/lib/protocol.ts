// The data of the pages. The wire types in `wire.ts` are generated from Rust.

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

/** The status, or that it is unknown. */
export type Link = { kind: "live"; status: Status } | { kind: "lost" };

/** Everything the desktop sends to its pages: `View` in src-tauri/src/view.rs. */
export type View = {
  link: Link;
  autostart: boolean;
  /** The owner's language, from the agent. */
  language?: string;
  /** Why there is no tray, and what to do about it. */
  no_tray?: string;
  /** Why a click in the tray was refused. */
  refused?: string;
  /** How often the settings were asked for since the window was opened. */
  settings?: number;
  /** The pending approvals and the permanent grants. */
  pairs?: Pairs;
};

/** The view before any data has arrived. */
export const UNKNOWN: View = { link: { kind: "lost" }, autostart: false };
