// A chat client that speaks protocol 2: every event of a room once and in order, every message sent until it is stored.

import { Emitter } from './emitter.js';
import { Link, type ConnectionState, type LinkOptions } from './link.js';
import { Outbox, type MessagePayload, type OutboxEntry } from './outbox.js';
import {
  failure, isRoomEvent, RoomcastError, type Cursor, type GptDelta, type GptError, type GptQueued, type GptReset, type Notice, type PageInfo, type Receipt,
  type RoomEvent, type RoomUpdate, type Tokens,
} from './protocol.js';
import { Replies, type Reply } from './replies.js';
import { Rooms, type Page } from './rooms.js';
import { Sender } from './sender.js';
import { memoryStorage, type OutboxStorage } from './storage.js';
import { Timeline } from './timeline.js';

const ASK_MS = 8_000;

export type ClientOptions = LinkOptions & {
  /** Where unsent messages are kept; by default in memory. */
  storage?: OutboxStorage;
};

export interface ClientEvents {
  /** The connection; see `ConnectionState`. */
  state: [ConnectionState];
  /** The next event of a room: of a page that continues what was known, or live. */
  event: [RoomEvent, { live: boolean }];
  /** A page is the new truth of its room: at the first join, or because events were lost. */
  reset: [{ roomID: string; events: RoomEvent[]; lost: boolean }];
  /** Events between what was known and the `reset` that follows may be missing. */
  lost: [{ roomID: string }];
  /** A page has been delivered, as `event`s or as one `reset`. */
  synced: [Page];
  /** A room is joined on this connection: what is sent there goes out at once. */
  joined: [{ roomID: string }];
  /** A room cannot be joined, and is not tried again by itself. */
  closed: [{ roomID: string; code: string; message: string }];
  /** A message is stored. */
  sent: [OutboxEntry, Receipt];
  /** A message will not be sent again by itself. */
  failed: [OutboxEntry, RoomcastError];
  /** What `pending` answers for this room has changed. */
  pending: [{ roomID: string }];
  /** What `replies` answers for this room has changed. */
  replies: [{ roomID: string }];
  /** A reply of the model, as the server tells of it; `replies` puts it together. */
  'gpt:queued': [GptQueued];
  'gpt:delta': [GptDelta];
  'gpt:reset': [GptReset];
  'gpt:error': [GptError];
  /** The outbox could not be stored: a reload would lose it. */
  unsaved: [unknown];
  roomUpdate: [RoomUpdate];
  notice: [Notice];
  drain: [{ afterMs: number }];
  /** New tokens, which `auth` has to give from now on. */
  tokens: [Tokens];
  /** A failure of an event without an ack. */
  problem: [{ event?: string; code: string; message: string; retryAfterMs?: number }];
  /** Any other event of the server, by name. */
  other: [string, ...unknown[]];
}

export class RoomcastClient extends Emitter<ClientEvents> {
  readonly #link: Link;
  readonly #rooms: Rooms;
  readonly #sender: Sender;
  readonly #replies: Replies;
  readonly #timelines = new Map<string, Timeline>();

