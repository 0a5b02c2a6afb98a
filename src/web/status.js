// Whether there is a connection, why not, and what else went wrong.

import { byId } from './dom.js';
import { inTime } from './words.js';

/** How long an error stays. */
const PROBLEM_MS = 9_000;
/** A connection that comes back within this time is not worth a word. */
const PATIENCE_MS = 400;

export class Status {
  constructor({ onRetry }) {
    byId('retry').addEventListener('click', onRetry);
    byId('blocked-retry').addEventListener('click', onRetry);
    byId('problem-close').addEventListener('click', () => this.problem(''));
    this.clock = setInterval(() => this.#tick(), 500);
  }

  show(state, connection) {
    this.state = state;
    const online = state.kind === 'online';
    const blocked = state.kind === 'blocked';
    document.body.dataset.connection = state.kind;
    byId('connection-text').textContent = {
      online: `Connected to ${connection.node}`,
      blocked: 'Blocked',
      connecting: 'Connecting…',
    }[state.kind] ?? 'Reconnecting…';
    if (blocked) {
      byId('blocked-title').textContent = state.title;
      byId('blocked-text').textContent = state.text;
    }
    byId('blocked').hidden = !blocked;
    byId('composer').classList.toggle('shut', blocked);
    if (online || blocked) {
      clearTimeout(this.patience);
      this.patience = undefined;
      byId('reconnecting').hidden = true;
    } else {
      // Counted from the loss, however many attempts follow it.
      this.patience ??= setTimeout(() => { byId('reconnecting').hidden = false; }, PATIENCE_MS);
    }
    byId('reconnecting-title').textContent = state.reason ? 'Reconnecting…' : 'Connecting…';
    this.#tick();
  }

  #tick() {
    const { state } = this;
    if (state?.kind === 'waiting') {
      const wait = state.retryAt ? state.retryAt - Date.now() : 0;
      byId('reconnecting-text').textContent = wait > 1_500 ? `${state.reason} Trying again ${inTime(wait)}.` : state.reason;
      byId('retry').hidden = wait < 1_500;
    } else if (state?.kind === 'connecting') {
      byId('reconnecting-text').textContent = '';
      byId('retry').hidden = true;
    } else if (state?.kind === 'blocked') {
      const wait = inTime(state.retryAt - Date.now());
      byId('blocked-when').textContent = state.exact
        ? `It ends ${wait}. This page comes back by itself.`
        : `Usually it takes about a minute. Looking again ${wait}; this page comes back by itself.`;
    }
  }

  /** An error in plain words, for a while. */
  problem(text) {
    clearTimeout(this.timer);
    byId('problem-text').textContent = text;
    byId('problem').hidden = !text;
    if (text) this.timer = setTimeout(() => this.problem(''), PROBLEM_MS);
  }
}
