import type * as wire from "../lib/wire";
import { words } from "./words";

export type Overview = wire.Overview;
export type Worker = wire.WorkerView;
export type Carrier = wire.WorkerCarrier;
export type Minute = wire.MinuteView;
export type Job = wire.JobView;

export const SCOPES = ["enqueue", "read", "work", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** Scopes are words of this page, which has a name for each. */
export type Key = Omit<wire.KeyView, "scopes"> & { scopes: Scope[] };
export type NewKey = Omit<wire.NewKey, "scopes"> & { scopes: Scope[] };

/** The relay refused, or could not be reached (`status` 0). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }

  /** Whether the key itself is the reason. */
  get isAboutKey(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export type Page = { jobs: Job[]; next?: string };

/** The relay that served this page. The key is sent in a header, never in a URL. */
export type Api = {
  overview: (key: string) => Promise<Overview>;
  /** The event stream; the caller reads its body. */
  events: (key: string, signal: AbortSignal) => Promise<Response>;
  dead: (key: string, limit: number, after?: string) => Promise<Page>;
  /** The newest waiting jobs. */
  waiting: (key: string, limit: number) => Promise<Page>;
  retry: (key: string, job: string) => Promise<Job>;
  cancel: (key: string, job: string) => Promise<void>;
  keys: (key: string) => Promise<Key[]>;
  createKey: (key: string, wanted: NewKey) => Promise<Key>;
  revokeKey: (key: string, id: string) => Promise<void>;
};

/** Timeout of a whole response, in milliseconds. The stream has its own. */
const PATIENCE = 20_000;

export function relayApi(fetch: typeof globalThis.fetch): Api {
  async function ask(key: string, path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (key) headers.set("authorization", `Bearer ${key}`);
    const signal = init.signal ?? AbortSignal.timeout(PATIENCE);
    const answer = await reached(fetch(path, { ...init, signal, headers, cache: "no-store", credentials: "omit" }));
    if (answer.ok) return answer;
    throw new Refused(answer.status, await reasonOf(answer));
  }

  const whole = async <T>(answer: Response): Promise<T> => reached(answer.json() as Promise<T>);
  const json = async <T>(answer: Promise<Response>): Promise<T> => whole<T>(await answer);
  const id = encodeURIComponent;

  async function jobs(key: string, state: "dead" | "queued", limit: number, after?: string): Promise<Page> {
    const more = after ? `&after=${id(after)}` : "";
    const answer = await ask(key, `/api/admin/jobs?state=${state}&limit=${limit}${more}`);
    const next = /after=([^>&]+)/.exec(answer.headers.get("link") ?? "")?.[1];
    return { jobs: await whole<Job[]>(answer), ...(next && { next }) };
  }

  return {
    overview: (key) => json(ask(key, "/api/admin/overview")),
    events: (key, signal) => ask(key, "/api/admin/events", { signal, headers: { accept: "text/event-stream" } }),
    dead: (key, limit, after) => jobs(key, "dead", limit, after),
    waiting: (key, limit) => jobs(key, "queued", limit),
    retry: (key, job) => json(ask(key, `/api/admin/jobs/${id(job)}/retry`, { method: "POST" })),
    cancel: async (key, job) => void (await ask(key, `/api/admin/jobs/${id(job)}`, { method: "DELETE" })),
    keys: (key) => json(ask(key, "/api/admin/keys")),
    createKey: (key, wanted) => {
      const headers = { "content-type": "application/json" };
      return json(ask(key, "/api/admin/keys", { method: "POST", headers, body: JSON.stringify(wanted) }));
    },
    revokeKey: async (key, name) => void (await ask(key, `/api/admin/keys/${id(name)}`, { method: "DELETE" })),
  };
}

/** Turns a network error or a timeout into `Refused` with status 0. */
async function reached<T>(coming: Promise<T>): Promise<T> {
  try {
    return await coming;
  } catch (reason) {
    const isLate = reason instanceof DOMException && reason.name === "TimeoutError";
    throw new Refused(0, isLate ? words.late(PATIENCE / 1000) : String(reason));
  }
}

/** The relay's error message, or the meaning of the status. */
async function reasonOf(answer: Response): Promise<string> {
  try {
    const body = (await answer.json()) as { error?: { message?: unknown } };
    if (typeof body.error?.message === "string") return body.error.message;
  } catch {
    // Not an error of the relay: a proxy answered.
  }
  return `HTTP ${answer.status}`;
}
