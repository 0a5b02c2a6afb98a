// How long to wait before another try.

/** The wait after a first failure that names none; it doubles up to the longest. */
const FIRST_MS = 300;
const LONGEST_MS = 10_000;
/** Share of a wait that is added at random, so that clients refused together do not come back together. */
const SPREAD = 0.5;

/** What the server asked for, never less; else ever longer. */
export function waitMs(attempt: number, retryAfterMs: number | undefined, random: () => number = Math.random): number {
  if (retryAfterMs !== undefined) return retryAfterMs * (1 + SPREAD * random());
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** attempt) * (1 - SPREAD + random());
}
