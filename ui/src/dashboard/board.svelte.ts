import { untrack } from "svelte";

import { secondHand } from "../lib/clock";
import { DEAD_MAX, Refused, type Api, type Job, type Key, type Minute, type NewKey, type Overview, type Page } from "./api";
import { follow, pause, type Event } from "./stream";

/** Dead jobs on a page of their list. */
const PAGE = 20;

/** When a key was used, and what another made or revoked, no event tells: how old the lists may be. */
const AGE_MAX = 60_000;

export type Link = { kind: "connecting" } | { kind: "live" } | { kind: "lost"; again: number };

/**
 * A list stays as it is when it cannot be read, and is read again in a while. One request is on its
 * way at a time, and one more follows it if the list was wanted meanwhile.
 */
function persistent<T>(ask: () => Promise<T>, show: (answer: T) => void, onRefused: (why: Refused) => void) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let isAsking = false;
  let isWanted = false;
  let isOutdated = false;
  let over = false;
  async function read(): Promise<void> {
    isWanted = true;
    if (isAsking || over) return;
    clearTimeout(timer);
    isAsking = true;
    isWanted = isOutdated = false;
    try {
      const answer = await ask();
      failures = 0;
      if (!isOutdated && !over) show(answer);
    } catch (reason) {
      if (over) return;
      if (reason instanceof Refused && reason.isAboutKey) return onRefused(reason);
      timer = setTimeout(() => void read(), pause(failures, Math.random()));
      failures += 1;
      isWanted = false;
    } finally {
      isAsking = false;
    }
    if (isWanted) void read();
  }
  /** Something was changed from here: what is on its way was true before, and is not shown. */
  function reread(): void {
    isOutdated = true;
    void read();
  }
  function stop(): void {
    over = true;
    clearTimeout(timer);
  }
  return { read, reread, stop };
}

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

  let readAt = Date.now();

  function tick() {
    now = Date.now() + skew;
    if (Math.abs(Date.now() - readAt) < AGE_MAX) return;
    readAt = Date.now();
    void deadList.read();
    void keyList.read();
  }

  function hear({ name, data }: Event) {
    if (name === "minutes") minutes = JSON.parse(data) as Minute[];
    if (name !== "overview") return;
    overview = JSON.parse(data) as Overview;
    skew = overview.now - Date.now();
    tick();
    if (overview.dead !== deadTold) {
      deadTold = overview.dead;
      void deadList.read();
    }
  }

  function showDead(page: Page) {
    dead = page.jobs;
    next = page.next;
  }

  /** As many as are shown: none goes from under a pointer. */
  const shownDead = () => Math.min(DEAD_MAX, Math.max(PAGE, dead?.length ?? 0));
  const deadList = persistent(() => api.dead(key, shownDead()), showDead, onRefused);
  const keyList = persistent(() => api.keys(key), (read) => (keys = read), onRefused);

  $effect(() =>
    untrack(() => {
      const hand = secondHand(() => true, tick);
      hand.update();
      const unfollow = follow((signal) => api.events(key, signal), {
        onEvent: hear,
        onLive: () => {
          link = { kind: "live" };
          deadTold = undefined;
          void keyList.read();
        },
        onLost: (again) => (link = { kind: "lost", again }),
        onRefused,
      });
      return () => {
        unfollow();
        deadList.stop();
        keyList.stop();
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
      const page = await api.dead(key, PAGE, from);
      // Another answer was first, or the list was read anew meanwhile.
      if (next !== from) return;
      const known = new Set(dead?.map(({ id }) => id));
      dead = [...(dead ?? []), ...page.jobs.filter(({ id }) => !known.has(id))];
      next = page.next;
    },
    retry: async (job: string) => {
      const made = await api.retry(key, job);
      dead = dead?.filter(({ id }) => id !== job);
      deadList.reread();
      return made.id;
    },
    createKey: async (wanted: NewKey) => {
      const made = await api.createKey(key, wanted);
      keyList.reread();
      return made;
    },
    revokeKey: async (id: string) => {
      await api.revokeKey(key, id);
      keyList.reread();
    },
  };
}

export type Board = ReturnType<typeof board>;
