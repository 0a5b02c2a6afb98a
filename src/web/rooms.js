// What the page knows of a room beside its messages: what is unread, what was missed, who is there.

/** Messages shown when a room opens; more come by scrolling back. */
const FIRST = 60;
/** Messages kept while a room is read at its end. */
const KEEP = 400;

const isMessage = ({ kind }) => kind === 'message' || kind === 'gpt';

export class Room {
  constructor(id, client) {
    Object.assign(this, {
      id, client, timeline: client.timeline(id), people: undefined, count: undefined, news: new Set(), draft: '', readTs: undefined, newest: undefined,
      synced: false, atStart: false, loading: false, olderFrom: 0, closed: false, knocked: false, missed: undefined, problem: undefined,
      stopping: new Set(), toldReplies: new Map(),
    });
  }

  get messages() {
    return this.timeline.messages;
  }

  /** What is on its way, or did not get there. */
  get pending() {
    return this.client.pending(this.id);
  }

  /** Replies of the model that are no messages yet. */
  get replies() {
    return this.client.replies(this.id);
  }

  get joined() {
    return this.client.isJoined(this.id);
  }

  get unread() {
    return this.news.size;
  }

  find(id) {
    return this.timeline.find(id);
  }

  /** The page of a join is in the timeline; returns what others have written meanwhile. */
  page({ events, reset }, me) {
    const first = !this.synced;
    this.synced = true;
    const since = first ? 0 : this.newest ?? 0;
    const others = events.filter((event) => isMessage(event) && event.ts > since && event.platformid !== me && this.find(event.id));
    if (reset) {
      this.timeline.trim(FIRST);
      this.atStart = events.length === 0;
    }
    const unread = others.filter(({ ts }) => this.readTs !== undefined && ts > this.readTs);
    unread.forEach(({ id }) => this.news.add(id));
    events.forEach((event) => {
      this.note(event);
      if (event.kind === 'delete') this.news.delete(event.id);
    });
    const marked = (first ? unread : others).find(({ id }) => this.find(id));
    if (marked) this.missed = { before: marked.id, label: first ? 'New' : 'While you were away' };
    this.readTs ??= this.newest ?? 0;
    return first ? [] : others;
  }

  /** Up to when anything happened here. */
  note({ ts }) {
    if (typeof ts === 'number' && ts > (this.newest ?? 0)) this.newest = ts;
  }

  /** Everything up to here was seen; whether that is news. */
  read() {
    const before = this.readTs;
    this.news.clear();
    this.readTs = Math.max(this.newest ?? 0, before ?? 0);
    return before !== this.readTs;
  }

  /** What is worth saying of replies under way, each once; their words are not. */
  replyNews() {
    const before = this.toldReplies;
    const replies = this.replies;
    this.toldReplies = new Map(replies.map((reply) => [reply.id, `${reply.state} ${reply.gen}`]));
    for (const id of this.stopping) if (!this.toldReplies.has(id)) this.stopping.delete(id);
    return replies.filter(({ id }) => before.get(id) !== this.toldReplies.get(id));
  }

  /** Forgets the oldest of very many; scrolling back brings them again. */
  trim() {
    if (this.timeline.trim(KEEP)) this.atStart = false;
  }

  /** The newest message, for the list of rooms. */
  get last() {
    return this.messages.at(-1);
  }
}
