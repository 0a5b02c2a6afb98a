// Sends the outbox: per room in order, one at a time, until there is a final answer.

import { Outbox, type MessagePayload, type OutboxEntry } from './outbox.js';
import { failure, RoomcastError, type Failure, type Receipt, type RoomEvent } from './protocol.js';
import type { Wire } from './rooms.js';

const MESSAGE_MS = 8_000;
/** Between two looks for what has become too old. */
const EXPIRE_EVERY_MS = 10_000;

export interface SenderHandlers {
  /** Whether the event of this number was delivered already. */
  isSeen(roomID: string, receipt: Receipt): boolean;
  /** Whether messages to this room can be sent now. */
  isReady(roomID: string): boolean;
  /** The server says that the room is not joined. */
  notJoined(roomID: string): void;
  sent(entry: OutboxEntry, receipt: Receipt): void;
  failed(entry: OutboxEntry, error: RoomcastError): void;
  /** What is pending in this room has changed. */
  changed(roomID: string): void;
}

interface Waiting {
  resolve(receipt: Receipt): void;
  reject(error: RoomcastError): void;
}

export class Sender {
  readonly #outbox: Outbox;
  readonly #wire: Wire;
  readonly #on: SenderHandlers;
  readonly #waiting = new Map<string, Waiting>();
  /** Stored, but the event has not come yet. */
  readonly #acked = new Map<string, OutboxEntry>();
  readonly #busy = new Set<string>();
  /** Rooms that have to wait before another try; `asked` where the server said how long. */
  readonly #waits = new Map<string, { timer: ReturnType<typeof setTimeout>; asked: boolean }>();
  #clock: ReturnType<typeof setTimeout> | undefined;

  constructor(outbox: Outbox, wire: Wire, on: SenderHandlers) {
    this.#outbox = outbox;
    this.#wire = wire;
    this.#on = on;
  }

