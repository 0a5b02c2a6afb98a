// Waiting for conditions, never for time.

import { setTimeout as pause } from 'node:timers/promises';

/** How long a condition may take on a loaded machine with an unoptimised binary. */
export const DEADLINE_MS = 10_000;
/** Between two looks: short beside any deadline, long beside what a look costs. */
const LOOK_EVERY_MS = 25;

/** Calls `look` until it returns something truthy, which is the result; a throw counts as "not yet". */
export async function until(what, look, deadlineMs = DEADLINE_MS) {
  const end = performance.now() + deadlineMs;
  let last;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
      last = found;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= end) {
      const reason = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`not within ${deadlineMs} ms: ${what} (last: ${reason})`);
    }
    await pause(LOOK_EVERY_MS);
  }
}

/** The result of `promise`, or an error that says what did not happen. */
export function within(what, promise, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
