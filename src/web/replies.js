// A reply of the model as one row of the list, from the question to the message. It changes in place: nothing flickers, and
// what is selected or focused stays so.

import { avatar, h, icon } from './dom.js';
import { explainReply, plural, timeOf } from './words.js';

/** Who writes replies. */
export const AUTHOR = 'gpt';

/** What a row shows of a reply that is no message yet, or of the message it has become. */
export function viewOf(room, me, reply) {
  const isMessage = reply.kind === 'gpt';
  const asked = room.find(isMessage ? reply.replyTo : reply.question);
  const mine = asked?.platformid === me;
  const to = questionOf(asked, mine);
  if (isMessage) return { to, asked, mine, state: 'done', text: reply.message, ts: reply.ts, stopped: reply.cancelled === true };
  return { ...reply, to, asked, mine, stopping: room.stopping.has(reply.id) };
}

const questionOf = (asked, mine) => (mine ? 'your question' : asked ? `${asked.username}’s question` : 'an earlier question');

/** `Your question waits behind 2 others`. */
export function waiting(to, position) {
  return `${to[0].toUpperCase()}${to.slice(1)} waits behind ${plural(position, 'other', 'others')}`;
}

/** The line below the text. */
function explain({ state, to, text, gen, position, problem, stopping, stopped }) {
  switch (state) {
    case 'done': return `Answer to ${to}${stopped ? ', stopped' : ''}`;
    case 'failed': return explainReply(problem);
    case 'asked': return `Answer to ${to}`;
    default:
      if (stopping) return 'Stopping…';
      if (position) return waiting(to, position);
      if (gen > 1 && !text) return 'Trying again…';
      return `${text ? 'Answering' : 'Thinking about'} ${to}`;
  }
}

export class ReplyRow {
  /** `onStop(id)`, `onAgain(id, question)` and `onDismiss(id)` for the buttons. */
  constructor(id, { onStop, onAgain, onDismiss }) {
    const button = (label, onclick, ...content) => h('button', { type: 'button', class: 'pill', 'aria-label': label, onclick }, ...content);
    this.text = document.createTextNode('');
    this.time = h('time');
    this.line = h('span', { class: 'fate-text' });
    this.stop = button('Stop this answer', () => this.stop.ariaDisabled !== 'true' && onStop(id), icon('stop'), 'Stop');
    this.again = button('Ask this question again', () => onAgain(id, this.view.asked), icon('again'), 'Ask again');
    this.dismiss = button('Remove this notice', () => onDismiss(id), 'Dismiss');
    this.bubble = h('div', { class: 'bubble' },
      h('span', { class: 'text', dir: 'auto' }, this.text),
      h('span', { class: 'dots', 'aria-hidden': 'true' }, h('i'), h('i'), h('i')));
    this.element = h('li', { tabindex: '-1', 'data-id': id },
      avatar(AUTHOR),
      h('div', { class: 'body' },
        h('div', { class: 'who' }, h('span', { class: 'name' }, AUTHOR), this.time),
        h('div', { class: 'bubble-row' }, this.bubble),
        h('div', { class: 'fate' }, this.line, this.stop, this.again, this.dismiss)));
  }

  show(view) {
    this.view = view;
    const { state, position, text, ts, mine, asked, problem, stopping, stopped } = view;
    const focused = this.element.contains(document.activeElement);
    this.element.className = ['message head gpt', state, stopped && 'stopped', text && 'has-text'].filter(Boolean).join(' ');
    // Readers are told of the whole, not of every word.
    this.element.setAttribute('aria-busy', String(state === 'asked' || state === 'queued' || state === 'writing'));
    this.#write(text);
    put(this.line, explain(view));
    put(this.time, ts ? timeOf(ts) : '');
    this.time.dateTime = ts ? new Date(ts).toISOString() : '';
    this.bubble.title = ts ? new Date(ts).toLocaleString() : '';
    this.bubble.hidden = !text && (state === 'failed' || position > 0);
    this.stop.hidden = !mine || (state !== 'queued' && state !== 'writing');
    this.stop.ariaDisabled = String(Boolean(stopping));
    this.again.hidden = !(state === 'failed' && mine && asked && problem.retryable);
    this.dismiss.hidden = state !== 'failed';
    // The place of the keyboard is not lost with a button.
    if (focused && !this.element.contains(document.activeElement)) this.element.focus();
    else if (focused && document.activeElement.hidden) this.element.focus();
  }

  #write(text) {
    if (text === this.text.data) return;
    if (text.startsWith(this.text.data)) this.text.appendData(text.slice(this.text.length));
    else this.text.data = text;
  }
}

/** A change that is none would be read out, or cost a layout. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
