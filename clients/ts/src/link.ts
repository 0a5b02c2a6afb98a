// One connection after the other: where to, when, with which handshake, and why not.

import type { ManagerOptions, Socket, SocketOptions } from 'socket.io-client';

import { waitMs } from './backoff.js';
import { failure, type Cursor, type Failure, type Notice } from './protocol.js';
import { EXPIRED, isEnded, parseRefusal, probe } from './refusal.js';

const CONNECT_MS = 5_000;
/** Between two looks at a block whose end is not known; looking does not prolong it. */
const BLOCK_LOOK_MS = 10_000;
/** A clock that runs a little fast must not come too early. */
const BLOCK_MARGIN_MS = 500;
/** Timers count in 31 bits and fire at once beyond: a long ban would be asked about without a pause. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** The fields of the handshake that every client sends. */
export interface Credentials {
  accessToken: string;
  refreshToken: string;
  userAgent: string;
  username: string;
  deviceId?: string;
  [field: string]: unknown;
}

export type IoFunction = (url: string, options: Partial<ManagerOptions & SocketOptions>) => Socket;

/** Where connections come from: made with `io`, to one of several nodes in turn, or a socket that exists. */
export type LinkOptions = {
  /** Asked at every connection, so that it gives the newest tokens. */
  auth: () => Credentials | Promise<Credentials>;
} & (
  | { io: IoFunction; url: string | readonly string[]; options?: Partial<ManagerOptions & SocketOptions> }
  | { socket: Socket }
);

/**
 * What becomes of the connection. `retryAt` is Unix ms; `exact` tells whether the server named it, `network` whether it
 * did so before it knew who asks.
 */
export type ConnectionState =
  | { kind: 'connecting'; url: string }
  | { kind: 'online'; url: string }
  | { kind: 'waiting'; url: string; code: string; message: string; retryAt: number }
  | { kind: 'blocked'; url: string; code: string; message: string; retryAt: number; exact: boolean; network: boolean }
  | { kind: 'ended'; url: string; code: string; message: string }
  | { kind: 'closed'; url: string };

export interface LinkHandlers {
  state(state: ConnectionState): void;
  online(): void;
  offline(): void;
  event(name: string, args: unknown[]): void;
  resume(): Record<string, Cursor>;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #on: LinkHandlers;
  readonly #urls: string[];
  #socket: Socket | undefined;
  #detach = (): void => {};
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  /** Counts calls of `open`: credentials for an earlier one are nobody's. */
  #attempt = 0;
  /** Why the server said that it would cut; it counts until the next connection. */
  #notice: Notice | undefined;
  #state: ConnectionState;

  constructor(options: LinkOptions, on: LinkHandlers) {
    this.#options = options;
    this.#on = on;
    const url = 'socket' in options ? uriOf(options.socket) : options.url;
    this.#urls = typeof url === 'string' ? [url] : [...url];
    this.#state = { kind: 'closed', url: this.url };
  }

