// A socket that does what a test says, for the decisions of the client alone; the tests in `live` use real ones.

/** What the client uses of a socket. */
export class FakeSocket {
  constructor(url) {
    Object.assign(this, { url, connected: false, handlers: new Map(), any: [], asked: [], io: { opts: {} }, connects: 0 });
  }

  on(name, handler) { this.handlers.set(name, handler); }
  off(name) { this.handlers.delete(name); }
  onAny(listener) { this.any.push(listener); }
  offAny() { this.any = []; }
  connect() { this.connects += 1; }
  disconnect() { this.connected = false; }

  tell(name, ...args) {
    if (name === 'connect') this.connected = true;
    if (name === 'disconnect') this.connected = false;
    if (['connect', 'disconnect', 'connect_error'].includes(name)) this.handlers.get(name)?.(...args);
    else for (const listener of this.any) listener(name, ...args);
  }

  timeout() {
    return { emitWithAck: (name, payload) => new Promise((answer) => { this.asked.push({ name, payload, answer }); }) };
  }
}

/** Lets everything go on that waits for an answer given just now. */
export const settle = async () => { for (let turn = 0; turn < 20; turn += 1) await Promise.resolve(); };
