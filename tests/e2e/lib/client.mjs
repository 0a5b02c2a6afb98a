// The official client, with its events on record.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { describe } from 'node:test';

import { io } from 'socket.io-client';

import { credentials, freshAddress } from './people.mjs';
import { DEADLINE_MS, within } from './wait.mjs';

export const WEBSOCKET = ['websocket'];
export const POLLING = ['polling'];
export const UPGRADE = ['polling', 'websocket'];

/** Tests of one file that run at once: they mostly wait. */
const AT_ONCE = 6;

/** Defines the same tests for every transport. */
export function onBothTransports(define) {
  describe('over websocket', { concurrency: AT_ONCE }, () => define(WEBSOCKET));
  describe('over polling with upgrade', { concurrency: AT_ONCE }, () => define(UPGRADE));
}

/** Defines tests that run at once. */
export function together(title, define) {
  describe(title, { concurrency: AT_ONCE }, define);
}

/** A socket that remembers every event until a test has asked for it. */
export class Client {
  constructor(node, { address, transports = WEBSOCKET, auth, headers = {}, reconnection = false, autoConnect = true }) {
    this.address = address;
    this.record = [];
    this.waiting = new Set();
    this.socket = io(node.url, {
      auth,
      transports,
      reconnection,
      autoConnect,
      reconnectionDelay: 100,
      reconnectionDelayMax: 500,
      forceNew: true,
      timeout: DEADLINE_MS,
      extraHeaders: { ...(address && { 'X-Forwarded-For': address }), ...headers },
    });
    this.socket.onAny((name, ...args) => this.note(name, args));
    for (const name of ['connect', 'connect_error', 'disconnect']) {
      this.socket.on(name, (...args) => this.note(name, args));
    }
  }

  note(name, args) {
    this.record.push({ name, args, taken: false });
    for (const look of this.waiting) look();
  }

  get id() {
    return this.socket.id;
  }

  /** Every event of this name so far, as argument lists. */
  all(name) {
    return this.record.filter((event) => event.name === name).map(({ args }) => args);
  }

  /** The next event of one of these names that passes `test`; each event is found once. */
  next(names, test = () => true, deadlineMs = DEADLINE_MS) {
    let look;
    const found = new Promise((resolve) => {
      look = () => {
        const event = this.record.find((one) => names.includes(one.name) && !one.taken && test(...one.args));
        if (!event) return;
        event.taken = true;
        // At once: the next event may come in the same packet, and it is somebody else's.
        this.waiting.delete(look);
        resolve(event);
      };
      this.waiting.add(look);
      look();
    });
    return within(`event \`${names.join('` or `')}\``, found, deadlineMs)
      .catch((error) => { throw new Error(`${error.message} (got: ${this.story()})`); })
      .finally(() => this.waiting.delete(look));
  }

  /** The arguments of the next event of this name that passes `test`. */
  async expect(name, test, deadlineMs) {
    return (await this.next([name], test, deadlineMs)).args;
  }

  /** What happened so far, for failure messages. */
  story() {
    return this.record.map(({ name, args }) => `${name} ${(JSON.stringify(args) ?? '').slice(0, 200)}`).join('; ').slice(-2_000);
  }

  /** Emits with an ack and returns what came back. */
  ask(event, ...args) {
    return this.socket.timeout(DEADLINE_MS).emitWithAck(event, ...args)
      .catch((error) => { throw new Error(`${event}: ${error.message}`); });
  }

