// Messages without a final answer, in the order written, as data without IO: what to send next, and what an answer means.

import { waitMs } from './backoff.js';
import { isRetryable, type Failure, type Receipt } from './protocol.js';
import type { OutboxStorage } from './storage.js';

/** The server knows a `cid` for 15 min after it stored the message; an answer may take half a minute of that. */
const CID_LIFE_MS = 14.5 * 60_000;
/** More than a person writes during an outage. */
const ENTRIES_MAX = 500;
/** Well below the 5 MB that browsers keep for a site. */
const CHARS_MAX = 1_000_000;
/** An internal error that comes back as often has its cause in the message. */
const INTERNAL_MAX = 5;

/** The client's own fields of a message. */
export interface MessagePayload {
  message: string;
  [field: string]: unknown;
}

/** A message on its way. */
export interface OutboxEntry {
  /** Makes sending again harmless. */
  cid: string;
  roomID: string;
  payload: MessagePayload;
  /** When it was written, Unix ms. */
  createdAt: number;
  /** Why it will not be sent again by itself; see `retry` and `discard`. */
  problem?: { code: string; message: string };
}

/** What an answer means for its entry. */
export type Outcome = { kind: 'sent' } | { kind: 'failed'; entry: OutboxEntry } | { kind: 'again'; atMs: number } | { kind: 'gone' };

export class Outbox {
  #entries: OutboxEntry[];
  readonly #storage: OutboxStorage;
  readonly #attempts = new Map<string, number>();
  readonly #onStorageError: (error: unknown) => void;

  constructor(storage: OutboxStorage, onStorageError: (error: unknown) => void = () => {}) {
    this.#storage = storage;
    this.#onStorageError = onStorageError;
    this.#entries = storage.load().slice(-ENTRIES_MAX);
  }

  /** Everything without a final answer, or with a problem that nobody has dealt with. */
  all(roomID?: string): readonly OutboxEntry[] {
    return roomID === undefined ? [...this.#entries] : this.#entries.filter((entry) => entry.roomID === roomID);
  }

  find(cid: string): OutboxEntry | undefined {
    return this.#entries.find((entry) => entry.cid === cid);
  }

  /** Takes a message; `undefined` when there is no room for it. */
  add(roomID: string, payload: MessagePayload, now: number): OutboxEntry | undefined {
    const size = JSON.stringify(payload).length;
    while (this.#entries.length >= ENTRIES_MAX || this.#size() + size > CHARS_MAX) {
      const failed = this.#entries.findIndex(({ problem }) => problem);
      if (failed < 0) return undefined;
      this.#entries.splice(failed, 1);
    }
    const entry = { cid: randomCid(), roomID, payload, createdAt: now };
    this.#entries.push(entry);
    this.#save();
    return entry;
  }

  /** The oldest message of a room that has to be sent. */
  next(roomID: string): OutboxEntry | undefined {
    return this.#entries.find((entry) => entry.roomID === roomID && !entry.problem);
  }

  /** Marks what is too old to be sent again without asking: its `cid` may no longer be known. */
  expire(now: number): OutboxEntry[] {
    const expired = this.#entries.filter((entry) => !entry.problem && isExpired(entry, now));
    for (const entry of expired) entry.problem = { code: 'expired', message: 'no answer came in time; it may have been sent or not' };
    if (expired.length) this.#save();
    return expired;
  }

  /** Takes the answer to a send. */
  answer(cid: string, answer: Receipt | Failure, now: number, random: () => number = Math.random): Outcome {
    const entry = this.find(cid);
    if (!entry) return { kind: 'gone' };
    if (answer.ok) {
      this.remove(cid);
      return { kind: 'sent' };
    }
    const attempt = this.#attempts.get(cid) ?? 0;
    this.#attempts.set(cid, attempt + 1);
    const again = isRetryable(answer) || answer.code === 'not_joined' || (answer.code === 'internal' && attempt + 1 < INTERNAL_MAX);
    if (again) return { kind: 'again', atMs: now + waitMs(attempt, answer.retryAfterMs, random) };
    entry.problem = { code: answer.code, message: answer.message };
    this.#save();
    return { kind: 'failed', entry };
  }

  /** Sends a message with a problem again, as the last of its room; one that may be stored under its `cid` gets another. */
  retry(cid: string, now: number): OutboxEntry | undefined {
    const entry = this.find(cid);
    if (!entry?.problem) return undefined;
    const fresh = entry.problem.code === 'cid_conflict' || isExpired(entry, now);
    this.remove(cid);
    const { problem, ...rest } = entry;
    const renewed = fresh ? { ...rest, cid: randomCid(), createdAt: now } : rest;
    this.#entries.push(renewed);
    this.#save();
    return renewed;
  }

  /** Gives up whatever waits for a room. */
  fail(roomID: string, problem: { code: string; message: string }): OutboxEntry[] {
    const failed = this.#entries.filter((entry) => entry.roomID === roomID && !entry.problem);
    for (const entry of failed) entry.problem = problem;
    if (failed.length) this.#save();
    return failed;
  }

  remove(cid: string): OutboxEntry | undefined {
    const at = this.#entries.findIndex((entry) => entry.cid === cid);
    if (at < 0) return undefined;
    const [entry] = this.#entries.splice(at, 1);
    this.#attempts.delete(cid);
    this.#save();
    return entry;
  }

  #size(): number {
    return this.#entries.reduce((sum, { payload }) => sum + JSON.stringify(payload).length, 0);
  }

  #save(): void {
    try {
      this.#storage.save(this.#entries);
    } catch (error) {
      // A full or forbidden storage costs the reload, not the message.
      this.#onStorageError(error);
    }
  }
}

const isExpired = ({ createdAt }: OutboxEntry, now: number): boolean => now - createdAt > CID_LIFE_MS;

/** `crypto.randomUUID` exists on secure origins only. */
function randomCid(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
