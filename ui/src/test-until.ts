// How long tests wait. A wait ends as soon as its condition holds, so a slow machine fails no test.
import { configure } from "@testing-library/svelte";
import { vi } from "vitest";

/** Maximum time for what a test waits for, in milliseconds. */
const PATIENCE = 20_000;

configure({ asyncUtilTimeout: PATIENCE });

/** Waits until the check no longer throws. */
export const until = <T>(check: () => T | Promise<T>) => vi.waitFor(check, PATIENCE);
