import { fireEvent, screen, within } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";

import { DEAD_COUNTED_MAX } from "../lib/wire";
import { until } from "../test-until";
import { Refused, type Job, type Key, type Overview, type Page } from "./api";
import { dead, enter, fixture, KEY, own, relay, rest } from "./test-relay";
import { words } from "./words";

test("a wrong key is refused with the reason and kept nowhere", async () => {
  const { kept } = relay();
  await enter("hearth_wrong");
  await until(() => expect(screen.getByRole("alert").textContent).toContain(words.badKey));
  expect(kept.size).toBe(0);
});

test("a good key opens the board, is kept for the tab, and signing out forgets it", async () => {
  const { kept } = relay();
  await enter(` ${KEY}\n`);
  await until(() => expect(screen.getByTestId("waiting").textContent).toBe("7"));
  expect([...kept.values()]).toEqual([KEY]);
  expect(screen.getAllByTestId("worker").map((row) => row.querySelector("th")!.textContent)).toHaveLength(4);
  expect(screen.getByTestId("priority-5").textContent).toContain("4");
  await fireEvent.click(screen.getByTestId("leave"));
  expect(kept.size).toBe(0);
  expect(await screen.findByLabelText(words.key)).toBeTruthy();
});

test("of each worker it is told when it was seen last", async () => {
  const workers = fixture.workers.map((worker) => ({ ...worker, last_seen: fixture.now - 3 * 60_000 }));
  const { say } = relay();
  await enter(KEY);
  await screen.findAllByTestId("worker");
  say(`event: overview\ndata: ${JSON.stringify({ ...fixture, workers })}\n\n`);
  const seen = () => screen.getAllByTestId("worker-seen").map((cell) => cell.textContent);
  // The relay sends no event for a worker that stays.
  await until(() => expect(seen()).toEqual(["now", "now", "now", "3 min. ago"]));
  expect(screen.getAllByTestId("worker")[3]!.textContent).toContain(words.gone);
});

test("a dead job is retried and leaves the list; what it says stays text", async () => {
  const { api } = relay();
  await enter(KEY);
  const row = await screen.findByTestId("dead-job");
  expect(row.textContent).toContain("<b>it</b> broke");
  expect(row.querySelector("b")).toBeNull();
  await fireEvent.click(within(row).getByTestId("retry"));
  expect(api.retry).toHaveBeenCalledWith(KEY, dead.id);
  await until(() => expect(screen.queryByTestId("dead-job")).toBeNull());
  expect(screen.getByTestId("dead-said").textContent).toBe(words.retried("cdcdcdcd"));
});

test("a new key is shown once, and gone when its dialog is closed", async () => {
  const { api } = relay();
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("new-key"));
  await fireEvent.click(screen.getByTestId("create"));
  await until(() => expect(screen.getByTestId("new-problem").textContent).toBe(words.needName));
  expect(api.createKey).not.toHaveBeenCalled();
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "ci" } });
  await fireEvent.click(screen.getByTestId("create"));
  expect(((await screen.findByTestId("secret")) as HTMLInputElement).value).toBe("hearth_new");
  expect(api.createKey).toHaveBeenCalledWith(KEY, { name: "ci", account: "default", scopes: ["enqueue", "read"] });
  await fireEvent.click(screen.getByTestId("secret-done"));
  expect(screen.queryByTestId("secret")).toBeNull();
});

test("a key for agents is told whose jobs they answer, and any other key is not asked", async () => {
  const { api } = relay();
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("new-key"));
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "attic" } });
  expect(screen.queryByTestId("new-serves")).toBeNull();
  const work = screen.getByTestId("scope-work");
  await fireEvent.click(work);
  const serves = screen.getByTestId("new-serves");
  await fireEvent.input(serves, { target: { value: "team, two words" } });
  await fireEvent.click(screen.getByTestId("create"));
  expect(screen.getByTestId("new-problem").textContent).toBe(words.badAccount("two words"));
  expect(api.createKey).not.toHaveBeenCalled();
  await fireEvent.click(work);
  expect(screen.queryByTestId("new-serves")).toBeNull();
  await fireEvent.click(screen.getByTestId("create"));
  const wanted = { name: "attic", account: "default", scopes: ["enqueue", "read"] };
  expect(api.createKey).toHaveBeenLastCalledWith(KEY, wanted);
});

