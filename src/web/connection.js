// The connection in words: which node, since when not, and why.

import { explainState } from './words.js';

export class Connection {
  /** `on.state(state)` is told every change. */
  constructor({ io, roomcast, nodes, auth, storage, on }) {
    // The node that served the page first; it is one of them, under whatever name.
    const here = nodes.findIndex((node) => new URL(node).host === location.host);
    const url = here < 0 ? [location.origin, ...nodes] : [...nodes.slice(here), ...nodes.slice(0, here)];
    this.on = on;
    this.state = { kind: 'connecting' };
    this.client = new roomcast.RoomcastClient({ io, url, auth, storage });
    this.client.on('state', (state) => this.#become(state));
    window.addEventListener('online', this.#wake = () => this.state.kind === 'waiting' && this.open());
  }

  #wake;

  get node() {
    return new URL(this.client.state.url).host;
  }

  /** Connects now; an earlier attempt is given up. */
  open() {
    this.client.connect();
  }

  close() {
    window.removeEventListener('online', this.#wake);
    this.client.close();
  }

  #become(state) {
    // Another try is no news: why it is needed stays in sight.
    const tries = state.kind === 'connecting' && this.state.kind === 'waiting';
    this.state = tries ? { ...this.state, retryAt: undefined } : explainState(state);
    this.on.state(this.state);
  }
}