  constructor({ storage = memoryStorage(), ...link }: ClientOptions) {
    super();
    this.#link = new Link(link as LinkOptions, {
      state: (state) => this.emit('state', state),
      online: () => this.#rooms.connected(),
      offline: () => this.#rooms.disconnected(),
      event: (name, args) => this.#event(name, args),
      resume: () => this.#rooms.positions(),
    });
    this.#rooms = new Rooms(this.#link, {
      event: (event) => this.#deliver(event, true),
      page: (page) => this.#page(page),
      joined: (roomID) => {
        this.emit('joined', { roomID });
        this.#sender.joined(roomID);
      },
      closed: (roomID, { code, message }) => {
        this.emit('closed', { roomID, code, message });
        this.#sender.fail(roomID, { code, message });
        this.#replies.drop(roomID);
      },
    });
    this.#replies = new Replies({
      changed: (roomID) => this.emit('replies', { roomID }),
      seq: (roomID) => this.#rooms.position(roomID)?.seq,
    });
    const outbox = new Outbox(storage, (error) => this.emit('unsaved', error));
    this.#sender = new Sender(outbox, this.#link, {
      isSeen: (roomID, { seq }) => (this.#rooms.position(roomID)?.seq ?? -1) >= seq,
      isReady: (roomID) => this.#link.isOnline && this.#rooms.isJoined(roomID),
      notJoined: (roomID) => this.#rooms.rejoin(roomID),
      sent: (entry, receipt) => this.emit('sent', entry, receipt),
      failed: (entry, error) => this.emit('failed', entry, error),
      changed: (roomID) => this.emit('pending', { roomID }),
    });
  }

  get state(): ConnectionState {
    return this.#link.state;
  }

  /** Connects now, also instead of waiting; rooms for which messages wait are joined too. */
  connect(): void {
    this.#sender.open();
    for (const roomID of this.#sender.rooms) if (!this.#rooms.isWanted(roomID)) this.#rooms.want(roomID);
    this.#link.open();
  }

  /** Disconnects; unsent messages stay in the storage. */
  close(): void {
    this.#sender.close();
    this.#replies.clear();
    this.#link.close();
  }

  /** Joins a room now and after every reconnect; the room named last comes first. */
  join(roomID: string, { createdAt }: { createdAt?: unknown } = {}): void {
    this.#rooms.want(roomID, createdAt);
  }

  /** Ends the live delivery of a room; the user stays a participant. */
  async leave(roomID: string): Promise<void> {
    this.#timelines.delete(roomID);
    const wasWanted = this.#rooms.drop(roomID);
    this.#replies.drop(roomID);
    if (wasWanted && this.#link.isOnline) await this.ask('leave', { roomID });
  }

  /** Whether the room is joined on this connection. */
  isJoined(roomID: string): boolean {
    return this.#rooms.isJoined(roomID);
  }

  /** Up to where a room's events were delivered. */
  position(roomID: string): Cursor | undefined {
    return this.#rooms.position(roomID);
  }

  /** The room's messages, kept up to date from the first call on; call it before the room is joined. */
  timeline(roomID: string): Timeline {
    const timeline = this.#timelines.get(roomID) ?? new Timeline();
    this.#timelines.set(roomID, timeline);
    return timeline;
  }

  /**
   * Stores a message in the outbox and sends it, again and again, until the server has it or refuses it. The receipt
   * comes when it is stored; it is rejected with the final code, or `expired`, `outbox_full`, `discarded`.
   */
  send(roomID: string, payload: MessagePayload): Promise<Receipt> {
    if (!this.#rooms.isWanted(roomID)) this.#rooms.want(roomID);
    return this.#sender.send(roomID, payload);
  }

  /** Messages that wait, have failed (`problem`), or are stored and not seen yet; in the order written. */
  pending(roomID: string): OutboxEntry[] {
    return this.#sender.pending(roomID);
  }

  /** Sends a failed message again. */
  retry(cid: string): Promise<Receipt> {
    return this.#sender.retry(cid);
  }

  /** Gives a message up that is not stored yet. */
  discard(cid: string): boolean {
    return this.#sender.discard(cid);
  }

  /** Changes one's own message. */
  edit(roomID: string, id: string, change: MessagePayload): Promise<Receipt> {
    return this.ask('editMessage', { ...change, roomID, id }) as Promise<Receipt>;
  }

  /** Deletes one's own message. */
  delete(roomID: string, id: string): Promise<Receipt> {
    return this.ask('deleteMessage', { roomID, id }) as Promise<Receipt>;
  }

  /** Replies of the model that are no messages yet: asked for, being written, or failed; in the order asked. */
  replies(roomID: string): Reply[] {
    return this.#replies.list(roomID);
  }

  /** Ends a reply to one's own question: what is being written stays as far as it has come, what waits gets no reply. */
  async cancel(roomID: string, id: string): Promise<void> {
    await this.ask('gpt:cancel', { roomID, id });
  }

  /** Forgets a reply that has failed. */
  dismiss(roomID: string, id: string): void {
    this.#replies.dismiss(roomID, id);
  }

  /** Up to 50 messages before a server time, ascending; they are added to the timeline, if there is one. */
  async older(roomID: string, timestamp: number): Promise<RoomEvent[]> {
    const page = (await this.ask('loadMoreMessages_for_room', { roomId: roomID, timestamp })) as RoomEvent[];
    this.#timelines.get(roomID)?.prepend(page);
    return page;
  }

  /** Asks for a new access token, which comes as `tokens`. */
  async refreshTokens(): Promise<void> {
    await this.ask('refreshToken');
  }

  /** Any event with an ack; rejected with a `RoomcastError`. */
  async ask(event: string, payload?: unknown, timeoutMs = ASK_MS): Promise<unknown> {
    const answer = await this.#link.ask(event, payload, timeoutMs);
    if (Array.isArray(answer) || (answer as { ok?: boolean } | null)?.ok === true) return answer;
    throw new RoomcastError(failure(answer));
  }

  #event(name: string, args: unknown[]): void {
    const [payload] = args;
    switch (name) {
      case 'previousMessages': {
        const [events, info] = args as [RoomEvent[], PageInfo | undefined];
        if (info) this.#rooms.page(events, info);
        return;
      }
      case 'sync:lost': return this.#rooms.lost((payload as { roomID: string }).roomID);
      case 'roomUpdate': return this.emit('roomUpdate', payload as RoomUpdate);
      case 'security:notice': return this.emit('notice', payload as Notice);
      case 'server:drain': return this.emit('drain', payload as { afterMs: number });
      case 'token:refresh': return this.emit('tokens', payload as Tokens);
      case 'gpt:queued': return this.#reply(name, payload as GptQueued, (told) => this.#replies.queued(told));
      case 'gpt:delta': return this.#reply(name, payload as GptDelta, (told) => this.#replies.delta(told));
      case 'gpt:reset': return this.#reply(name, payload as GptReset, (told) => this.#replies.reset(told));
      case 'gpt:error': return this.#reply(name, payload as GptError, (told) => this.#replies.error(told));
      case 'errorMessage': return this.emit('problem', payload as { code: string; message: string });
      default:
        if (isRoomEvent(payload)) this.#rooms.event(payload);
        else this.emit('other', name, ...args);
    }
  }

  /** Pieces of a room that is not wanted any more are nobody's. */
  #reply<Name extends 'gpt:queued' | 'gpt:delta' | 'gpt:reset' | 'gpt:error'>(
    name: Name, told: ClientEvents[Name][0], take: (told: ClientEvents[Name][0]) => void,
  ): void {
    if (!this.#rooms.isWanted(told.roomID)) return;
    take(told);
    this.emit(name, ...([told] as ClientEvents[Name]));
  }

  #page(page: Page): void {
    const { roomID, events, reset, lost, gpt } = page;
    if (reset) {
      if (lost) this.emit('lost', { roomID });
      this.#timelines.get(roomID)?.reset(events);
      this.#sender.forgetAcked(roomID);
      for (const event of events) {
        this.#sender.seen(event);
        this.#replies.seen(event, false);
      }
      this.emit('reset', { roomID, events, lost });
    } else {
      for (const event of events) this.#deliver(event, false);
    }
    this.#replies.joined(roomID, gpt);
    this.emit('synced', page);
  }

  #deliver(event: RoomEvent, live: boolean): void {
    this.#timelines.get(event.roomID)?.apply(event);
    // First, so that nobody sees a message both arrived and on its way, or a reply both written and being written.
    this.#sender.seen(event);
    this.#replies.seen(event, live);
    this.emit('event', event, { live });
  }
}
