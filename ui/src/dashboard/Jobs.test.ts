import { fireEvent, screen, within } from "@testing-library/svelte";
import { expect, test, vi } from "vitest";

import { until } from "../test-until";
import { Refused, type Job, type Page } from "./api";
import { enter, fixture, job, KEY, relay, rest } from "./test-relay";
import { words } from "./words";

const [first, second] = fixture.jobs as [(typeof fixture.jobs)[0], (typeof fixture.jobs)[0]];
const waiting = (n: number): Job => ({ ...job, id: "01a207f2".padEnd(24, "0") + String(n).padStart(8, "0"), state: "queued" });
const told = (change: object) => `event: overview\ndata: ${JSON.stringify({ ...fixture, ...change })}\n\n`;
const queued = (n: number) => ({ queue: { ...fixture.queue, queued: n } });

test("a running job has an id, and is cancelled only once that is confirmed", async () => {
  const { api, say } = relay();
  await enter(KEY);
  const row = (await screen.findAllByTestId("running-job"))[0]!;
  expect(within(row).getByTitle(first.id).textContent).toBe(first.id.slice(-8));
  const cancel = within(row).getByTestId("cancel-jobs");
  cancel.focus();
  await fireEvent.click(cancel);
  expect(screen.getByRole("dialog").textContent).toContain(first.id);
  expect(document.activeElement?.textContent).toBe(words.keep);
  await fireEvent.click(screen.getByText(words.keep));
  expect(document.activeElement).toBe(cancel);
  expect(api.cancel).not.toHaveBeenCalled();

  await fireEvent.click(cancel);
  await fireEvent.click(screen.getByTestId("cancel-yes"));
  expect(api.cancel).toHaveBeenCalledWith(KEY, first.id);
  await until(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(screen.getByTestId("jobs-said").textContent).toBe(words.wasCancelled(first.id.slice(-8)));
  await until(() => expect(document.activeElement).toBe(screen.getByRole("region", { name: words.jobs })));
  // Until its worker has heard of it the job runs, but is not cancelled twice.
  expect(cancel.getAttribute("aria-disabled")).toBe("true");
  await fireEvent.click(cancel);
  expect(screen.queryByRole("dialog")).toBeNull();
  say(told({ jobs: [second] }));
  await until(() => expect(screen.getAllByTestId("running-job")).toHaveLength(1));
});

test("of the waiting jobs fifty are listed and the others counted; a cancelled one leaves at once", async () => {
  const page: Page = { jobs: Array.from({ length: 50 }, (_, n) => waiting(50 - n)), next: "1-1" };
  const silent = new Promise<Page>(() => {});
  let isCancelled = false;
  const { api, say } = relay({
    waiting: vi.fn(() => (isCancelled ? silent : Promise.resolve(page))),
    cancel: vi.fn(async () => void (isCancelled = true)),
  });
  await enter(KEY);
  say(told(queued(57)));
  const rows = await screen.findAllByTestId("waiting-job");
  expect(api.waiting).toHaveBeenCalledWith(KEY, 50);
  expect(rows).toHaveLength(50);
  await until(() => expect(screen.getByTestId("waiting-more").textContent).toBe(words.moreJobs("7")));
  expect(rows[0]!.textContent).toContain("00000050");
  expect(rows[0]!.textContent).toContain("home · chat");

  await fireEvent.click(within(rows[0]!).getByTestId("cancel-queue"));
  await fireEvent.click(screen.getByTestId("cancel-yes"));
  expect(api.cancel).toHaveBeenCalledWith(KEY, waiting(50).id);
  await until(() => expect(screen.getAllByTestId("waiting-job")).toHaveLength(49));
  expect(screen.getByTestId("queue-said").textContent).toBe(words.wasCancelled("00000050"));
  await until(() => expect(document.activeElement).toBe(screen.getByRole("region", { name: /^Waiting now/ })));
});

test("a job that ended first is not cancelled, and the focus stays among the jobs", async () => {
  const { say } = relay({ cancel: vi.fn(() => Promise.reject(new Refused(409, "the job has ended"))) });
  await enter(KEY);
  const cancel = (await screen.findAllByTestId("cancel-jobs"))[0]!;
  cancel.focus();
  await fireEvent.click(cancel);
  say(told({ jobs: [second] }));
  await until(() => expect(cancel.isConnected).toBe(false));
  await fireEvent.click(screen.getByTestId("cancel-yes"));
  const dialog = screen.getByRole("dialog");
  await until(() => expect(within(dialog).getByRole("alert").textContent).toBe(words.refused("the job has ended")));
  await fireEvent.click(screen.getByText(words.keep));
  const section = screen.getByRole("region", { name: words.jobs });
  await until(() => expect(document.activeElement).toBe(section));

  const last = screen.getByTestId("cancel-jobs");
  last.focus();
  say(told({ jobs: [] }));
  await until(() => expect(last.isConnected).toBe(false));
  await until(() => expect(document.activeElement).toBe(section));
});

test("the waiting jobs are read when others wait, once a second at most, and not for each token", async () => {
  vi.useFakeTimers();
  try {
    const { api, say } = relay({ waiting: vi.fn(async () => ({ jobs: [waiting(1)] })) });
    await enter(KEY);
    await vi.advanceTimersByTimeAsync(1_500);
    const asked = () => vi.mocked(api.waiting).mock.calls.length;
    expect(asked()).toBe(1);
    say(told({ jobs: [{ ...first, tokens: 900 }, second] }));
    await vi.advanceTimersByTimeAsync(1_500);
    expect(asked()).toBe(1);
    for (let n = 10; n < 19; n++) {
      say(told(queued(n)));
      await vi.advanceTimersByTimeAsync(100);
    }
    expect(asked()).toBe(2);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(asked()).toBe(3);
    say(told(queued(0)));
    await vi.advanceTimersByTimeAsync(5_000);
    expect(asked()).toBe(3);
    expect(screen.getByTestId("no-waiting").textContent).toBe(words.noWaitingJobs);
  } finally {
    vi.useRealTimers();
  }
});

test("an answer from when jobs waited does not bring them back once none does", async () => {
  let answer!: (page: Page) => void;
  const { say } = relay({ waiting: vi.fn(() => new Promise<Page>((read) => (answer = read))) });
  await enter(KEY);
  await until(() => expect(answer).toBeDefined());
  say(told(queued(0)));
  await until(() => expect(screen.getByTestId("no-waiting").textContent).toBe(words.noWaitingJobs));
  answer({ jobs: [waiting(1)] });
  await rest();
  expect(screen.queryByTestId("waiting-job")).toBeNull();
});
