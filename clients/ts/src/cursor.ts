// The order of one room's events, as a state machine without IO: it says what to deliver and what to ask for.

import type { Cursor, PageInfo, RoomEvent } from './protocol.js';

/** Events held behind a hole; with more than that, a page is the shorter way. */
const HELD_MAX = 500;

/** What the room needs next. */
export type Want = { kind: 'gap'; epoch: string; from: number; to: number } | { kind: 'join' };

/** The outcome of one input: events that are next, in order, and what to ask for. */
export interface Step {
  deliver: RoomEvent[];
  want?: Want;
}

/** The outcome of a page. */
export interface PageStep {
  /** The events not yet delivered, or all of them when the page is the new truth. */
  deliver: RoomEvent[];
  /** Whether the page replaces what was known of the room. */
  reset: boolean;
  /** Whether events may be missing between what was known and the page. */
  lost: boolean;
}

export class RoomCursor {
  #at: Cursor | undefined;
  #live = false;
  #filling = false;
  readonly #held = new Map<number, RoomEvent>();

  /** Up to where events were delivered. */
  get position(): Cursor | undefined {
    return this.#at;
  }

  /** Whether live events follow the position; else a join is needed first. */
  get isLive(): boolean {
    return this.#live;
  }

  /** Live events end here: the connection is gone, or a join begins anew. What was held comes again. */
  suspend(): void {
    this.#live = false;
    this.#filling = false;
    this.#held.clear();
  }

  /** Takes a live event. */
  offer(event: RoomEvent): Step {
    // A join is under way: its page brings this event.
    if (!this.#live || !this.#at) return { deliver: [] };
    // Only the server knows how the numbers of two epochs relate.
    if (event.epoch !== this.#at.epoch) return this.#join([]);
    if (event.seq <= this.#at.seq) return { deliver: [] };
    this.#held.set(event.seq, event);
    const deliver = this.#drain();
    if (this.#held.size > HELD_MAX) return this.#join(deliver);
    return this.#settle(deliver);
  }

  /** Takes the answer to a `gap`. */
  fill(events: readonly RoomEvent[], to: number): Step {
    if (!this.#live || !this.#at || !this.#filling) return { deliver: [] };
    this.#filling = false;
    const { seq: before, epoch } = this.#at;
    for (const event of events) {
      if (event.epoch === epoch && event.seq > before) this.#held.set(event.seq, event);
    }
    const deliver = this.#drain();
    // Nothing of what is missing came: the log does not hold it any more.
    if (this.#at.seq < to && this.#at.seq === before) return this.#join(deliver);
    return this.#settle(deliver);
  }

  /** The gap could not be asked for; a join with the position decides. */
  fail(): Step {
    return this.#filling ? this.#join([]) : { deliver: [] };
  }

  /** The server says that continuity cannot be proven. */
  broken(): Step {
    return this.#live ? this.#join([]) : { deliver: [] };
  }

  /** Takes the answer to a join. */
  page(events: readonly RoomEvent[], { epoch, topSeq, recovered }: PageInfo): PageStep {
    const before = this.#at;
    const reset = !recovered || !before;
    // Of messages that another service once wrote, some have no number: those are never taken for known.
    const deliver = reset ? [...events] : events.filter(({ seq, rev }) => !(Math.max(seq, rev ?? 0) <= before.seq));
    const ts = events.findLast(({ seq }) => seq === topSeq)?.ts ?? (before?.seq === topSeq && !reset ? before.ts : undefined);
    this.suspend();
    this.#at = { epoch, seq: topSeq, ...(ts !== undefined && { ts }) };
    this.#live = true;
    return { deliver, reset, lost: reset && before !== undefined };
  }

  #join(deliver: RoomEvent[]): Step {
    this.suspend();
    return { deliver, want: { kind: 'join' } };
  }

  /** What is next in what is held. */
  #drain(): RoomEvent[] {
    const next: RoomEvent[] = [];
    for (let at = this.#at; at;) {
      const event = this.#held.get(at.seq + 1);
      if (!event) break;
      this.#held.delete(event.seq);
      next.push(event);
      at = this.#at = { epoch: event.epoch, seq: event.seq, ts: event.ts };
    }
    return next;
  }

  /** Asks for the first hole, if there is one and nobody has. */
  #settle(deliver: RoomEvent[]): Step {
    if (!this.#at) return { deliver };
    if (this.#filling || this.#held.size === 0) return { deliver };
    this.#filling = true;
    const from = this.#at.seq + 1;
    return { deliver, want: { kind: 'gap', epoch: this.#at.epoch, from, to: Math.min(...this.#held.keys()) - 1 } };
  }
}
