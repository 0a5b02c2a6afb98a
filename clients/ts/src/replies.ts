// Replies of the model that are not messages yet: asked for, written before everybody's eyes, or failed.

import type { GptDelta, GptError, GptQueued, GptReset, PartOfReply, RoomEvent } from './protocol.js';
import { ReplyText } from './reply-text.js';

/** Without any sign for so long there will be none: a server ends every question sooner (180 s, and 20 s of grace). */
const SILENCE_MS = 210_000;
/** What was being written before a join and is not any more: its end is on its way, or was missed. */
const MISSED_MS = 5_000;
/** Replies of a room, failed ones included; a server has four of a room under way. */
const REPLIES_MAX = 20;
/** Ended replies remembered, so that a piece that comes late does not begin one again. */
const ENDED_MAX = 200;
/** A reply's id is its question's with this behind it. */
const SUFFIX = '-r';

/** The error of a reply whose end nobody told. */
const LOST = { code: 'lost', message: 'nothing was heard of this reply any more', retryable: true };

/** Why there is no reply. */
export type ReplyProblem = Pick<GptError, 'code' | 'message' | 'retryable'>;

/** A reply that is no message yet. A change is a new object. */
export interface Reply {
  readonly roomID: string;
  readonly id: string;
  /** The message that asks. */
  readonly question: string;
  /** `asked` until the server has taken the question in, `queued`, `writing` until the message is there, or `failed`. */
  readonly state: 'asked' | 'queued' | 'writing' | 'failed';
  /** How many of the room are before it, as far as is known. */
  readonly position: number | undefined;
  /** What was written so far; untrusted, to be shown as text. */
  readonly text: string;
  /** Whether pieces are missing in it. */
  readonly hasGap: boolean;
  /** The attempt; above 1: an earlier one has failed, and what it wrote does not count. */
  readonly gen: number;
  readonly problem: ReplyProblem | undefined;
  /** The room's `seq` when it failed: its place among the messages. */
  readonly failedAt: number | undefined;
}

class Entry {
  readonly text = new ReplyText();
  state: Reply['state'] = 'asked';
  position: number | undefined;
  problem: ReplyProblem | undefined;
  failedAt: number | undefined;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly roomID: string, readonly id: string) {}

  get reply(): Reply {
    const { roomID, id, state, position, text: { text, hasGap, gen }, problem, failedAt } = this;
    return { roomID, id, question: id.slice(0, -SUFFIX.length), state, position, text, hasGap, gen, problem, failedAt };
  }
}

export interface RepliesHandlers {
  /** What `list` answers for this room has changed. */
  changed(roomID: string): void;
  /** Up to which `seq` the room is known. */
  seq(roomID: string): number | undefined;
}

export class Replies {
  readonly #on: RepliesHandlers;
  /** By room, in the order asked. */
  readonly #rooms = new Map<string, Map<string, Entry>>();
  readonly #ended = new Set<string>();

  constructor(on: RepliesHandlers) {
    this.#on = on;
  }