test.each([
  ["", undefined],
  ["all", ["all"]],
  [" team,lab.2 ,", ["team", "lab.2"]],
])("the accounts served are those that are named: %j", async (says, serve) => {
  const { api } = relay();
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("new-key"));
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "attic" } });
  for (const scope of ["enqueue", "read", "work"]) await fireEvent.click(screen.getByTestId(`scope-${scope}`));
  await fireEvent.input(screen.getByTestId("new-serves"), { target: { value: says } });
  await fireEvent.click(screen.getByTestId("create"));
  const wanted = { name: "attic", account: "default", scopes: ["work"], ...(serve && { serve }) };
  expect(api.createKey).toHaveBeenCalledWith(KEY, wanted);
});

test("whichever way a dialog is closed, the focus goes back to where it was opened", async () => {
  relay();
  await enter(KEY);
  const opens = await screen.findByTestId("new-key");
  opens.focus();
  await fireEvent.click(opens);
  await until(() => expect(document.activeElement).not.toBe(opens));
  await fireEvent.click(screen.getByRole("button", { name: words.cancel }));
  expect(document.activeElement).toBe(opens);
  await fireEvent.click(opens);
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "ci" } });
  await fireEvent.click(screen.getByTestId("create"));
  expect(document.activeElement).toBe(await screen.findByTestId("secret"));
  await fireEvent.click(screen.getByTestId("secret-done"));
  expect(document.activeElement).toBe(opens);
});

test("after a key is revoked the focus is on the keys, as its row goes", async () => {
  const other: Key = { ...own, id: "b", name: "ci" };
  let keys = [own, other];
  relay({
    keys: vi.fn(async () => keys),
    revokeKey: vi.fn(async () => void (keys = [own])),
  });
  await enter(KEY);
  const revoke = await screen.findByLabelText(words.revokeKey("ci"));
  revoke.focus();
  await fireEvent.click(revoke);
  await fireEvent.click(screen.getByTestId("revoke-yes"));
  await until(() => expect(screen.getAllByTestId("key-row")).toHaveLength(1));
  const keysThere = screen.getByRole("region", { name: words.keysTitle });
  await until(() => expect(document.activeElement).toBe(keysThere));
});

test("a new key is shown although the list of keys cannot be read then", async () => {
  let reads = 0;
  relay({ keys: vi.fn(async () => (++reads === 1 ? [own] : new Promise<Key[]>(() => {}))) });
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("new-key"));
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "ci" } });
  await fireEvent.click(screen.getByTestId("create"));
  expect(((await screen.findByTestId("secret")) as HTMLInputElement).value).toBe("hearth_new");
});

test("while a key is being made its dialog stays and says so", async () => {
  let answer!: (key: Key) => void;
  const { api } = relay({ createKey: vi.fn(() => new Promise<Key>((made) => (answer = made))) });
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("new-key"));
  await fireEvent.input(screen.getByTestId("new-name"), { target: { value: "ci" } });
  await fireEvent.click(screen.getByTestId("create"));
  expect(screen.getByTestId("create").textContent).toBe(words.creating);
  const dialog = screen.getByRole("dialog");
  expect(await fireEvent(dialog, new Event("cancel", { cancelable: true }))).toBe(false);
  expect(await fireEvent.keyDown(document.body, { key: "Escape" })).toBe(false);
  await fireEvent.click(screen.getByRole("button", { name: words.cancel }));
  expect(screen.getByTestId("create").getAttribute("aria-disabled")).toBe("true");
  await fireEvent.click(screen.getByTestId("create"));
  expect(api.createKey).toHaveBeenCalledOnce();
  answer({ ...own, name: "ci", key: "hearth_new" });
  expect(await screen.findByTestId("secret")).toBeTruthy();
  expect(await fireEvent.keyDown(document.body, { key: "Escape" })).toBe(true);
  expect(await fireEvent(dialog, new Event("cancel", { cancelable: true }))).toBe(true);
});

