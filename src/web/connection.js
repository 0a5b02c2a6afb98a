// One connection to one of the nodes, and the next one after it: which node, when, and why not.

import { explainRefusal, explainStatus } from './words.js';

/** The first wait after a failure; it doubles up to the longest. */
const WAIT_MS = { first: 300, longest: 10_000 };
/** Between two looks at a block whose end is not known; looking does not prolong it. */
const BLOCK_LOOK_MS = 10_000;
const CONNECT_MS = 5_000;
const ACK_MS = 8_000;
/** Reasons of a notice after which the login is of no use any more. */
const ENDED = new Set(['revoked', 'user_refused']);

export class Connection {
  /** `on.state(state)` is told every change, `on.event(name, ...args)` every event, `on.online()` each new connection. */
  constructor({ io, nodes, auth, on }) {
    Object.assign(this, { io, auth, on, failures: 0 });
    // The node that served the page first; it is one of them, under whatever name.
    const here = nodes.findIndex((node) => new URL(node).host === location.host);
    this.nodes = here < 0 ? [location.origin, ...nodes] : [...nodes.slice(here), ...nodes.slice(0, here)];
    this.state = { kind: 'connecting' };
    window.addEventListener('online', this.#wake = () => this.state.kind === 'waiting' && this.open());
  }

  #wake;

  get node() {
    return new URL(this.nodes[0]).host;
  }

  get isOnline() {
    return this.state.kind === 'online';
  }

  /** Connects now; an earlier attempt is given up. */
  open() {
    clearTimeout(this.timer);
    this.socket?.disconnect();
    const socket = this.io(this.nodes[0], {
      forceNew: true,
      reconnection: false,
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      timeout: CONNECT_MS,
      auth: (done) => done(this.auth()),
    });
    this.socket = socket;
    const mine = (act) => (...args) => this.socket === socket && act(...args);
    socket.on('connect', mine(() => {
      this.failures = 0;
      this.notice = undefined;
      this.#become({ kind: 'online' });
      this.on.online();
    }));
    socket.on('disconnect', mine(() => this.#ended()));
    socket.on('connect_error', mine((error) => this.#refused(error)));
    socket.onAny(mine((name, ...args) => {
      if (name === 'security:notice') this.notice = { ...args[0], at: Date.now() };
      else this.on.event(name, ...args);
    }));
    if (!this.isOnline && this.state.kind !== 'blocked') this.#become({ ...this.state, retryAt: undefined });
  }

  close() {
    clearTimeout(this.timer);
    window.removeEventListener('online', this.#wake);
    const { socket } = this;
    this.socket = undefined;
    socket?.disconnect();
  }

  /** Sends an event; the ack, or a failure of the same form. */
  async ask(event, payload) {
    if (!this.isOnline) return { ok: false, code: 'offline' };
    try {
      return await this.socket.timeout(ACK_MS).emitWithAck(event, payload);
    } catch {
      return { ok: false, code: this.isOnline ? 'no_answer' : 'offline' };
    }
  }

  #become(state) {
    this.state = state;
    this.on.state(state);
  }

  /** The connection is gone; a notice before it says why. */
  #ended() {
    const { notice } = this;
    if (notice && ENDED.has(notice.code)) {
      this.#become({ kind: 'ended', text: notice.message });
    } else if (notice) {
      const after = notice.blockedForMs ?? BLOCK_LOOK_MS;
      this.#block({ title: 'You are blocked for the moment', text: notice.message }, after, notice.blockedForMs !== undefined);
    } else {
      this.#retry('The connection was lost.');
    }
  }

  async #refused(error) {
    const { socket } = this;
    let [words, after] = [{ kind: 'waiting', text: 'The node does not answer.' }];
    if (error.type === 'TransportError' || /timeout|error/.test(error.message)) {
      // The client hides the answer of the server; asked once more, it can be read.
      try {
        const answer = await fetch(`${this.nodes[0]}/socket.io/?EIO=4&transport=polling`, { signal: AbortSignal.timeout(CONNECT_MS) });
        if (!answer.ok) {
          const body = await answer.json().catch(() => ({}));
          [words, after] = [explainStatus(answer.status, body), body.retryAfterMs];
        }
      } catch {
        // Nobody is there: another node may be.
      }
      if (this.socket !== socket) return;
    } else {
      words = explainRefusal(error.message);
    }
    if (words.kind === 'ended') this.#become(words);
    else if (words.kind === 'blocked') this.#block(words, after ?? BLOCK_LOOK_MS, after !== undefined);
    else this.#retry(words.text);
  }

  /** All nodes know of a block: the same one is asked again. What the notice said stays on the page. */
  #block(words, afterMs, exact) {
    const known = this.notice ? { title: 'You are blocked for the moment', text: this.notice.message } : words;
    const retryAt = Date.now() + afterMs + 500;
    this.timer = setTimeout(() => this.open(), retryAt - Date.now());
    this.#become({ ...known, kind: 'blocked', retryAt, exact });
  }

  /** Tries the next node: at once after a lost connection, then ever more slowly. */
  #retry(reason) {
    if (this.failures > 0) this.nodes.push(this.nodes.shift());
    const wait = Math.min(WAIT_MS.longest, WAIT_MS.first * 2 ** this.failures) * (0.5 + Math.random());
    this.failures += 1;
    this.timer = setTimeout(() => this.open(), wait);
    this.#become({ kind: 'waiting', reason, retryAt: Date.now() + wait });
  }
}