  /** A room's replies in the order asked. */
  list(roomID: string): Reply[] {
    return [...(this.#rooms.get(roomID)?.values() ?? [])].map(({ reply }) => reply);
  }

  /** The next event of a room: a question, the end of a reply, or nothing of interest here. */
  seen({ kind, roomID, id, gpt }: RoomEvent, live: boolean): void {
    if (kind === 'gpt') this.#end(roomID, id);
    // A question of a page may have failed long ago.
    else if (kind === 'message' && gpt === true && live) this.#update(roomID, id + SUFFIX, () => true);
    else if (kind === 'delete' && this.#find(roomID, id + SUFFIX)?.state === 'failed') this.dismiss(roomID, id + SUFFIX);
  }

  queued({ roomID, id, position }: GptQueued): void {
    this.#update(roomID, id, (entry) => {
      if (entry.state !== 'asked' && entry.state !== 'queued') return false;
      Object.assign(entry, { state: 'queued', position });
      return true;
    });
  }

  delta(piece: GptDelta): void {
    this.#update(piece.roomID, piece.id, (entry) => this.#write(entry, entry.text.piece(piece)));
  }

  reset({ roomID, id, gen }: GptReset): void {
    this.#update(roomID, id, (entry) => this.#write(entry, entry.text.reset(gen)));
  }

  error({ roomID, id, code, message, retryable }: GptError): void {
    this.#update(roomID, id, (entry) => {
      this.#fail(entry, { code, message, retryable });
      return true;
    });
    this.#remember(id);
  }

  /** A join has told what is being written. */
  joined(roomID: string, parts: readonly PartOfReply[]): void {
    for (const part of parts) this.#update(roomID, part.id, (entry) => this.#write(entry, entry.text.part(part)));
    for (const entry of this.#rooms.get(roomID)?.values() ?? []) {
      if (entry.state === 'writing' && !parts.some(({ id }) => id === entry.id)) this.#await(entry, MISSED_MS);
    }
  }

  /** Forgets a failed one. */
  dismiss(roomID: string, id: string): void {
    if (this.#find(roomID, id)?.state === 'failed') this.#remove(roomID, id);
  }

  /** Forgets a room. */
  drop(roomID: string): void {
    for (const { timer } of this.#rooms.get(roomID)?.values() ?? []) clearTimeout(timer);
    if (this.#rooms.delete(roomID)) this.#on.changed(roomID);
  }

  /** Forgets all rooms. */
  clear(): void {
    for (const roomID of [...this.#rooms.keys()]) this.drop(roomID);
  }

  #find(roomID: string, id: string): Entry | undefined {
    return this.#rooms.get(roomID)?.get(id);
  }

  /** Changes one, which may be new. */
  #update(roomID: string, id: string, change: (entry: Entry) => boolean): void {
    if (this.#ended.has(id)) return;
    const room = this.#rooms.get(roomID) ?? new Map<string, Entry>();
    const entry = room.get(id) ?? new Entry(roomID, id);
    if (!change(entry)) return;
    this.#rooms.set(roomID, room.set(id, entry));
    for (const [oldest, { timer }] of room) {
      if (room.size <= REPLIES_MAX) break;
      clearTimeout(timer);
      room.delete(oldest);
    }
    if (entry.state !== 'failed') this.#await(entry, SILENCE_MS);
    this.#on.changed(roomID);
  }

  #write(entry: Entry, isNews: boolean): boolean {
    if (isNews) Object.assign(entry, { state: 'writing', position: undefined, problem: undefined, failedAt: undefined });
    return isNews;
  }

  #await(entry: Entry, ms: number): void {
    clearTimeout(entry.timer);
    entry.timer = setTimeout(() => {
      this.#fail(entry, LOST);
      this.#on.changed(entry.roomID);
    }, ms);
  }

  #fail(entry: Entry, problem: ReplyProblem): void {
    clearTimeout(entry.timer);
    this.#advance(entry);
    Object.assign(entry, { state: 'failed', position: undefined, problem, failedAt: this.#on.seq(entry.roomID) });
  }

  #end(roomID: string, id: string): void {
    this.#remember(id);
    const entry = this.#find(roomID, id);
    if (!entry) return;
    this.#advance(entry);
    this.#remove(roomID, id);
  }

  /** Those behind one that ends come nearer. One that was never taken in was before nobody. */
  #advance(ending: Entry): void {
    if (ending.state !== 'queued' && ending.state !== 'writing') return;
    let isBehind = false;
    for (const entry of this.#rooms.get(ending.roomID)?.values() ?? []) {
      if (isBehind && entry.state === 'queued' && entry.position) entry.position -= 1;
      isBehind ||= entry === ending;
    }
  }

  #remove(roomID: string, id: string): void {
    const room = this.#rooms.get(roomID);
    clearTimeout(room?.get(id)?.timer);
    room?.delete(id);
    if (room?.size === 0) this.#rooms.delete(roomID);
    this.#on.changed(roomID);
  }

  #remember(id: string): void {
    this.#ended.add(id);
    for (const oldest of this.#ended) {
      if (this.#ended.size <= ENDED_MAX) break;
      this.#ended.delete(oldest);
    }
  }
}