test("before it is known whether a key is needed the page says that it looks", async () => {
  relay({ overview: () => new Promise<Overview>(() => {}) });
  expect(screen.getByRole("status").textContent).toBe(words.opening);
});

test("a key is revoked only once that is confirmed, and one's own ends the session", async () => {
  const { api, kept } = relay();
  await enter(KEY);
  await fireEvent.click(await screen.findByTestId("revoke"));
  expect(screen.getByRole("dialog").textContent).toContain(words.revokeOwn);
  expect(api.revokeKey).not.toHaveBeenCalled();
  await fireEvent.click(screen.getByTestId("revoke-yes"));
  expect(api.revokeKey).toHaveBeenCalledWith(KEY, own.id);
  await until(() => expect(kept.size).toBe(0));
});

test("a relay that asks for no key is opened at once", async () => {
  relay({ overview: async () => fixture });
  await until(() => expect(screen.getByTestId("waiting").textContent).toBe("7"));
  expect(screen.queryByTestId("leave")).toBeNull();
});

/** Answers that the test releases. */
function late() {
  const answers: ((jobs: Job[], next?: string) => void)[] = [];
  const ask = vi.fn(
    (_: string, _limit: number, _after?: string) =>
      new Promise<Page>((answer) => answers.push((jobs, next) => answer({ jobs, ...(next && { next }) }))),
  );
  return { ask, answers };
}

const overview = (dead: number) => `event: overview\ndata: ${JSON.stringify({ ...fixture, dead })}\n\n`;
const named = (n: number): Job => ({ ...dead, id: "01a207f2".padEnd(24, "0") + String(n).padStart(8, "0") });
const from = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, at) => named(first + at));

test("under a storm of failures the list is asked for once at a time, and each answer is shown", async () => {
  const { ask, answers } = late();
  const { say } = relay({ dead: ask });
  await enter(KEY);
  await until(() => expect(answers).toHaveLength(1));
  for (let count = 11; count <= 15; count++) {
    say(overview(count));
    await rest();
  }
  expect(answers).toHaveLength(1);
  answers[0]!([dead]);
  await until(() => expect(screen.getAllByTestId("dead-job")).toHaveLength(1));
  await until(() => expect(answers).toHaveLength(2));
  answers[1]!([dead, named(1)]);
  await until(() => expect(screen.getAllByTestId("dead-job")).toHaveLength(2));
  await rest();
  expect(answers).toHaveLength(2);
});

test("a job that was retried does not come back with an answer from before", async () => {
  const { ask, answers } = late();
  const { say } = relay({ dead: ask });
  await enter(KEY);
  await until(() => expect(answers).toHaveLength(1));
  answers[0]!([dead]);
  const row = await screen.findByTestId("dead-job");
  say(overview(9));
  await until(() => expect(answers).toHaveLength(2));
  await fireEvent.click(within(row).getByTestId("retry"));
  await until(() => expect(screen.queryByTestId("dead-job")).toBeNull());
  answers[1]!([dead]);
  await until(() => expect(answers).toHaveLength(3));
  expect(screen.queryByTestId("dead-job")).toBeNull();
  answers[2]!([]);
  await rest();
  expect(screen.queryByTestId("dead-job")).toBeNull();
});

