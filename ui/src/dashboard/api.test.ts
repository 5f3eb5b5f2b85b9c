import { expect, test, vi } from "vitest";

import { until } from "../test-until";
import { relayApi, Refused } from "./api";

function answering(answer: () => Response | Promise<Response>) {
  const asked: { url: string; init: RequestInit }[] = [];
  const api = relayApi((url, init) => {
    asked.push({ url: String(url), init: init ?? {} });
    return Promise.resolve(answer());
  });
  return { api, asked };
}

test("the key travels in a header and never in an address", async () => {
  const { api, asked } = answering(() => Response.json([]));
  await api.dead("hearth_id_secret_sum", 20);
  await api.keys("hearth_id_secret_sum");
  await api.keys("");
  const header = (n: number) => new Headers(asked[n]!.init.headers).get("authorization");
  expect([header(0), header(1), header(2)]).toEqual(["Bearer hearth_id_secret_sum", "Bearer hearth_id_secret_sum", null]);
  for (const { url, init } of asked) {
    expect(url).not.toContain("secret");
    expect(init.credentials).toBe("omit");
  }
});

test("a refusal is told in the relay's own words", async () => {
  const body = { error: { code: "bad_request", message: "a key named ci exists already" } };
  const { api } = answering(() => Response.json(body, { status: 400 }));
  const wanted = { name: "ci", scopes: ["read" as const] };
  await expect(api.createKey("k", wanted)).rejects.toMatchObject({ status: 400, message: "a key named ci exists already" });
  const proxy = answering(() => new Response("<html>", { status: 502 }));
  await expect(proxy.api.keys("k")).rejects.toMatchObject({ status: 502, message: "HTTP 502" });
  const away = relayApi(() => Promise.reject(new TypeError("Failed to fetch")));
  await expect(away.keys("k")).rejects.toBeInstanceOf(Refused);
});

test("a relay that takes a request and answers nothing, or half of it, is given up", async () => {
  const patience = vi.spyOn(AbortSignal, "timeout");
  try {
    const cut = new AbortController();
    patience.mockReturnValue(cut.signal);
    const silent = relayApi((_, init) => {
      return new Promise((_, refuse) => init!.signal!.addEventListener("abort", () => refuse(init!.signal!.reason)));
    });
    const half = relayApi(async (_, init) => {
      const start = (to: ReadableStreamDefaultController) =>
        init!.signal!.addEventListener("abort", () => to.error(init!.signal!.reason));
      return new Response(new ReadableStream({ start }));
    });
    const asked = [silent.overview(""), silent.retry("k", "1"), silent.dead("k", 20), half.keys("k"), half.dead("k", 20)];
    const ended = Promise.allSettled(asked);
    await until(() => expect(patience.mock.calls).toEqual(asked.map(() => [20_000])));
    cut.abort(new DOMException("signal timed out", "TimeoutError"));
    for (const one of await ended) {
      expect(one).toMatchObject({ status: "rejected", reason: { status: 0 } });
      expect(String((one as PromiseRejectedResult).reason.message)).toContain("20 s");
    }
    // The stream has its own timeout.
    const { api } = answering(() => new Response());
    await api.events("k", new AbortController().signal);
    expect(patience).toHaveBeenCalledTimes(asked.length);
  } finally {
    patience.mockRestore();
  }
});

test("the next page of dead jobs is where the relay says", async () => {
  const link = '<?state=dead&limit=20&after=1700-42>; rel="next"';
  const { api } = answering(() => Response.json([], { headers: { link } }));
  expect((await api.dead("k", 20)).next).toBe("1700-42");
  const last = answering(() => Response.json([]));
  expect((await last.api.dead("k", 20)).next).toBeUndefined();
});
