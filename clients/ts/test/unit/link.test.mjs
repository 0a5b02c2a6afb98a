// When a connection is tried again, on a socket that does what the test says.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { parseRefusal, RoomcastClient } from '../../dist/index.js';
import { FakeSocket, settle } from './fake.mjs';

let sockets;
let client;
const socket = () => sockets.at(-1);

beforeEach(() => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  sockets = [];
  const io = (url, options) => {
    sockets.push(Object.assign(new FakeSocket(url), { options }));
    return socket();
  };
  client = new RoomcastClient({ io, url: ['http://one', 'http://two'], auth: () => ({ accessToken: 'a' }) });
  client.connect();
});

afterEach(() => {
  client.close();
  mock.timers.reset();
});

const refuse = (body) => socket().tell('connect_error', new Error(JSON.stringify(body)));

test('the handshake asks for protocol 2 and says where the client stands', async () => {
  const sent = [];
  client.join('r');
  socket().tell('connect');
  socket().tell('previousMessages', [], { roomID: 'r', epoch: 'a', topSeq: 7, recovered: false, more: false });
  socket().options.auth((data) => sent.push(data));
  await settle();
  assert.deepEqual(sent, [{ accessToken: 'a', proto: 2, resume: { rooms: { r: { epoch: 'a', seq: 7 } } } }]);
});

test('a refusal is believed about when to come back', async () => {
  refuse({ code: 'auth_unavailable', message: 'away', retryAfterMs: 4_000 });
  assert.deepEqual([client.state.kind, client.state.code], ['waiting', 'auth_unavailable']);
  const wait = client.state.retryAt - Date.now();
  assert.ok(wait >= 4_000 && wait <= 6_000, `${wait}`);
  mock.timers.tick(3_999);
  assert.equal(sockets.length, 1);
  mock.timers.tick(2_001);
  assert.equal(sockets.length, 2);
});

test('a block is waited out at the same node, and not shortened at random', () => {
  refuse({ code: 'blocked', message: "you're banned", retryAfterMs: 60_000 });
  assert.deepEqual([client.state.kind, client.state.exact], ['blocked', true]);
  mock.timers.tick(60_000);
  assert.equal(sockets.length, 1);
  mock.timers.tick(500);
  assert.deepEqual(sockets.map(({ url }) => url), ['http://one', 'http://one']);
});

test('a ban for ever is not asked about without a pause', () => {
  const delays = mock.method(globalThis, 'setTimeout');
  refuse({ code: 'blocked', message: "you're banned", retryAfterMs: 100 * 365 * 86_400_000 });
  // What a timer takes; beyond it a real one fires at once.
  assert.ok(delays.mock.calls.every(({ arguments: [, ms] }) => ms < 2 ** 31), 'a delay that a timer does not take');
  delays.mock.restore();
});

test('what the notice said stands after the cut, and an ended login is not tried again', () => {
  socket().tell('connect');
  socket().tell('security:notice', { code: 'strikes', message: 'Too many.', blockedForMs: 9_000 });
  socket().tell('disconnect');
  assert.deepEqual([client.state.kind, client.state.message], ['blocked', 'Too many.']);
  mock.timers.tick(9_500);
  socket().tell('connect');
  socket().tell('security:notice', { code: 'revoked', message: 'This login was ended.' });
  socket().tell('disconnect');
  assert.equal(client.state.kind, 'ended');
  mock.timers.tick(3_600_000);
  assert.equal(sockets.length, 2);
});

test('a connection whose access token ended comes back at once, and only a refused refresh token ends it', () => {
  socket().tell('connect');
  socket().tell('security:notice', { code: 'auth_expired', message: 'The access token has expired.' });
  socket().tell('disconnect');
  assert.deepEqual([client.state.kind, client.state.code], ['waiting', 'auth_expired']);
  mock.timers.tick(1_000);
  assert.deepEqual(sockets.map(({ url }) => url), ['http://one', 'http://one']);
  refuse({ code: 'blocked', message: 'Token refresh failed', retryAfterMs: 60_000 });
  assert.deepEqual([client.state.kind, client.state.message], ['ended', 'Token refresh failed']);
});

test('a node that drains is left when it says so, for the next one', () => {
  const drains = [];
  client.on('drain', (drain) => drains.push(drain));
  socket().tell('connect');
  socket().tell('server:drain', { afterMs: 5_000 });
  assert.deepEqual(drains, [{ afterMs: 5_000 }]);
  mock.timers.tick(4_999);
  assert.equal(client.state.kind, 'online');
  mock.timers.tick(1);
  assert.deepEqual(sockets.map(({ url }) => url), ['http://one', 'http://two']);
});

