// A room's messages as they are shown: in order, edits applied, deleted ones gone.

import type { RoomEvent } from './protocol.js';

/** Changes remembered of messages that are not here: a page of older ones that is under way may not know them. */
const CHANGES_MAX = 200;

export class Timeline {
  #messages: RoomEvent[] = [];
  readonly #changes = new Map<string, RoomEvent>();

  /** Ascending. A message that changes is a new object. */
  get messages(): readonly RoomEvent[] {
    return this.#messages;
  }

  find(id: string): RoomEvent | undefined {
    return this.#messages.find((message) => message.id === id);
  }

  /** Begins anew from a page, which is the truth now. */
  reset(events: readonly RoomEvent[]): void {
    this.#messages = [];
    this.#changes.clear();
    for (const event of events) this.apply(event);
  }

  /** Applies one event; whether it changes what is shown. */
  apply(event: RoomEvent): boolean {
    switch (event.kind) {
      case 'edit': return this.#edit(event);
      case 'delete': return this.#delete(event);
      case 'message':
      case 'gpt': return this.#put(event);
      default: return false;
    }
  }

  /** Adds a page of older messages, as `older` answers them. */
  prepend(page: readonly RoomEvent[]): void {
    for (const message of page) this.#put(message);
  }

  /** Forgets all but the newest; `older` brings the others back. */
  trim(keep: number): boolean {
    if (this.#messages.length <= keep) return false;
    this.#messages = this.#messages.slice(-keep);
    return true;
  }

  #put(message: RoomEvent): boolean {
    const change = this.#changes.get(message.id);
    if (change?.kind === 'delete') return false;
    const at = this.#messages.findIndex(({ id }) => id === message.id);
    const known = this.#messages[at];
    if (known && revision(message) < revision(known)) return false;
    if (known) {
      this.#messages[at] = message;
    } else {
      let end = this.#messages.length;
      while (end > 0 && isAfter(this.#messages[end - 1], message)) end -= 1;
      this.#messages.splice(end, 0, message);
    }
    if (change) this.#edit(change);
    return true;
  }

  #edit(change: RoomEvent): boolean {
    const at = this.#messages.findIndex(({ id }) => id === change.id);
    const message = this.#messages[at];
    if (!message) {
      this.#remember(change);
      return false;
    }
    const rev = change.rev ?? change.seq;
    if (rev < revision(message)) return false;
    // Author, place and time stay those of the message: the list is in the order of writing.
    const { id, roomID, platformid, username, ts, timestamp, seq, epoch, kind, cid } = message;
    this.#messages[at] = { ...message, ...change, id, roomID, platformid, username, ts, timestamp, seq, epoch, kind, rev, ...(cid !== undefined && { cid }) };
    if (cid === undefined) delete this.#messages[at].cid;
    return true;
  }

  #delete(change: RoomEvent): boolean {
    this.#remember(change);
    const before = this.#messages.length;
    this.#messages = this.#messages.filter(({ id }) => id !== change.id);
    return this.#messages.length < before;
  }

  #remember(change: RoomEvent): void {
    if (this.#changes.get(change.id)?.kind === 'delete') return;
    this.#changes.delete(change.id);
    this.#changes.set(change.id, change);
    for (const [oldest] of this.#changes) {
      if (this.#changes.size <= CHANGES_MAX) break;
      this.#changes.delete(oldest);
    }
  }
}

const revision = ({ rev }: RoomEvent): number => rev ?? 0;

function isAfter(one: RoomEvent | undefined, other: RoomEvent): boolean {
  if (!one) return false;
  return one.ts === other.ts ? one.seq > other.seq : one.ts > other.ts;
}
