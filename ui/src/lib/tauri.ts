import { invoke } from "@tauri-apps/api/core";
import { listen } from "@tauri-apps/api/event";

import type { Source } from "./follow";
import type { View } from "./protocol";

/** The desktop app around this page. */
export const desktop: Source = {
  listen: (onView) => listen<View>("view", ({ payload }) => onView(payload)),
  snapshot: () => invoke<View>("snapshot"),
};

/** The actions of the main window; each promise rejects with an error message. */
export type Actions = {
  setMonitoring: (on: boolean) => Promise<void>;
  setOverlay: (on: boolean) => Promise<void>;
  setAutostart: (on: boolean) => Promise<void>;
  cancelJob: (job: string) => Promise<void>;
  /** Decides a pending approval. */
  decide: (approval: string, word: Word) => Promise<void>;
  revoke: (grant: string) => Promise<void>;
};

export type Word = "once" | "always" | "no";

const act = (command: string, args: object = {}) => invoke<void>("act", { command, args });

export const actions: Actions = {
  setMonitoring: (on) => act("set_monitoring", { on }),
  setOverlay: (on) => act(on ? "show_overlay" : "hide_overlay"),
  setAutostart: (on) => invoke<void>("set_autostart", { on }),
  cancelJob: (job) => act("cancel_job", { job }),
  decide: (approval, word) => invoke<void>("decide", { approval, word }),
  revoke: (grant) => invoke<void>("revoke", { grant }),
};