  get url(): string {
    return this.#urls[0] ?? '';
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get isOnline(): boolean {
    return this.#state.kind === 'online' && this.#socket?.connected === true;
  }

  /** Connects now; an earlier attempt, or a wait, is given up. */
  open(): void {
    this.#drop();
    this.#attempt += 1;
    const socket = this.#make(this.#attempt);
    this.#socket = socket;
    const mine = <Args extends unknown[]>(act: (...args: Args) => void) => (...args: Args) => {
      if (this.#socket === socket) act(...args);
    };
    const handlers: Record<string, (...args: never[]) => void> = {
      connect: mine(() => this.#connected()),
      disconnect: mine(() => this.#disconnected()),
      connect_error: mine((error: Error) => void this.#refused(socket, error)),
    };
    const any = mine((name: string, ...args: unknown[]) => this.#event(name, args));
    for (const [name, handler] of Object.entries(handlers)) socket.on(name, handler as () => void);
    socket.onAny(any);
    this.#detach = () => {
      for (const [name, handler] of Object.entries(handlers)) socket.off(name, handler as () => void);
      socket.offAny(any);
    };
    if (this.#state.kind !== 'blocked') this.#become({ kind: 'connecting', url: this.url });
    socket.connect();
  }

  close(): void {
    this.#drop();
    this.#become({ kind: 'closed', url: this.url });
  }

  /** Sends an event; the ack, or a failure of the same form. */
  async ask(event: string, payload: unknown, timeoutMs: number): Promise<unknown> {
    const socket = this.#socket;
    // Never into the library's own buffer: that would be sent before the rooms are joined again.
    if (!socket || !this.isOnline) return offline();
    try {
      return await socket.timeout(timeoutMs).emitWithAck(event, ...(payload === undefined ? [] : [payload]));
    } catch {
      return this.#socket === socket && this.isOnline ? { ok: false, code: 'no_answer', message: 'the server did not answer in time' } : offline();
    }
  }

  #make(attempt: number): Socket {
    const auth = (done: (data: object) => void): void => {
      Promise.resolve()
        .then(() => this.#options.auth())
        .then((credentials) => {
          if (attempt === this.#attempt) done({ ...credentials, proto: 2, resume: { rooms: this.#on.resume() } });
        })
        .catch((error: unknown) => {
          if (attempt === this.#attempt) this.#retry({ ok: false, code: 'auth', message: String(error) });
        });
    };
    if ('socket' in this.#options) {
      const { socket } = this.#options;
      // A handshake of before was none of protocol 2; and from here on this class decides when to come back.
      socket.disconnect();
      socket.io.reconnection(false);
      socket.auth = auth;
      return socket;
    }
    return this.#options.io(this.url, {
      transports: ['websocket', 'polling'], tryAllTransports: true, timeout: CONNECT_MS,
      ...this.#options.options, auth, forceNew: true, reconnection: false, autoConnect: false,
    });
  }

  #drop(): void {
    clearTimeout(this.#timer);
    this.#attempt += 1;
    const socket = this.#socket;
    const wasOnline = this.#state.kind === 'online';
    this.#socket = undefined;
    this.#detach();
    socket?.disconnect();
    if (wasOnline) this.#on.offline();
  }

  #become(state: ConnectionState): void {
    this.#state = state;
    this.#on.state(state);
  }

  #connected(): void {
    this.#failures = 0;
    this.#notice = undefined;
    this.#become({ kind: 'online', url: this.url });
    this.#on.online();
  }

  #event(name: string, args: unknown[]): void {
    if (name === 'security:notice') this.#notice = args[0] as Notice;
    if (name === 'server:drain') this.#drain((args[0] as { afterMs?: number } | undefined)?.afterMs ?? 0);
    this.#on.event(name, args);
  }

  /** The node goes away: what is under way may end, then the next one is asked. */
  #drain(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#rotate();
      this.open();
    }, afterMs);
  }

  #disconnected(): void {
    this.#on.offline();
    const notice = this.#notice;
    if (notice?.code === EXPIRED) {
      this.#notice = undefined;
      this.#retry({ ok: false, ...notice });
    } else if (notice && isEnded(notice)) this.#end(notice);
    else if (notice) this.#block(notice, notice.blockedForMs, false);
    else this.#retry({ ok: false, code: 'lost', message: 'the connection was lost' });
  }

  async #refused(socket: Socket, error: Error): Promise<void> {
    const refusal = parseRefusal(error.message);
    let reason = refusal;
    if (!reason) {
      const { path = '/socket.io', extraHeaders = {} } = socket.io.opts;
      reason = await probe(this.url, `${path.replace(/\/$/, '')}/`, extraHeaders);
      if (this.#socket !== socket) return;
    }
    if (isEnded(reason)) this.#end(reason);
    else if (reason.code === 'blocked') this.#block(reason, reason.retryAfterMs, !refusal);
    else this.#retry(reason);
  }

  #end({ code, message }: Notice): void {
    this.#become({ kind: 'ended', url: this.url, code, message });
  }

  /** All nodes know of a block: the same one is asked again. A notice says more than the refusals after it. */
  #block(reason: Notice, retryAfterMs: number | undefined, network: boolean): void {
    const { code, message } = this.#notice ?? reason;
    const after = (retryAfterMs ?? BLOCK_LOOK_MS) + BLOCK_MARGIN_MS;
    this.#later(after);
    const retryAt = Date.now() + after;
    this.#become({ kind: 'blocked', url: this.url, code, message, retryAt, exact: retryAfterMs !== undefined, network: network && !this.#notice });
  }

  /** Tries again: the same node after a lost connection, then the next one, ever more slowly. */
  #retry(reason: Failure): void {
    if (this.#failures > 0) this.#rotate();
    const wait = waitMs(this.#failures, reason.retryAfterMs);
    this.#failures += 1;
    this.#later(wait);
    this.#become({ kind: 'waiting', url: this.url, code: reason.code, message: reason.message, retryAt: Date.now() + wait });
  }

  #later(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open(), Math.min(afterMs, TIMER_MAX_MS));
  }

  #rotate(): void {
    const first = this.#urls.shift();
    if (first !== undefined) this.#urls.push(first);
  }
}

const offline = (): Failure => failure({ code: 'offline', message: 'there is no connection' });
/** Private in the types, stable since version 3. */
const uriOf = (socket: Socket): string => (socket.io as unknown as { uri: string }).uri;
