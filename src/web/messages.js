// The messages of the open room: drawn by key, so that what has not changed stays where it is.

import { avatar, byId, h, iconButton } from './dom.js';
import { AUTHOR, ReplyRow, viewOf } from './replies.js';
import { dayOf, explain, plural, timeOf } from './words.js';

/** Messages of one person that follow within this time share a head. */
const GROUP_MS = 5 * 60_000;
/** As near to the end or the start as counts as being there, in pixels. */
const NEAR_PX = 80;
/** Who has scrolled up is not at the end, however near: what grows there would pull one back. */
const LEFT_PX = 4;

export class Messages {
  /** `reply` is what can be done with a reply, see `ReplyRow`. */
  constructor({ me, reply, onOlder, onEdit, onDelete, onRetry, onDiscard, onRead }) {
    Object.assign(this, { me, reply, onOlder, onEdit, onDelete, onRetry, onDiscard, onRead, drawn: new Map(), top: 0 });
    this.box = byId('messages');
    this.list = byId('message-list');
    this.jump = byId('jump');
    this.box.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    this.box.addEventListener('keydown', (event) => this.#key(event));
    this.jump.addEventListener('click', () => {
      this.toEnd();
      byId('text').focus();
    });
    byId('older').addEventListener('click', () => this.onOlder());
    // A keyboard on the screen makes the box smaller: its end stays in sight.
    new ResizeObserver(() => this.end && this.toEnd()).observe(this.box);
    this.end = true;
  }

  toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
    this.top = this.box.scrollTop;
    this.end = true;
    this.fresh = 0;
    this.#jump();
  }

  /** Another room: drawn anew, from its end. */
  open(room) {
    this.drawn.clear();
    this.list.replaceChildren();
    this.fresh = 0;
    this.end = true;
    this.render(room);
    this.toEnd();
  }

  /** New messages came while older ones are being read. */
  arrived(count) {
    if (!this.end) this.fresh += count;
    this.#jump();
  }