test("as many dead jobs are read again as are shown", async () => {
  const { ask, answers } = late();
  const { say } = relay({ dead: ask });
  await enter(KEY);
  await until(() => expect(answers).toHaveLength(1));
  answers[0]!(from(1, 20), "20");
  await fireEvent.click(await screen.findByText(words.showMore));
  expect(ask.mock.calls[1]).toEqual([KEY, 20, "20"]);
  answers[1]!(from(21, 40), "40");
  await until(() => expect(screen.getAllByTestId("dead-job")).toHaveLength(40));
  say(overview(59));
  await until(() => expect(answers).toHaveLength(3));
  expect(ask.mock.calls[2]).toEqual([KEY, 40]);
  answers[2]!(from(0, 39), "39");
  await until(() => expect(screen.getAllByTestId("dead-job")[0]!.textContent).toContain(named(0).id.slice(-8)));
  expect(screen.getAllByTestId("dead-job")).toHaveLength(40);
});

test("with more dead jobs than are counted, those after the retried ones move up", async () => {
  const { ask, answers } = late();
  const { say } = relay({ dead: ask });
  await enter(KEY);
  await until(() => expect(answers).toHaveLength(1));
  say(overview(DEAD_COUNTED_MAX));
  answers[0]!([dead], "20");
  await until(() => expect(answers).toHaveLength(2));
  answers[1]!([dead], "20");
  expect(screen.getByTestId("dead-count").textContent).toBe("1,000+");
  await fireEvent.click(within(await screen.findByTestId("dead-job")).getByTestId("retry"));
  await until(() => expect(answers).toHaveLength(3));
  expect(screen.getByTestId("no-dead").textContent).toBe(words.unknown);
  answers[2]!(from(21, 40), "40");
  await until(() => expect(screen.getAllByTestId("dead-job")).toHaveLength(20));
});

test("more of the dead are added once, however often it is asked", async () => {
  const older: Job = { ...dead, id: "ef".repeat(16) };
  const pages = vi.fn(async (_: string, __: number, from?: string) => (from ? { jobs: [dead, older] } : { jobs: [dead], next: "2" }));
  relay({ dead: pages });
  await enter(KEY);
  const more = await screen.findByText(words.showMore);
  await Promise.all([fireEvent.click(more), fireEvent.click(more)]);
  await until(() => expect(screen.getAllByTestId("dead-job")).toHaveLength(2));
  expect(screen.queryByText(words.showMore)).toBeNull();
});

test("all lists are read again each minute, as not all that changes them is told", async () => {
  vi.useFakeTimers();
  try {
    const { api } = relay();
    await enter(KEY);
    await vi.advanceTimersByTimeAsync(1000);
    const calls = () => [vi.mocked(api.keys), vi.mocked(api.dead), vi.mocked(api.waiting)].map(({ mock }) => mock.calls.length);
    expect(calls()).toEqual([1, 1, 1]);
    await vi.advanceTimersByTimeAsync(58_000);
    expect(calls()).toEqual([1, 1, 1]);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(calls()).toEqual([2, 2, 2]);
    await vi.advanceTimersByTimeAsync(600_000);
    expect(calls()).toEqual([12, 12, 12]);
  } finally {
    vi.useRealTimers();
  }
});

test("lists that could not be read are read again, whether or not the relay says anything", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const pages = vi.fn(async () => ({ jobs: [dead] }));
    const keys = vi.fn(async () => [own]);
    pages.mockRejectedValueOnce(new Refused(503, "busy"));
    keys.mockRejectedValueOnce(new Refused(503, "busy")).mockRejectedValueOnce(new Error("lost"));
    relay({ dead: pages, keys });
    await enter(KEY);
    await vi.advanceTimersByTimeAsync(100);
    expect([pages, keys].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([pages, keys].map(({ mock }) => mock.calls.length)).toEqual([2, 3]);
    expect(screen.getByTestId("dead-job")).toBeTruthy();
    expect(screen.getAllByTestId("key-row")).toHaveLength(1);
  } finally {
    vi.useRealTimers();
  }
});
