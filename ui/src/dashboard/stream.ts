import { Refused } from "./api";

/** One server-sent event. */
export type Event = { name: string; data: string };

/** Longest event that is read; a relay says nothing near it. */
const EVENT_MAX = 4 * 1024 * 1024;

/** Turns pieces of text into events; keeps what is incomplete. */
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
  /** The stream is open, and every event comes from now on. */
  onLive: () => void;
  /** It broke; it is opened again at that moment. */
  onLost: (again: number) => void;
  /** The key is not good any more; nothing is tried again. */
  onRefused: (why: Refused) => void;
};

/** A relay shows a sign of life at least every 55 s; one that is silent for longer is gone. */
const SILENCE = 70_000;
const FIRST = 1_000;
const LONGEST = 30_000;

/** Between two tries: twice as long each time, to half a minute, and never for all at once. */
export function pause(failures: number, chance: number): number {
  const most = Math.min(LONGEST, FIRST * 2 ** failures);
  return most / 2 + (most / 2) * chance;
}

/** Follows a stream, opening it again for ever, until the returned function is called. */
export function follow(open: (signal: AbortSignal) => Promise<Response>, hearer: Hearer, chance = Math.random): () => void {
  let over = false;
  let attempt = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;

  async function read(): Promise<void> {
    attempt = new AbortController();
    const mine = attempt;
    // Also a relay that takes the request and answers nothing is gone, and whatever goes wrong
    // here, the stream does not stay open beside the next.
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

  /** The machine is back on its network, or somebody looks again: no need to wait. */
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
