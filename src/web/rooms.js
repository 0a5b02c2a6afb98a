// What is known of a room: its messages in order, what waits to be sent, what is unread.

/** Messages shown when a room opens; more come by scrolling back. */
const FIRST = 60;
/** Messages kept while a room is read at its end. */
const KEEP = 400;
/** An answer of this many messages may have left out older ones. */
const FULL = 1000;

export class Room {
  constructor(id) {
    Object.assign(this, {
      id, messages: [], pending: [], people: undefined, count: undefined, unread: 0, draft: '', readTs: undefined,
      cursor: undefined, synced: false, joined: false, atStart: false, loading: false, olderFrom: 0, closed: false, missed: undefined, problem: undefined,
    });
  }

  find(id) {
    return this.messages.find((message) => message.id === id);
  }

  /** The answer to a join: the newest messages at first, later what came while the connection was away. */
  previous(batch, me) {
    const first = !this.synced;
    const known = new Set(this.messages.map(({ id }) => id));
    const fresh = batch.filter(({ id }) => !known.has(id));
    if (first || batch.length >= FULL) {
      this.messages = [];
      this.atStart = false;
    }
    const shown = first ? batch.slice(-FIRST) : batch;
    shown.forEach((message) => this.put(message));
    batch.forEach((message) => this.note(message));
    const others = fresh.filter(({ platformid }) => platformid !== me);
    const unread = others.filter(({ ts }) => this.readTs !== undefined && ts > this.readTs);
    this.unread += unread.length;
    if (first) this.atStart = batch.length === 0;
    const firstUnread = shown.find(({ id }) => unread.some((one) => one.id === id));
    if (first && firstUnread) this.missed = { before: firstUnread.id, label: 'New' };
    if (!first && others.length) this.missed = { before: others[0].id, label: 'While you were away' };
    if (first && this.readTs === undefined) this.readTs = this.cursor ?? 0;
    return first ? [] : others;
  }

  /** Adds a message, or replaces its older form; whether it is new. */
  put(message) {
    const at = this.messages.findIndex(({ id }) => id === message.id);
    this.pending = this.pending.filter(({ cid }) => cid !== message.cid || !message.cid);
    if (at >= 0) {
      if ((message.rev ?? 0) >= (this.messages[at].rev ?? 0)) this.messages[at] = message;
      return false;
    }
    let end = this.messages.length;
    while (end > 0 && isAfter(this.messages[end - 1], message)) end -= 1;
    this.messages.splice(end, 0, message);
    return true;
  }

  /** A page of older messages. */
  older(page) {
    if (page.length === 0) this.atStart = true;
    page.forEach((message) => this.put(message));
  }

  edit(change) {
    this.note(change);
    const message = this.find(change.id);
    if (!message || (change.rev ?? change.seq ?? 0) < (message.rev ?? 0)) return;
    // Its own place and time stay: the list is in the order of writing.
    const { id, ts, timestamp, seq, epoch, kind, cid } = message;
    Object.assign(message, change, { id, ts, timestamp, seq, epoch, kind, cid, rev: change.rev ?? change.seq ?? 1 });
  }

  remove(change) {
    this.note(change);
    const removed = this.find(change.id);
    this.messages = this.messages.filter((message) => message !== removed);
    if (removed && removed.ts > (this.readTs ?? 0) && this.unread > 0) this.unread -= 1;
    return removed;
  }

  /** Where to go on after an interruption. */
  note({ ts }) {
    if (typeof ts === 'number' && ts > (this.cursor ?? 0)) this.cursor = ts;
  }

  /** Everything up to here was seen; whether that is news. */
  read() {
    const before = this.readTs;
    this.unread = 0;
    this.readTs = Math.max(this.cursor ?? 0, before ?? 0);
    return before !== this.readTs;
  }

  /** Forgets the oldest of very many; scrolling back brings them again. */
  trim() {
    if (this.messages.length <= KEEP) return;
    this.messages = this.messages.slice(-KEEP);
    this.atStart = false;
  }

  /** The newest message, for the list of rooms. */
  get last() {
    return this.messages.at(-1);
  }
}

function isAfter(one, other) {
  return one.ts === other.ts ? one.seq > other.seq : one.ts > other.ts;
}
