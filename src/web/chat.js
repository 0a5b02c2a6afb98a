// The chat of one user: brings the connection, the rooms and the views together.

import { Composer } from './composer.js';
import { Connection } from './connection.js';
import { announce, byId } from './dom.js';
import { Messages } from './messages.js';
import { waiting } from './replies.js';
import { Room } from './rooms.js';
import { loadMarks, outboxOf, save, saveMark } from './session.js';
import { Sidebar, renderPeople } from './sidebar.js';
import { Status } from './status.js';
import { explain, explainReply, plural } from './words.js';

/** Rooms joined at once, so that their unread marks are live; others are joined when they are opened. */
const JOINED_MAX = 40;
/** A member who has just been added may have to wait until the node asks again. */
const MEMBER_RETRY_MS = 6_000;

/** After a failure, older messages are not asked for again before this. */
const OLDER_RETRY_MS = 5_000;
/** A reply that is to be stopped and goes on for so long may be stopped once more. */
const STOP_MS = 5_000;

export class Chat {
  constructor({ io, roomcast, config, session, onEnded }) {
    Object.assign(this, { session, onEnded, me: session.user.platformid, rooms: new Map(), open: undefined });
    this.status = new Status({ onRetry: () => this.connection.open() });
    this.sidebar = new Sidebar({ onOpen: (room) => this.show(room) });
    this.messages = new Messages({
      me: this.me,
      reply: {
        onStop: (id) => this.#stop(this.open, id),
        onAgain: (id, question) => this.#askAgain(this.open, id, question),
        onDismiss: (id) => this.client.dismiss(this.open.id, id),
      },
      onOlder: () => this.#older(),
      onEdit: (message) => this.#startEdit(message),
      onDelete: (message) => this.#askDelete(message),
      // Whatever becomes of it is told by the events.
      onRetry: (wish) => this.client.retry(wish.cid),
      onDiscard: (wish) => this.client.discard(wish.cid),
      onRead: () => this.#read(),
    });
    this.composer = new Composer({
      onSend: (text) => this.#send(text),
      onEdit: (message, text) => this.#change(() => this.client.edit(message.roomID, message.id, { message: text })),
      onLast: () => this.#last(),
      onProblem: (text) => this.status.problem(text),
    });
    this.connection = new Connection({
      io,
      roomcast,
      nodes: config.nodes,
      storage: roomcast.webStorage(sessionStorage, outboxOf(session.user)),
      auth: () => ({
        accessToken: this.session.accessToken,
        refreshToken: this.session.refreshToken,
        userAgent: navigator.userAgent,
        username: this.session.user.username,
      }),
      on: {
        state: (state) => {
          if (state.kind === 'ended') this.onEnded(state.text);
          else this.status.show(state, this.connection);
        },
      },
    });
    this.client = this.connection.client;
    this.#listen();
    const marks = loadMarks(session.user);
    for (const id of session.rooms ?? []) this.#room(id).readTs = marks[id];
    // Each one goes before those named earlier; the open room comes last, so it is the first.
    [...this.rooms.keys()].slice(0, JOINED_MAX).reverse().forEach((id) => this.client.join(id));
    document.addEventListener('visibilitychange', () => this.#read());
    byId('people-toggle').addEventListener('click', () => this.#togglePeople());
    byId('people-close').addEventListener('click', () => this.#togglePeople(false));
    byId('people').addEventListener('keydown', (event) => event.key === 'Escape' && this.#togglePeople(false));
    byId('delete-dialog').addEventListener('close', () => this.#delete());
    byId('delete-no').addEventListener('click', () => byId('delete-dialog').close());
    byId('delete-yes').addEventListener('click', () => byId('delete-dialog').close('delete'));
    const wanted = this.rooms.get(session.open) ?? this.rooms.values().next().value;
    if (wanted) this.show(wanted, { focus: matchMedia('(pointer: fine)').matches });
    else this.sidebar.render(this.rooms);
    this.connection.open();
  }

  close() {
    this.connection.close();
  }

  #room(id) {
    if (!this.rooms.has(id)) this.rooms.set(id, new Room(id, this.client));
    return this.rooms.get(id);
  }

  show(room, { focus = true } = {}) {
    if (this.open) this.open.draft = this.composer.draft;
    if (this.open && this.open !== room) this.open.missed = undefined;
    this.open = room;
    this.session = save({ ...this.session, open: room.id });
    byId('room-title').textContent = room.id;
    byId('composer').hidden = false;
    this.composer.reset(room);
    this.messages.open(room);
    renderPeople(room, this.me);
    if (this.sidebar.isOpen) this.sidebar.toggle(false);
    if (focus) this.composer.focus();
    this.#read();
    this.sidebar.render(this.rooms, room);
    if (!room.joined) this.client.join(room.id);
  }

  #draw(room) {
    if (room === this.open) this.messages.render(room);
    this.sidebar.render(this.rooms, this.open);
  }

  /** What is in sight is read. */
  #read() {
    const room = this.open;
    if (!room?.synced || document.hidden || !this.messages.end) return;
    const had = room.unread;
    if (room.read()) saveMark(this.session.user, room.id, room.readTs);
    if (had) this.sidebar.render(this.rooms, room);
  }

  #listen() {
    const { client } = this;
    client.on('synced', (page) => this.#synced(page));
    client.on('joined', ({ roomID }) => this.#joined(this.#room(roomID)));
    client.on('closed', (closed) => this.#closed(this.#room(closed.roomID), closed));
    client.on('event', (event, { live }) => live && this.#event(this.#room(event.roomID), event));
    client.on('pending', ({ roomID }) => this.#draw(this.#room(roomID)));
    client.on('replies', ({ roomID }) => this.rooms.has(roomID) && this.#replies(this.rooms.get(roomID)));
    client.on('roomUpdate', (update) => this.#roomUpdate(update));
    client.on('tokens', (tokens) => { this.session = save({ ...this.session, ...tokens }); });
    client.on('problem', (problem) => this.status.problem(explain(problem)));
  }

  #joined(room) {
    Object.assign(room, { problem: undefined, closed: false, knocked: false });
    this.#draw(room);
  }

  #closed(room, reason) {
    if (reason.code === 'not_member' && !room.knocked) {
      // Once more; but knocking again and again at a room that is not ours would get us blocked.
      room.knocked = true;
      setTimeout(() => this.client.join(room.id), MEMBER_RETRY_MS);
      return;
    }
    room.problem = explain(reason);
    room.closed = true;
    if (room === this.open) this.status.problem(room.problem);
    this.#draw(room);
  }

  /** A join has brought what was missed. */
  #synced(page) {
    const room = this.#room(page.roomID);
    const missed = room.page(page, this.me);
    if (room === this.open && missed.length) {
      announce(`${plural(missed.length, 'message', 'messages')} came while you were away`);
      this.messages.arrived(missed.length);
    }
    this.#draw(room);
    this.#read();
  }

  #event(room, event) {
    const mine = event.platformid === this.me;
    room.note(event);
    if (event.kind === 'delete') {
      room.news.delete(event.id);
      if (this.composer.editing?.id === event.id) this.composer.stopEdit();
      if (room === this.open && !mine) announce(`${event.username} deleted a message`);
    } else if (event.kind !== 'edit') {
      if (!mine) {
        room.news.add(event.id);
        if (room === this.open) {
          this.messages.arrived(1);
          announce(`${event.username}${event.cancelled ? ', stopped' : ''}: ${event.message}`);
        }
      }
      if (room !== this.open || this.messages.end) room.trim();
    }
    this.#draw(room);
    this.#read();
  }

  /** Replies change many times a second: drawn with the next frame, and alone. */
  #replies(room) {
    const news = room.replyNews();
    if (room !== this.open) return;
    for (const { state, gen, position, question, problem } of news) {
      const mine = room.find(question)?.platformid === this.me;
      if (state === 'failed') announce(explainReply(problem));
      else if (state === 'writing') announce(gen > 1 ? 'The answer begins anew' : 'An answer is being written');
      else if (position && mine) announce(waiting('your question', position));
    }
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.messages.render(this.open);
    });
  }

  async #stop(room, id) {
    room.stopping.add(id);
    this.#draw(room);
    setTimeout(() => room.stopping.delete(id) && this.#draw(room), STOP_MS);
    try {
      await this.client.cancel(room.id, id);
    } catch (problem) {
      room.stopping.delete(id);
      // It had just ended.
      if (problem.code !== 'not_found') this.status.problem(explain(problem));
      this.#draw(room);
    }
  }

  #askAgain(room, id, question) {
    this.client.dismiss(room.id, id);
    this.#send(question.message, { gpt: true });
    this.composer.focus();
  }

