// The rooms of one client: joined after every connection, their holes filled, their order kept.

import { waitMs } from './backoff.js';
import { RoomCursor, type Step, type Want } from './cursor.js';
import { failure, isRetryable, type Cursor, type Failure, type PageInfo, type PartOfReply, type RoomEvent } from './protocol.js';

/** Joins asked for at once: enough to fill a round trip, few enough that the first ones are answered first. */
const JOINS_AT_ONCE = 4;
/** A join that has to ask the archive takes longer than a message. */
const JOIN_MS = 20_000;
const GAP_MS = 8_000;
/** Events of one `gap`. */
const GAP_EVENTS = 500;
/** Tries to fill a hole before a join has to. */
const GAP_TRIES = 4;
/** Positions in one handshake, whose size is limited. */
const RESUME_MAX = 200;

/** The way to the server. */
export interface Wire {
  readonly isOnline: boolean;
  ask(event: string, payload: unknown, timeoutMs: number): Promise<unknown>;
}

/** What became of a join's page. */
export interface Page {
  roomID: string;
  /** The events not yet delivered; with `reset` all there are, to replace what was shown. */
  events: RoomEvent[];
  reset: boolean;
  /** Whether events may be missing between what was known and this. */
  lost: boolean;
  /** Replies of the model that are being written. */
  gpt: readonly PartOfReply[];
}

export interface RoomsHandlers {
  /** The next event of its room. */
  event(event: RoomEvent): void;
  page(page: Page): void;
  joined(roomID: string): void;
  /** The room cannot be joined; it is not tried again by itself. */
  closed(roomID: string, reason: Failure): void;
}

class Room {
  readonly cursor = new RoomCursor();
  createdAt: unknown;
  joined = false;
  joining = false;
  /** Another join is wanted once this one has ended. */
  again = false;
  closed = false;
  attempts = 0;
  more = false;
  timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly id: string) {}
}

export class Rooms {
  readonly #wire: Wire;
  readonly #on: RoomsHandlers;
  readonly #rooms = new Map<string, Room>();
  #queue: Room[] = [];
  #joining = 0;
  /** Counts connections: an answer from an earlier one is nobody's. */
  #connection = 0;

  constructor(wire: Wire, on: RoomsHandlers) {
    this.#wire = wire;
    this.#on = on;
  }