  #jump() {
    this.jump.hidden = this.end;
    byId('jump-text').textContent = this.fresh ? plural(this.fresh, 'new message', 'new messages') : 'To the newest';
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.box;
    this.end = scrollHeight - scrollTop - clientHeight < (scrollTop < this.top ? LEFT_PX : NEAR_PX);
    this.top = scrollTop;
    if (this.end) {
      this.fresh = 0;
      this.onRead();
    }
    this.#jump();
    if (this.box.scrollTop < NEAR_PX && this.box.scrollHeight > this.box.clientHeight) this.onOlder();
  }

  render(room) {
    const below = this.box.scrollHeight - this.box.scrollTop;
    const oldest = this.oldest;
    this.oldest = room.messages[0]?.id;
    const parts = this.#parts(room);
    const keys = new Set(parts.map(({ key }) => key));
    for (const [key, { element }] of this.drawn) {
      if (keys.has(key)) continue;
      // The place of the keyboard is not lost with a message.
      if (element.contains(document.activeElement)) byId('text').focus();
      element.remove();
      this.drawn.delete(key);
    }
    let next = this.list.firstChild;
    for (const { key, look, draw, reply } of parts) {
      const old = this.drawn.get(key);
      let element = old?.element;
      if (reply) {
        const row = old?.row ?? new ReplyRow(reply.id, this.reply);
        row.show(viewOf(room, this.me, reply));
        element = row.element;
        this.drawn.set(key, { element, row });
      } else if (old?.look !== look) {
        const focused = element?.contains(document.activeElement);
        element = draw();
        if (old) {
          if (next === old.element) next = old.element.nextSibling;
          old.element.replaceWith(element);
        }
        if (focused) element.focus();
        this.drawn.set(key, { element, look });
      }
      if (element === next) next = next.nextSibling;
      else this.list.insertBefore(element, next);
    }
    const rows = this.rows;
    if (!rows.some((row) => row.tabIndex === 0) && rows.length) rows.at(-1).tabIndex = 0;
    this.#edges(room);
    // Too few to scroll back: one look tells whether there is more.
    if (room.joined && !room.atStart && this.box.scrollHeight <= this.box.clientHeight) this.onOlder();
    if (this.end) this.toEnd();
    else if (oldest !== this.oldest) this.box.scrollTop = this.box.scrollHeight - below;
  }

  #edges(room) {
    const empty = room.synced && room.messages.length === 0 && room.pending.length === 0;
    byId('older').hidden = room.atStart || !room.messages.length || this.box.scrollHeight <= this.box.clientHeight;
    byId('older').textContent = room.loading ? 'Loading…' : 'Load earlier messages';
    byId('beginning').hidden = !room.atStart && !empty;
    byId('beginning-room').textContent = room.id;
    byId('beginning-text').textContent = empty ? 'Nobody has said anything yet. You could be the first.' : 'This is where it began.';
    byId('loading').hidden = room.synced || Boolean(room.problem);
  }

  /** Everything to show, in order, each with a key and what its look depends on; replies see to their look themselves. */
  #parts(room) {
    const parts = [];
    let before;
    const replies = room.replies;
    const failed = replies.filter(({ state }) => state === 'failed');
    const answer = (reply) => {
      parts.push({ key: `message ${reply.id}`, reply });
      before = { platformid: AUTHOR, ts: reply.ts ?? before?.ts };
    };
    for (const message of room.messages) {
      // Where it happened.
      while (failed[0]?.failedAt < message.seq) answer(failed.shift());
      const day = dayOf(message.ts);
      const newDay = !before?.ts || dayOf(before.ts) !== day;
      if (newDay) parts.push({ key: `day ${day}`, look: day, draw: () => divider(day, 'day') });
      const missed = room.missed?.before === message.id;
      if (missed) parts.push({ key: 'missed', look: room.missed.label, draw: () => divider(room.missed.label, 'missed') });
      if (message.kind === 'gpt') {
        answer(message);
        continue;
      }
      const head = newDay || missed || before.platformid !== message.platformid || message.ts - before.ts > GROUP_MS;
      parts.push({
        key: `message ${message.id}`,
        look: `${head} ${message.rev ?? 0} ${message.message}`,
        draw: () => this.#message(message, head),
      });
      before = message;
    }
    failed.forEach(answer);
    // What is written now is there first.
    for (const state of ['writing', 'queued', 'asked']) replies.filter((reply) => reply.state === state).forEach(answer);
    for (const wish of room.pending) {
      const head = before?.platformid !== this.me;
      parts.push({ key: `wish ${wish.cid}`, look: `${head} ${wish.problem?.code}`, draw: () => this.#pending(wish, head) });
      before = { platformid: this.me };
    }
    return parts;
  }

  #message(message, head) {
    const mine = message.platformid === this.me;
    const name = mine ? 'You' : message.username;
    const classes = ['message', mine && 'mine', head && 'head'].filter(Boolean).join(' ');
    return h('li', { class: classes, tabindex: '-1', 'data-id': message.id },
      !mine && (head ? avatar(message.username) : h('span', { class: 'avatar-space' })),
      h('div', { class: 'body' },
        h('div', { class: head ? 'who' : 'who sr' }, h('span', { class: 'name' }, name), h('time', { datetime: new Date(message.ts).toISOString() }, timeOf(message.ts))),
        h('div', { class: 'bubble-row' },
          h('div', { class: 'bubble', title: new Date(message.ts).toLocaleString() },
            h('span', { class: 'text' }, message.message),
            message.rev !== undefined && h('span', { class: 'edited' }, ' (edited)')),
          mine && h('div', { class: 'actions' },
            iconButton('edit', 'Edit this message', () => this.onEdit(message)),
            iconButton('delete', 'Delete this message', () => this.onDelete(message))))));
  }

  #pending(wish, head) {
    return h('li', { class: `message mine pending${head ? ' head' : ''}${wish.problem ? ' failed' : ''}`, tabindex: '-1' },
      h('div', { class: 'body' },
        h('div', { class: 'bubble-row' }, h('div', { class: 'bubble' }, h('span', { class: 'text' }, wish.payload.message))),
        h('div', { class: 'fate' }, wish.problem ? `Not sent. ${explain(wish.problem)} ` : 'Sending…',
          wish.problem && h('button', { type: 'button', class: 'link', onclick: () => this.onRetry(wish) }, 'Try again'),
          wish.problem && ' ',
          wish.problem && h('button', { type: 'button', class: 'link', onclick: () => this.onDiscard(wish) }, 'Discard'))));
  }

  get rows() {
    return [...this.list.querySelectorAll('.message')];
  }

  /** Arrow keys go from message to message; on one's own, E edits and Delete deletes. */
  #key(event) {
    const rows = this.rows;
    const row = document.activeElement?.closest?.('.message');
    const at = rows.indexOf(row);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowUp: -1, ArrowDown: 1, Home: -rows.length, End: rows.length }[event.key];
    const message = this.drawn.has(`message ${row.dataset.id}`) && row.classList.contains('mine') ? row.dataset.id : undefined;
    if (step) {
      const to = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
      rows.forEach((one) => { one.tabIndex = one === to ? 0 : -1; });
      to.focus();
    } else if (message && event.key === 'e') this.onEdit(message);
    else if (message && event.key === 'Delete') this.onDelete(message);
    else if (event.key === 'Escape') byId('text').focus();
    else return;
    event.preventDefault();
  }
}

function divider(text, kind) {
  return h('li', { class: `divider ${kind}`, role: 'separator', 'aria-label': text }, h('span', {}, text));
}
