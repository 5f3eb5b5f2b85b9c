import { untrack } from "svelte";

import { secondHand } from "../lib/clock";
import { Refused, type Api, type Job, type Key, type Minute, type NewKey, type Overview } from "./api";
import { follow, type Event } from "./stream";

export type Link = { kind: "connecting" } | { kind: "live" } | { kind: "lost"; again: number };

/**
 * What the relay told last, and what its operator may do. Called while a component is set up;
 * ends with it. `onRefused` is told when the key is good no more.
 */
export function board(api: Api, key: string, onRefused: (why: Refused) => void) {
  let link = $state.raw<Link>({ kind: "connecting" });
  let overview = $state.raw<Overview | undefined>();
  let minutes = $state.raw<readonly Minute[]>([]);
  let dead = $state.raw<readonly Job[] | undefined>();
  let next = $state.raw<string | undefined>();
  let keys = $state.raw<readonly Key[] | undefined>();
  /** The relay's clock. */
  let now = $state(Date.now());
  let skew = 0;
  let deadTold: number | undefined;

  const tick = () => (now = Date.now() + skew);

  function hear({ name, data }: Event) {
    if (name === "minutes") minutes = JSON.parse(data) as Minute[];
    if (name !== "overview") return;
    overview = JSON.parse(data) as Overview;
    skew = overview.now - Date.now();
    tick();
    if (overview.dead !== deadTold) {
      deadTold = overview.dead;
      void quietly(readDead(), () => (deadTold = undefined));
    }
  }

  /** A list stays as it is when it cannot be read; `again` sees to it that it is tried again. */
  async function quietly(reading: Promise<void>, again: () => void = () => {}) {
    try {
      await reading;
    } catch (reason) {
      if (reason instanceof Refused && reason.isAboutKey) onRefused(reason);
      else again();
    }
  }

  async function readDead() {
    const page = await api.dead(key);
    dead = page.jobs;
    next = page.next;
  }

  async function readKeys() {
    keys = await api.keys(key);
  }

  $effect(() =>
    untrack(() => {
      const hand = secondHand(() => true, tick);
      hand.update();
      const unfollow = follow((signal) => api.events(key, signal), {
        onEvent: hear,
        onLive: () => {
          link = { kind: "live" };
          deadTold = undefined;
          void quietly(readKeys());
        },
        onLost: (again) => (link = { kind: "lost", again }),
        onRefused,
      });
      return () => {
        unfollow();
        hand.stop();
      };
    }),
  );

  return {
    get link() {
      return link;
    },
    get overview() {
      return overview;
    },
    get minutes() {
      return minutes;
    },
    get dead() {
      return dead;
    },
    get hasMoreDead() {
      return next !== undefined;
    },
    get keys() {
      return keys;
    },
    get now() {
      return now;
    },
    get skew() {
      return skew;
    },
    moreDead: async () => {
      const from = next;
      if (from === undefined) return;
      const page = await api.dead(key, from);
      // Another answer was first, or the list was read anew meanwhile.
      if (next !== from) return;
      const known = new Set(dead?.map(({ id }) => id));
      dead = [...(dead ?? []), ...page.jobs.filter(({ id }) => !known.has(id))];
      next = page.next;
    },
    retry: async (job: string) => {
      const made = await api.retry(key, job);
      dead = dead?.filter(({ id }) => id !== job);
      return made.id;
    },
    createKey: async (wanted: NewKey) => {
      const made = await api.createKey(key, wanted);
      await quietly(readKeys());
      return made;
    },
    revokeKey: async (id: string) => {
      await api.revokeKey(key, id);
      await quietly(readKeys());
    },
  };
}

export type Board = ReturnType<typeof board>;
