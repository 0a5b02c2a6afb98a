// The list of rooms, the drawer that holds it on a phone, and who is in a room.

import { avatar, byId, h, icon } from './dom.js';
import { plural, timeOf } from './words.js';

const NARROW = matchMedia('(max-width: 760px)');

export class Sidebar {
  constructor({ onOpen }) {
    this.onOpen = onOpen;
    this.list = byId('rooms');
    this.drawer = byId('sidebar');
    byId('menu').addEventListener('click', () => this.toggle(true));
    byId('backdrop').addEventListener('click', () => this.toggle(false));
    byId('close-menu').addEventListener('click', () => this.toggle(false));
    this.drawer.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.isOpen) this.toggle(false);
      else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') this.#step(event);
    });
    NARROW.addEventListener('change', () => this.toggle(false, { focus: false }));
    this.toggle(false, { focus: false });
  }

  get isOpen() {
    return document.body.classList.contains('drawer-open');
  }

  /** On a phone the closed drawer is out of the way for the keyboard and for readers too. */
  toggle(open, { focus = true } = {}) {
    document.body.classList.toggle('drawer-open', open && NARROW.matches);
    this.drawer.inert = NARROW.matches && !open;
    byId('main').inert = NARROW.matches && open;
    byId('menu').setAttribute('aria-expanded', String(open));
    if (!focus || !NARROW.matches) return;
    if (open) (this.list.querySelector('[aria-current]') ?? this.list.querySelector('button'))?.focus();
    else byId('menu').focus();
  }

  #step(event) {
    const buttons = [...this.list.querySelectorAll('button')];
    const at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    buttons[Math.min(buttons.length - 1, Math.max(0, at + (event.key === 'ArrowDown' ? 1 : -1)))].focus();
  }

  render(rooms, open) {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.room : undefined;
    this.list.replaceChildren(...[...rooms.values()].map((room) => this.#entry(room, room === open)));
    byId('no-rooms').hidden = rooms.size > 0;
    if (focused) [...this.list.querySelectorAll('button')].find(({ dataset }) => dataset.room === focused)?.focus();
    const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
    document.title = unread ? `(${unread}) roomcast` : 'roomcast';
    byId('menu').classList.toggle('has-unread', [...rooms.values()].some((room) => room !== open && room.unread));
  }

  #entry(room, current) {
    const { last } = room;
    return h('li', {}, h(
      'button',
      {
        type: 'button', class: `room${room.unread ? ' unread' : ''}`, 'data-room': room.id, 'aria-current': current && 'true',
        onclick: () => this.onOpen(room),
      },
      h('span', { class: 'hash' }, icon('room')),
      h('span', { class: 'room-text' },
        h('span', { class: 'room-name' }, room.id),
        h('span', { class: 'preview' }, room.problem ?? (last ? `${last.username}: ${last.message}` : 'No messages yet'))),
      h('span', { class: 'room-side' },
        last && h('time', { class: 'when' }, timeOf(last.ts)),
        room.unread > 0 && h('span', { class: 'badge' },
          h('span', { 'aria-hidden': 'true' }, room.unread > 99 ? '99+' : String(room.unread)),
          h('span', { class: 'sr' }, `${room.unread} unread`))),
    ));
  }
}

/** Who is in the room. */
export function renderPeople(room, me) {
  const number = room?.people?.length ?? room?.count;
  const label = number === undefined ? 'People' : plural(number, 'person', 'people');
  byId('people-label').textContent = label;
  byId('people-toggle').setAttribute('aria-label', `${label} in this room`);
  const people = (room?.people ?? []).toSorted((a, b) => (a.nickname ?? '').localeCompare(b.nickname ?? ''));
  byId('people-list').replaceChildren(...people.map(({ nickname, platformid }) => {
    const name = nickname ?? platformid ?? 'somebody';
    return h('li', { class: 'person' }, avatar(name), h('span', { class: 'person-name' }, name), platformid === me && h('span', { class: 'you' }, 'you'));
  }));
  byId('people-many').hidden = people.length > 0;
  byId('people-many').textContent = number === undefined ? 'Not known yet.' : `${label}: too many to list.`;
}
