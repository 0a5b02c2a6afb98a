// The chat of one user: brings the connection, the rooms and the views together.

import { Composer } from './composer.js';
import { Connection } from './connection.js';
import { announce, byId } from './dom.js';
import { Messages } from './messages.js';
import { Room } from './rooms.js';
import { loadMarks, save, saveMark } from './session.js';
import { Sidebar, renderPeople } from './sidebar.js';
import { Status } from './status.js';
import { explain, plural } from './words.js';

/** Rooms joined at once, so that their unread marks are live; others are joined when they are opened. */
const JOINED_MAX = 40;
/** A member who has just been added may have to wait until the node asks again. */
const MEMBER_RETRY_MS = 6_000;

/** After a failure, older messages are not asked for again before this. */
const OLDER_RETRY_MS = 5_000;

const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export class Chat {
  constructor({ io, config, session, onEnded }) {
    Object.assign(this, { session, onEnded, me: session.user.platformid, rooms: new Map(), open: undefined });
    const marks = loadMarks(session.user);
    for (const id of session.rooms ?? []) this.#room(id).readTs = marks[id];
    this.status = new Status({ onRetry: () => this.connection.open() });
    this.sidebar = new Sidebar({ onOpen: (room) => this.show(room) });
    this.messages = new Messages({
      me: this.me,
      onOlder: () => this.#older(),
      onEdit: (message) => this.#startEdit(message),
      onDelete: (message) => this.#askDelete(message),
      onRetry: (wish) => this.#post(this.open, wish),
      onDiscard: (wish) => {
        this.open.pending = this.open.pending.filter((one) => one !== wish);
        this.#draw(this.open);
      },
      onRead: () => this.#read(),
    });
    this.composer = new Composer({
      onSend: (text) => this.#send(text),
      onEdit: (message, text) => this.#change('editMessage', { roomID: message.roomID, id: message.id, message: text }),
      onLast: () => this.#last(),
      onProblem: (text) => this.status.problem(text),
    });
    this.connection = new Connection({
      io,
      nodes: config.nodes,
      auth: () => ({
        accessToken: this.session.accessToken,
        refreshToken: this.session.refreshToken,
        userAgent: navigator.userAgent,
        username: this.session.user.username,
      }),
      on: {
        online: () => this.#joinAll(),
        event: (name, ...args) => this.#event(name, args),
        state: (state) => {
          if (state.kind === 'ended') this.onEnded(state.text);
          else this.status.show(state, this.connection);
        },
      },
    });
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
    if (!this.rooms.has(id)) this.rooms.set(id, new Room(id));
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
    if (!room.joined && this.connection?.isOnline) this.#join(room);
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

  /** After every (re)connection: what was missed comes as the answer to the joins, the open room's first. */
  #joinAll() {
    const rooms = [this.open, ...this.rooms.values()].filter((room, at, all) => room && all.indexOf(room) === at);
    rooms.forEach((room) => { room.joined = false; });
    rooms.filter((room) => !room.closed).slice(0, JOINED_MAX).forEach((room) => this.#join(room));
  }

  async #join(room, again = true) {
    const { socket } = this.connection;
    const answer = await this.connection.ask('join', { roomID: room.id, lastmessage: room.cursor });
    if (socket !== this.connection.socket) return;
    room.joined = answer.ok;
    if (answer.ok) {
      room.problem = undefined;
      room.closed = false;
      // An empty answer names no room: the ack after it does.
      room.synced = true;
      room.readTs ??= room.cursor ?? 0;
      room.pending.filter(({ problem }) => !problem).forEach((wish) => this.#post(room, wish));
    } else if (again && (answer.code === 'not_member' || answer.retryAfterMs)) {
      setTimeout(() => socket === this.connection.socket && this.#join(room, false), answer.retryAfterMs ?? MEMBER_RETRY_MS);
    } else if (answer.code !== 'offline') {
      room.problem = explain(answer);
      // Knocking again and again at a room that is not ours would get us blocked.
      room.closed = answer.code === 'not_member' || answer.code === 'room_gone';
      if (room === this.open) this.status.problem(room.problem);
    }
    this.#draw(room);
    this.#read();
  }

  #event(name, [payload]) {
    switch (name) {
      case 'previousMessages': return this.#previous(payload);
      case 'message': return this.#message(payload);
      case 'editMessage': return this.#changed(payload, (room) => room.edit(payload));
      case 'deleteMessage': return this.#changed(payload, (room) => {
        if (this.composer.editing?.id === payload.id) this.composer.stopEdit();
        if (room.remove(payload) && room === this.open && payload.platformid !== this.me) announce(`${payload.username} deleted a message`);
      });
      case 'roomUpdate': return this.#roomUpdate(payload);
      case 'token:refresh':
        this.session = save({ ...this.session, ...payload });
        return undefined;
      case 'errorMessage': return this.status.problem(explain(payload));
      default: return undefined;
    }
  }

  #previous(messages) {
    for (const [id, batch] of Object.entries(Object.groupBy(messages, ({ roomID }) => roomID))) {
      const room = this.#room(id);
      const missed = room.previous(batch, this.me);
      room.synced = true;
      if (room === this.open && missed.length) {
        announce(`${plural(missed.length, 'message', 'messages')} came while you were away`);
        this.messages.arrived(missed.length);
      }
      this.#draw(room);
    }
    this.#read();
  }

  #message(message) {
    const room = this.#room(message.roomID);
    room.note(message);
    const isNew = room.put(message);
    const mine = message.platformid === this.me;
    if (isNew && !mine) {
      room.unread += 1;
      if (room === this.open) {
        this.messages.arrived(1);
        announce(`${message.username}: ${message.message}`);
      }
    }
    if (room !== this.open || this.messages.end) room.trim();
    this.#draw(room);
    this.#read();
  }

  #changed(change, act) {
    const room = this.rooms.get(change.roomID);
    if (!room) return;
    act(room);
    this.#draw(room);
    this.#read();
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
      this.#join(room);
    }
    if (room === this.open) renderPeople(room, this.me);
    this.#draw(room);
  }

  async #older() {
    const room = this.open;
    const [oldest] = room.messages;
    if (room.loading || room.atStart || !oldest || !room.joined || Date.now() < room.olderFrom) return;
    room.loading = true;
    const answer = await this.connection.ask('loadMoreMessages_for_room', { roomId: room.id, timestamp: oldest.ts });
    room.loading = false;
    if (Array.isArray(answer)) room.older(answer);
    else room.olderFrom = Date.now() + OLDER_RETRY_MS;
    if (!Array.isArray(answer) && answer.code !== 'offline') this.status.problem(explain(answer));
    if (room === this.open) this.messages.render(room);
  }

  #send(message) {
    const wish = { cid: randomId(), message };
    this.open.pending.push(wish);
    // Who answers has read what was new; what comes after an interruption is marked then.
    this.open.missed = undefined;
    this.messages.end = true;
    this.#post(this.open, wish);
    this.#draw(this.open);
  }

  /** Sends, or sends again: the `cid` keeps a second arrival from being a second message. */
  async #post(room, wish) {
    wish.problem = undefined;
    this.#draw(room);
    // Without a connection it waits, and goes out after the join.
    if (!room.joined || !this.connection.isOnline) return;
    const answer = await this.connection.ask('message', { roomID: room.id, message: wish.message, cid: wish.cid });
    if (answer.ok || answer.code === 'offline') {
      // The message itself comes to everybody, its author too; a repeated one does not.
      if (answer.ok && answer.dup) room.pending = room.pending.filter((one) => one !== wish);
    } else {
      wish.problem = explain(answer);
    }
    this.#draw(room);
  }

  async #change(event, payload) {
    const answer = await this.connection.ask(event, payload);
    if (!answer.ok) this.status.problem(explain(answer));
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
    if (byId('delete-dialog').returnValue === 'delete' && doomed) this.#change('deleteMessage', { roomID: doomed.roomID, id: doomed.id });
  }

  #togglePeople(open = byId('people').hidden) {
    byId('people').hidden = !open;
    byId('people-toggle').setAttribute('aria-expanded', String(open));
    byId(open ? 'people-close' : 'people-toggle').focus();
  }
}
