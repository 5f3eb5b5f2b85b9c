import { Refused } from "./api";

/** One server-sent event. */
export type Event = { name: string; data: string };

/** Maximum length of an event, in characters; no event of a relay comes near it. */
const EVENT_MAX = 4 * 1024 * 1024;

/** An incremental parser of server-sent events; keeps incomplete events. */
export function eventReader(): (piece: string) => Event[] {
  let rest = "";
  let name = "";
  let data: string[] = [];
  return (piece) => {
    rest += piece;
    if (rest.length > EVENT_MAX) throw new Error("an event without an end");
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    const events: Event[] = [];
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) events.push({ name: name || "message", data: data.join("\n") });
        name = "";
        data = [];
      } else if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data.push(line.slice(6));
    }
    return events;
  };
}

export type Hearer = {
  onEvent: (event: Event) => void;
  /** The stream is open; all later events will arrive. */
  onLive: () => void;
  /** The stream broke; it is reopened at the time `again`. */
  onLost: (again: number) => void;
  /** The key is no longer valid; the stream is not reopened. */
  onRefused: (why: Refused) => void;
};

/** Timeout of a silent stream, in milliseconds; a relay sends a heartbeat at least every 55 s. */
const SILENCE = 70_000;
const FIRST = 1_000;
const LONGEST = 30_000;

/** The reconnect delay in milliseconds: exponential up to half a minute, with jitter. */
export function pause(failures: number, chance: number): number {
  const most = Math.min(LONGEST, FIRST * 2 ** failures);
  return most / 2 + (most / 2) * chance;
}

/** Follows a stream and reopens it after every failure, until the returned function is called. */
export function follow(open: (signal: AbortSignal) => Promise<Response>, hearer: Hearer, chance = Math.random): () => void {
  let over = false;
  let attempt = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;

  async function read(): Promise<void> {
    attempt = new AbortController();
    const mine = attempt;
    // Also covers a relay that accepts the request but never responds. Aborts on every exit, so that no two streams are
    // open.
    const giveUp = () => mine.abort();
    let watchdog = setTimeout(giveUp, SILENCE);
    try {
      const answer = await open(mine.signal);
      const body = answer.body;
      if (!body) throw new Error("no stream");
      const reader = body.getReader();
      const decoder = new TextDecoder();
      const events = eventReader();
      let isLive = false;
      for (;;) {
        const { done, value } = await reader.read();
        if (over || done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, SILENCE);
        if (!isLive) {
          isLive = true;
          failures = 0;
          hearer.onLive();
        }
        for (const event of events(decoder.decode(value, { stream: true }))) hearer.onEvent(event);
      }
    } finally {
      clearTimeout(watchdog);
      giveUp();
    }
  }

  async function tryOnce(): Promise<void> {
    timer = undefined;
    try {
      await read();
    } catch (reason) {
      if (!over && reason instanceof Refused && reason.isAboutKey) return hearer.onRefused(reason);
    }
    if (over) return;
    const wait = pause(failures, chance());
    failures += 1;
    hearer.onLost(Date.now() + wait);
    timer = setTimeout(() => void tryOnce(), wait);
  }

  /** The network is back, or the page is visible again: reconnects without delay. */
  function hurry(): void {
    if (over || timer === undefined || document.hidden) return;
    clearTimeout(timer);
    void tryOnce();
  }

  window.addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
  void tryOnce();
  return () => {
    over = true;
    clearTimeout(timer);
    attempt.abort();
    window.removeEventListener("online", hurry);
    document.removeEventListener("visibilitychange", hurry);
  };
}