  /** Rooms for which something waits. */
  get rooms(): Set<string> {
    return new Set(this.#outbox.all().filter(({ problem }) => !problem).map(({ roomID }) => roomID));
  }

  /** What is to be shown as on its way: stored messages too, until their event comes. */
  pending(roomID: string): OutboxEntry[] {
    const acked = [...this.#acked.values()].filter((entry) => entry.roomID === roomID);
    return [...acked, ...this.#outbox.all(roomID)];
  }

  send(roomID: string, payload: MessagePayload): Promise<Receipt> {
    const entry = this.#outbox.add(roomID, payload, Date.now());
    if (!entry) return Promise.reject(new RoomcastError({ code: 'outbox_full', message: 'too many messages wait to be sent' }));
    return this.#await(entry);
  }

  retry(cid: string): Promise<Receipt> {
    const entry = this.#outbox.retry(cid, Date.now());
    if (!entry) return Promise.reject(new RoomcastError({ code: 'not_found', message: 'there is no such failed message' }));
    return this.#await(entry);
  }

  discard(cid: string): boolean {
    const entry = this.#outbox.remove(cid);
    if (!entry) return false;
    this.#reject(cid, new RoomcastError({ code: 'discarded', message: 'the message was discarded' }));
    this.#on.changed(entry.roomID);
    return true;
  }

  /** An event of a room: it may be one of ours, which is as good as an ack. */
  seen({ cid, roomID, id, seq, epoch, ts, kind }: RoomEvent): void {
    if (cid === undefined || kind !== 'message') return;
    const entry = this.#outbox.remove(cid);
    if (entry) this.#sent(entry, { ok: true, id, seq, epoch, ts, dup: false });
    if (this.#acked.delete(cid) || entry) this.#on.changed(roomID);
  }

  /** The room cannot be joined: what waits for it is given up. */
  fail(roomID: string, problem: { code: string; message: string }): void {
    for (const entry of this.#outbox.fail(roomID, problem)) this.#failed(entry);
  }

  /** A page is the new truth: what it does not show will not come. */
  forgetAcked(roomID: string): void {
    for (const [cid, entry] of this.#acked) if (entry.roomID === roomID) this.#acked.delete(cid);
  }

  /** The room is joined: only what the server asked for is still waited for. */
  joined(roomID: string): void {
    if (this.#waits.get(roomID)?.asked === false) this.#endWait(roomID);
    this.#pump(roomID);
  }

  /** Sends what waits in a room, if it can be sent now. */
  #pump(roomID: string): void {
    this.#expire();
    if (this.#waits.has(roomID)) return;
    const entry = this.#outbox.next(roomID);
    if (entry && !this.#busy.has(roomID) && this.#on.isReady(roomID)) void this.#post(entry);
  }

  open(): void {
    clearTimeout(this.#clock);
    this.#expire();
    this.#tick();
  }

  close(): void {
    clearTimeout(this.#clock);
    for (const roomID of [...this.#waits.keys()]) this.#endWait(roomID);
  }

  #await(entry: OutboxEntry): Promise<Receipt> {
    const receipt = new Promise<Receipt>((resolve, reject) => { this.#waiting.set(entry.cid, { resolve, reject }); });
    // Who does not care for the answer is told by the events instead.
    receipt.catch(() => {});
    this.#on.changed(entry.roomID);
    this.#pump(entry.roomID);
    return receipt;
  }

  async #post({ cid, roomID, payload }: OutboxEntry): Promise<void> {
    this.#busy.add(roomID);
    const answer = await this.#wire.ask('message', { ...payload, roomID, cid }, MESSAGE_MS);
    this.#busy.delete(roomID);
    this.#answered(cid, roomID, (answer as Receipt | null)?.ok === true ? (answer as Receipt) : failure(answer));
  }

  #answered(cid: string, roomID: string, answer: Receipt | Failure): void {
    const entry = this.#outbox.find(cid);
    // Without a connection nothing was tried: the join after the next one sends it.
    const outcome = !answer.ok && answer.code === 'offline' ? { kind: 'offline' as const } : this.#outbox.answer(cid, answer, Date.now());
    if (outcome.kind === 'sent' && entry && answer.ok) {
      if (!this.#on.isSeen(roomID, answer)) this.#acked.set(cid, entry);
      this.#sent(entry, answer);
      this.#on.changed(roomID);
    } else if (outcome.kind === 'failed') {
      this.#failed(outcome.entry);
    }
    if (outcome.kind === 'again') {
      const timer = setTimeout(() => {
        this.#waits.delete(roomID);
        this.#pump(roomID);
      }, Math.max(0, outcome.atMs - Date.now()));
      this.#waits.set(roomID, { timer, asked: !answer.ok && answer.retryAfterMs !== undefined });
      if (!answer.ok && answer.code === 'not_joined') this.#on.notJoined(roomID);
    } else if (outcome.kind !== 'offline' || this.#wire.isOnline) {
      this.#pump(roomID);
    }
  }

  #endWait(roomID: string): void {
    clearTimeout(this.#waits.get(roomID)?.timer);
    this.#waits.delete(roomID);
  }

  #sent(entry: OutboxEntry, receipt: Receipt): void {
    this.#waiting.get(entry.cid)?.resolve(receipt);
    this.#waiting.delete(entry.cid);
    this.#on.sent(entry, receipt);
  }

  #failed(entry: OutboxEntry): void {
    const error = new RoomcastError(entry.problem ?? { code: 'internal', message: '' });
    this.#reject(entry.cid, error);
    this.#on.failed(entry, error);
    this.#on.changed(entry.roomID);
  }

  #reject(cid: string, error: RoomcastError): void {
    this.#waiting.get(cid)?.reject(error);
    this.#waiting.delete(cid);
  }

  #expire(): void {
    for (const entry of this.#outbox.expire(Date.now())) this.#failed(entry);
  }

  /** An entry can become too old while nothing else happens. */
  #tick(): void {
    this.#clock = setTimeout(() => this.open(), EXPIRE_EVERY_MS);
    // Node.js only: the clock keeps no process alive.
    (this.#clock as { unref?: () => void }).unref?.();
  }
}
