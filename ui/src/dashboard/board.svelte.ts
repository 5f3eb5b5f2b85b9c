import { untrack } from "svelte";

import { ticker } from "../lib/clock";
import { LISTED_MAX } from "../lib/wire";
import { Refused, type Api, type Job, type Key, type Minute, type NewKey, type Overview, type Page } from "./api";
import { follow, pause, type Event } from "./stream";

/** Number of dead jobs per page. */
const PAGE = 20;

/** Maximum number of waiting jobs that are listed. */
const WAITING_SHOWN = 50;

/** Minimum time between two requests for the waiting jobs, in milliseconds: a busy queue changes all the time. */
const WAITING_SPACING = 1_000;

/** Maximum age of the lists, in milliseconds. No event reports the use of a key, or changes by other operators. */
const AGE_MAX = 60_000;

export type Link = { kind: "connecting" } | { kind: "live" } | { kind: "lost"; again: number };

/**
 * Keeps a list up to date. A failed request leaves the list as it is and is retried later. At most one request is in
 * flight, and one more follows if the list was requested meanwhile, at least `spacing` milliseconds after it.
 */
function persistent<T>(
  ask: () => Promise<T>,
  show: (answer: T) => void,
  onRefused: (why: Refused) => void,
  spacing = 0,
) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let freeAt = 0;
  let failures = 0;
  let isAsking = false;
  let isWanted = false;
  let isOutdated = false;
  let over = false;
  async function read(): Promise<void> {
    isWanted = true;
    if (isAsking || over) return;
    clearTimeout(timer);
    const early = Math.min(spacing, freeAt - Date.now());
    if (early > 0) {
      timer = setTimeout(() => void read(), early);
      return;
    }
    freeAt = Date.now() + spacing;
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
  /** Discards the response in flight, which is outdated by a change made here, and requests the list again. */
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

/** Differs whenever other jobs are waiting, except if equal ones took their places. */
const waitingSign = ({ queue, jobs }: Overview) => JSON.stringify([queue, jobs.map(({ id }) => id)]);

/**
 * The latest data of the relay, and the operator's actions. Must be called during component setup, and ends with the
 * component. `onRefused` is called when the key is no longer valid.
 */
export function board(api: Api, key: string, onRefused: (why: Refused) => void) {
  let link = $state.raw<Link>({ kind: "connecting" });
  let overview = $state.raw<Overview | undefined>();
  let minutes = $state.raw<readonly Minute[]>([]);
  let waiting = $state.raw<Page | undefined>();
  /** Jobs that were cancelled here; a running one ends when its worker has heard of it. */
  let cancelled = $state.raw<ReadonlySet<string>>(new Set());
  let dead = $state.raw<readonly Job[] | undefined>();
  let next = $state.raw<string | undefined>();
  let keys = $state.raw<readonly Key[] | undefined>();
  /** The relay's clock. */
  let now = $state(Date.now());
  let skew = 0;
  let deadTold: number | undefined;
  let waitingTold: string | undefined;

  let readAt = Date.now();

  function tick() {
    now = Date.now() + skew;
    if (Math.abs(Date.now() - readAt) < AGE_MAX) return;
    readAt = Date.now();
    void deadList.read();
    void keyList.read();
    readWaiting();
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
    const sign = waitingSign(overview);
    if (sign !== waitingTold) {
      waitingTold = sign;
      readWaiting();
    }
  }

  const isNoneWaiting = () => overview?.queue.queued === 0;

  function readWaiting() {
    if (isNoneWaiting()) waiting = { jobs: [] };
    else void waitingList.read();
  }

  function showDead(page: Page) {
    dead = page.jobs;
    next = page.next;
  }

  /** At least as many as are shown, so that no row disappears under the pointer. */
  const shownDead = () => Math.min(LISTED_MAX, Math.max(PAGE, dead?.length ?? 0));
  const deadList = persistent(() => api.dead(key, shownDead()), showDead, onRefused);
  const waitingList = persistent(
    () => api.waiting(key, WAITING_SHOWN),
    (page) => (waiting = isNoneWaiting() ? { jobs: [] } : page),
    onRefused,
    WAITING_SPACING,
  );
  const keyList = persistent(() => api.keys(key), (read) => (keys = read), onRefused);

  $effect(() =>
    untrack(() => {
      const hand = ticker(() => true, tick);
      hand.update();
      const unfollow = follow((signal) => api.events(key, signal), {
        onEvent: hear,
        onLive: () => {
          link = { kind: "live" };
          deadTold = waitingTold = undefined;
          void keyList.read();
        },
        onLost: (again) => (link = { kind: "lost", again }),
        onRefused,
      });
      return () => {
        unfollow();
        deadList.stop();
        waitingList.stop();
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
    get waiting() {
      return waiting?.jobs;
    },
    /** Number of waiting jobs that are not listed. */
    get waitingMore() {
      const all = waiting?.next === undefined ? 0 : (overview?.queue.queued ?? 0);
      return Math.max(0, all - (waiting?.jobs.length ?? 0));
    },
    isCancelled: (job: string) => cancelled.has(job),
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
      // Another response was first, or the list was read again meanwhile.
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
    cancel: async (job: string) => {
      await api.cancel(key, job);
      cancelled = new Set([...cancelled, job]);
      if (!waiting?.jobs.some(({ id }) => id === job)) return;
      waiting = { ...waiting, jobs: waiting.jobs.filter(({ id }) => id !== job) };
      waitingList.reread();
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