  /** Wants a room from now on; one that is wanted already is first at the next connection. */
  want(roomID: string, createdAt?: unknown): void {
    const room = this.#rooms.get(roomID) ?? new Room(roomID);
    room.createdAt = createdAt ?? room.createdAt;
    room.closed = false;
    const others = [...this.#rooms].filter(([id]) => id !== roomID);
    this.#rooms.clear();
    for (const [id, one] of [[roomID, room] as const, ...others]) this.#rooms.set(id, one);
    if (!room.joined && !room.joining) this.#enqueue(room, true);
  }

  /** Wants a room no more; whether it was wanted. */
  drop(roomID: string): boolean {
    const room = this.#rooms.get(roomID);
    clearTimeout(room?.timer);
    return this.#rooms.delete(roomID);
  }

  /** Whether the room is wanted, and was not refused. */
  isWanted(roomID: string): boolean {
    return this.#rooms.get(roomID)?.closed === false;
  }

  isJoined(roomID: string): boolean {
    return this.#rooms.get(roomID)?.joined === true;
  }

  position(roomID: string): Cursor | undefined {
    return this.#rooms.get(roomID)?.cursor.position;
  }

  /** Where the client stands, for the handshake. */
  positions(): Record<string, Cursor> {
    const known = [...this.#rooms.values()].slice(0, RESUME_MAX).flatMap(({ id, cursor }) => (cursor.position ? [[id, cursor.position] as const] : []));
    return Object.fromEntries(known);
  }

  connected(): void {
    this.#connection += 1;
    for (const room of this.#rooms.values()) if (!room.closed) this.#enqueue(room);
  }

  disconnected(): void {
    this.#connection += 1;
    this.#queue = [];
    this.#joining = 0;
    for (const room of this.#rooms.values()) {
      clearTimeout(room.timer);
      room.cursor.suspend();
      Object.assign(room, { joined: false, joining: false, again: false, attempts: 0 });
    }
  }

  /** The server does not know of the join any more. */
  rejoin(roomID: string): void {
    const room = this.#rooms.get(roomID);
    if (!room || room.closed) return;
    room.joined = false;
    room.cursor.suspend();
    this.#enqueue(room);
  }

  event(event: RoomEvent): void {
    const room = this.#rooms.get(event.roomID);
    if (room) this.#take(room, room.cursor.offer(event));
  }

  page(events: readonly RoomEvent[], info: PageInfo): void {
    const room = this.#rooms.get(info.roomID);
    // A page that nobody waits for belongs to a join that was given up; the next one brings its own.
    if (!room?.joining) return;
    const { isLive, position } = room.cursor;
    if (isLive && position?.epoch === info.epoch && info.topSeq <= position.seq) return;
    const { deliver, reset, lost } = room.cursor.page(events, info);
    room.more = info.more && info.recovered;
    this.#on.page({ roomID: room.id, events: deliver, reset, lost, gpt: info.gpt ?? [] });
  }

  lost(roomID: string): void {
    const room = this.#rooms.get(roomID);
    if (room) this.#take(room, room.cursor.broken());
  }

  #take(room: Room, { deliver, want }: Step): void {
    for (const event of deliver) this.#on.event(event);
    if (want) this.#want(room, want);
  }

  #want(room: Room, want: Want): void {
    if (want.kind === 'join') this.#enqueue(room);
    else void this.#fill(room, want);
  }

  #enqueue(room: Room, first = false): void {
    clearTimeout(room.timer);
    if (room.joining) {
      room.again = true;
      return;
    }
    if (!this.#wire.isOnline) return;
    if (!this.#queue.includes(room)) this.#queue[first ? 'unshift' : 'push'](room);
    this.#pump();
  }

  #pump(): void {
    while (this.#joining < JOINS_AT_ONCE) {
      const room = this.#queue.shift();
      if (!room) return;
      if (this.#rooms.get(room.id) === room) void this.#join(room);
    }
  }

  async #join(room: Room): Promise<void> {
    const connection = this.#connection;
    this.#joining += 1;
    Object.assign(room, { joining: true, again: false, more: false });
    room.cursor.suspend();
    const created = room.createdAt === undefined ? {} : { createdAt: room.createdAt };
    const answer = await this.#wire.ask('join', { roomID: room.id, ...created, ...room.cursor.position }, JOIN_MS);
    if (connection !== this.#connection) return;
    this.#joining -= 1;
    room.joining = false;
    if (this.#rooms.get(room.id) === room) this.#joined(room, answer);
    this.#pump();
  }

  #joined(room: Room, answer: unknown): void {
    if ((answer as { ok?: boolean } | null)?.ok !== true) return this.#failed(room, failure(answer));
    if (!room.cursor.isLive && !room.again) {
      return this.#close(room, { ok: false, code: 'protocol', message: 'the server does not speak protocol 2' });
    }
    Object.assign(room, { joined: true, attempts: 0 });
    this.#on.joined(room.id);
    if (room.again) this.#enqueue(room);
    else if (room.more) void this.#readOn(room);
  }

  #failed(room: Room, reason: Failure): void {
    room.joined = false;
    room.cursor.suspend();
    if (!isRetryable(reason) && reason.code !== 'internal') return this.#close(room, reason);
    room.timer = setTimeout(() => this.#enqueue(room), waitMs(room.attempts, reason.retryAfterMs));
    room.attempts += 1;
  }

  #close(room: Room, reason: Failure): void {
    room.closed = true;
    this.#on.closed(room.id, reason);
  }

  async #fill(room: Room, { epoch, from, to }: Extract<Want, { kind: 'gap' }>): Promise<void> {
    const connection = this.#connection;
    const isMine = (): boolean => connection === this.#connection && this.#rooms.get(room.id) === room;
    for (let attempt = 0; ; attempt += 1) {
      const answer = await this.#wire.ask('loadMoreMessages_for_room', gap(room.id, epoch, from, to), GAP_MS);
      if (!isMine()) return;
      if (Array.isArray(answer)) return this.#take(room, room.cursor.fill(answer as RoomEvent[], to));
      const reason = failure(answer);
      if (!isRetryable(reason) || attempt + 1 >= GAP_TRIES) return this.#take(room, room.cursor.fail());
      await new Promise((resolve) => { setTimeout(resolve, waitMs(attempt, reason.retryAfterMs)); });
      if (!isMine()) return;
    }
  }

  /** The page was cut: the rest may come by itself, and is asked for in case it does not. */
  async #readOn(room: Room): Promise<void> {
    const connection = this.#connection;
    for (;;) {
      const at = room.cursor.position;
      if (!at || !room.cursor.isLive) return;
      const answer = await this.#wire.ask('loadMoreMessages_for_room', gap(room.id, at.epoch, at.seq + 1, at.seq + GAP_EVENTS), GAP_MS);
      if (connection !== this.#connection || this.#rooms.get(room.id) !== room) return;
      if (!Array.isArray(answer)) return this.#enqueue(room);
      if (answer.length === 0) return;
      for (const event of answer as RoomEvent[]) this.event(event);
    }
  }
}

const gap = (roomId: string, epoch: string, from: number, to: number): object => ({ roomId, type: 'gap', epoch, from, to });