  #roomUpdate({ roomID, participants, count }) {
    const isNew = !this.rooms.has(roomID);
    const room = this.#room(roomID);
    // An update may tell of other things only.
    if (participants || count !== undefined) [room.people, room.count] = [participants, count];
    // Nobody is left in a room that was deleted.
    room.closed = participants?.length === 0;
    room.problem = room.closed ? explain({ code: 'room_gone' }) : undefined;
    if (isNew && !room.closed) {
      this.session = save({ ...this.session, rooms: [...this.rooms.keys()] });
      this.client.join(roomID);
    }
    if (room === this.open) renderPeople(room, this.me);
    this.#draw(room);
  }

  async #older() {
    const room = this.open;
    const [oldest] = room.messages;
    if (room.loading || room.atStart || !oldest || !room.joined || Date.now() < room.olderFrom) return;
    room.loading = true;
    try {
      const page = await this.client.older(room.id, oldest.ts);
      room.atStart = page.length === 0;
    } catch (problem) {
      room.olderFrom = Date.now() + OLDER_RETRY_MS;
      if (problem.code !== 'offline') this.status.problem(explain(problem));
    }
    room.loading = false;
    if (room === this.open) this.messages.render(room);
  }

  /** It waits in the outbox until the server has it, also when this page is loaded anew. */
  #send(message, more) {
    // Who answers has read what was new; what comes after an interruption is marked then.
    this.open.missed = undefined;
    this.messages.end = true;
    this.client.send(this.open.id, { message, ...more }).catch((problem) => problem.code === 'outbox_full' && this.status.problem(explain(problem)));
    this.#draw(this.open);
  }

  async #change(act) {
    try {
      await act();
    } catch (problem) {
      this.status.problem(explain(problem));
    }
  }

  /** One's newest message, unless that is still on its way: an older one is not what was meant. */
  #last() {
    if (!this.open || this.open.pending.length) return undefined;
    return this.open.messages.findLast(({ platformid }) => platformid === this.me);
  }

  #mine(message) {
    return typeof message === 'string' ? this.open?.find(message) : message;
  }

  #startEdit(message) {
    const found = this.#mine(message);
    if (found) this.composer.startEdit(found);
  }

  #askDelete(message) {
    const found = this.#mine(message);
    if (!found) return;
    this.doomed = found;
    byId('delete-text').textContent = found.message;
    const dialog = byId('delete-dialog');
    dialog.returnValue = '';
    dialog.showModal();
  }

  #delete() {
    const { doomed } = this;
    this.doomed = undefined;
    if (byId('delete-dialog').returnValue === 'delete' && doomed) this.#change(() => this.client.delete(doomed.roomID, doomed.id));
  }

  #togglePeople(open = byId('people').hidden) {
    byId('people').hidden = !open;
    byId('people-toggle').setAttribute('aria-expanded', String(open));
    byId(open ? 'people-close' : 'people-toggle').focus();
  }
}