test('a lost connection is tried at the same node first, then at the others', async () => {
  socket().tell('connect');
  socket().tell('disconnect');
  mock.timers.tick(1_000);
  refuse({ code: 'unavailable', message: 'starting', retryAfterMs: 100 });
  mock.timers.tick(1_000);
  assert.deepEqual(sockets.map(({ url }) => url), ['http://one', 'http://one', 'http://two']);
});

test('after a reconnect rooms are joined from their place before messages are sent again, under the same cid', async () => {
  client.join('r');
  socket().tell('connect');
  const page = { roomID: 'r', epoch: 'a', topSeq: 3, recovered: false, more: false };
  socket().tell('previousMessages', [], page);
  socket().asked[0].answer({ ok: true });
  await settle();
  const receipt = client.send('r', { message: 'hi' });
  assert.equal(socket().asked[1].name, 'message');
  const { cid } = socket().asked[1].payload;
  socket().tell('disconnect');
  socket().asked[1].answer(undefined);
  await settle();
  mock.timers.tick(1_000);
  socket().tell('connect');
  await settle();
  assert.deepEqual(socket().asked.map(({ name, payload }) => [name, payload.seq]), [['join', 3]]);
  socket().tell('previousMessages', [], { ...page, recovered: true });
  socket().asked[0].answer({ ok: true });
  await settle();
  assert.deepEqual(socket().asked[1].payload, { message: 'hi', roomID: 'r', cid });
  socket().asked[1].answer({ ok: true, id: '1-4', seq: 4, epoch: 'a', ts: 1, dup: true });
  assert.equal((await receipt).seq, 4);
  // It is shown as on its way until it is there.
  assert.equal(client.pending('r').length, 1);
  socket().tell('message', { id: '1-4', roomID: 'r', seq: 4, epoch: 'a', ts: 1, kind: 'message', cid, message: 'hi' });
  assert.equal(client.pending('r').length, 0);
});

test('one\'s own event is as good as its ack', async () => {
  client.join('r');
  socket().tell('connect');
  socket().tell('previousMessages', [], { roomID: 'r', epoch: 'a', topSeq: 0, recovered: false, more: false });
  socket().asked[0].answer({ ok: true });
  await settle();
  const receipt = client.send('r', { message: 'hi' });
  const { cid } = socket().asked[1].payload;
  socket().tell('message', { id: '1-1', roomID: 'r', seq: 1, epoch: 'a', ts: 1, kind: 'message', cid, message: 'hi' });
  assert.equal((await receipt).id, '1-1');
  socket().tell('disconnect');
  assert.deepEqual(client.pending('r'), []);
});

test('a rate limit is waited out with the messages behind it', async () => {
  client.join('r');
  socket().tell('connect');
  socket().tell('previousMessages', [], { roomID: 'r', epoch: 'a', topSeq: 0, recovered: false, more: false });
  socket().asked[0].answer({ ok: true });
  await settle();
  void client.send('r', { message: 'one' });
  void client.send('r', { message: 'two' });
  const sent = () => socket().asked.filter(({ name }) => name === 'message');
  sent()[0].answer({ ok: false, code: 'rate_limited', message: 'slow', retryAfterMs: 3_000 });
  await settle();
  void client.send('r', { message: 'three' });
  mock.timers.tick(2_999);
  assert.equal(sent().length, 1);
  mock.timers.tick(1_501);
  assert.deepEqual(sent().map(({ payload }) => payload.message), ['one', 'one']);
});

test('a server without protocol 2 is told from one that has it', async () => {
  const closed = [];
  client.on('closed', (room) => closed.push(room.code));
  client.join('r');
  socket().tell('connect');
  socket().tell('previousMessages', []);
  socket().asked[0].answer({ ok: true });
  await settle();
  assert.deepEqual(closed, ['protocol']);
});

test('refusals are read in both of their forms', () => {
  assert.deepEqual(parseRefusal('{"code":"blocked","message":"no","retryAfterMs":5}'), { ok: false, code: 'blocked', message: 'no', retryAfterMs: 5 });
  assert.deepEqual(parseRefusal("you're banned"), { ok: false, code: 'blocked', message: "you're banned" });
  assert.equal(parseRefusal('websocket error'), undefined);
});