  /** The same, for what must succeed. */
  async do(event, ...args) {
    const answer = await this.ask(event, ...args);
    assert.equal(answer?.ok, true, `${event} was refused: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Emits without an ack, as old clients do. */
  send(event, ...args) {
    this.socket.emit(event, ...args);
  }

  /** The reason of the disconnect. */
  async ended(deadlineMs) {
    const [reason] = await this.expect('disconnect', undefined, deadlineMs);
    return reason;
  }

  /** The error of a refused handshake. */
  async refused(deadlineMs) {
    const [error] = await this.expect('connect_error', undefined, deadlineMs);
    return error;
  }

  close() {
    this.socket.disconnect();
  }
}

/** Starts a handshake; the client is closed at the end of the test. */
export function open(t, node, person, { auth = {}, address = freshAddress(), ...options } = {}) {
  const client = new Client(node, { ...options, address, auth: { ...(person && credentials(person)), ...auth } });
  t.after(() => client.close());
  return client;
}

/** A connected client. */
export async function connect(t, node, person, options) {
  const client = open(t, node, person, options);
  const { name, args: [error] } = await client.next(['connect', 'connect_error']);
  if (name === 'connect_error') throw new Error(`handshake refused: ${error.message} ${error.description?.message ?? error.description ?? ''}`);
  return client;
}

/** A connected client that has joined a room; what the join brought is in `previous`. */
export async function joined(t, node, person, roomID, { join = {}, ...options } = {}) {
  const client = await connect(t, node, person, options);
  await client.do('join', { roomID, ...join });
  [client.previous] = await client.expect('previousMessages');
  return client;
}

/** Asserts that the events `emit` causes are refused with `code`, in the ack where there is one, else as an event. */
export async function assertRefused(client, event, payload, code) {
  const answer = await client.ask(event, payload);
  assertError(answer, code, `${event} ${JSON.stringify(payload)?.slice(0, 120)}`);
  client.send(event, payload);
  const [error] = await client.expect('errorMessage', (one) => one?.event === event);
  assertError(error, code, `${event} without ack`);
}

/** Asserts the form of an error of the contract. */
export function assertError(error, code, what) {
  assert.equal(error?.code, code, `${what}: ${JSON.stringify(error)}`);
  assert.notEqual(error.ok, true, what);
  if ('message' in error) assert.equal(typeof error.message, 'string', what);
  if (error.retryAfterMs !== undefined) assert.ok(error.retryAfterMs > 0, what);
}

/** A handshake request as bytes on the wire, because the client hides status and body of a refusal. */
export function rawHandshake(node, { address, headers = {}, upgrade = false, path }) {
  const transport = upgrade ? 'websocket' : 'polling';
  const upgradeHeaders = {
    Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
  };
  return new Promise((resolve, reject) => {
    const call = request(`${node.url}${path ?? `/socket.io/?EIO=4&transport=${transport}`}`, {
      headers: { ...(address && { 'X-Forwarded-For': address }), ...(upgrade && upgradeHeaders), ...headers },
    });
    call.setTimeout(DEADLINE_MS, () => call.destroy(new Error('no answer')));
    call.once('error', reject);
    call.once('upgrade', (answer, socket) => {
      socket.destroy();
      resolve({ status: answer.statusCode, headers: answer.headers, body: '' });
    });
    call.once('response', async (answer) => {
      let body = '';
      for await (const chunk of answer) body += chunk;
      resolve({ status: answer.statusCode, headers: answer.headers, body });
    });
    call.end();
  });
}

/** Asserts that an address is turned away before the upgrade, on this node and for both transports. */
export async function assertBlocked(node, address) {
  for (const upgrade of [false, true]) {
    const answer = await rawHandshake(node, { address, upgrade });
    assert.equal(answer.status, 403, `transport ${upgrade ? 'websocket' : 'polling'}`);
    const body = JSON.parse(answer.body);
    assert.equal(typeof body.code, 'string', answer.body);
    assert.equal(typeof body.message, 'string', answer.body);
    if (body.retryAfterMs !== undefined) assert.ok(body.retryAfterMs > 0, answer.body);
    assert.ok(Number(answer.headers['retry-after']) >= 1, JSON.stringify(answer.headers));
  }
}

/** How long the block of an address still lasts, in seconds; `undefined` when there is none. */
export async function blockLeft(node, address) {
  const { status, headers } = await rawHandshake(node, { address });
  return status === 403 ? Number(headers['retry-after']) : undefined;
}
