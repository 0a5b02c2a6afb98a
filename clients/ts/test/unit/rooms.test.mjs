// What a client asks for when a room's events do not follow each other.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { RoomcastClient } from '../../dist/index.js';
import { FakeSocket, settle } from './fake.mjs';

let socket;
let client;
let told;

const event = (seq, more = {}) => ({ id: `${seq}-${seq}`, roomID: 'r', seq, epoch: 'a', ts: seq, kind: 'message', message: `${seq}`, ...more });
const page = (topSeq, more = {}) => ({ roomID: 'r', epoch: 'a', topSeq, recovered: true, more: false, ...more });
const asked = (name) => socket.asked.filter((one) => one.name === name);
const answer = async (name, what) => {
  asked(name).at(-1).answer(what);
  await settle();
};

beforeEach(async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  socket = new FakeSocket('http://one');
  client = new RoomcastClient({ io: () => socket, url: 'http://one', auth: () => ({}) });
  told = [];
  client.on('event', ({ message }, { live }) => told.push(live ? message : `page ${message}`));
  client.on('reset', ({ events, lost }) => told.push(`reset ${events.map(({ message }) => message)}${lost ? ' lost' : ''}`));
  client.on('lost', () => told.push('lost'));
  client.on('closed', ({ code }) => told.push(`closed ${code}`));
  client.join('r');
  client.connect();
  socket.tell('connect');
  socket.tell('previousMessages', [event(1)], page(1, { recovered: false }));
  await answer('join', { ok: true });
});

afterEach(() => {
  client.close();
  mock.timers.reset();
});

test('a hole is asked for once and then filled in order', async () => {
  for (const seq of [2, 4, 5]) socket.tell('message', event(seq));
  assert.deepEqual(asked('loadMoreMessages_for_room').map(({ payload }) => payload), [{ roomId: 'r', type: 'gap', epoch: 'a', from: 3, to: 3 }]);
  await answer('loadMoreMessages_for_room', [event(3)]);
  assert.deepEqual(told, ['reset 1', '2', '3', '4', '5']);
});

test('a hole that cannot be asked for now is asked for again, and then left to a join', async () => {
  socket.tell('message', event(3));
  for (let attempt = 0; attempt < 4; attempt += 1) {
    assert.equal(asked('loadMoreMessages_for_room').length, attempt + 1);
    await answer('loadMoreMessages_for_room', { ok: false, code: 'unavailable', message: '', retryAfterMs: 100 });
    mock.timers.tick(150);
    await settle();
  }
  assert.deepEqual(asked('join').at(-1).payload, { roomID: 'r', epoch: 'a', seq: 1, ts: 1 });
  socket.tell('previousMessages', [event(2), event(3)], page(3));
  await answer('join', { ok: true });
  socket.tell('message', event(4));
  assert.deepEqual(told, ['reset 1', 'page 2', 'page 3', '4'], 'nothing was lost, so nothing is said');
});

test('a hole below what the log holds leads to `lost` and a new beginning', async () => {
  socket.tell('message', event(9));
  await answer('loadMoreMessages_for_room', { ok: false, code: 'not_found', message: '' });
  socket.tell('previousMessages', [event(8), event(9)], page(9, { recovered: false }));
  await answer('join', { ok: true });
  assert.deepEqual(told, ['reset 1', 'lost', 'reset 8,9 lost']);
  assert.deepEqual(client.timeline('r').messages, [], 'a timeline asked for later begins with what comes later');
});

test('`sync:lost` joins again, and events of before the page are left to it', async () => {
  socket.tell('sync:lost', { roomID: 'r', epoch: 'b', topSeq: 1 });
  socket.tell('message', event(2, { epoch: 'b' }));
  assert.equal(asked('join').length, 2);
  socket.tell('sync:lost', { roomID: 'r', epoch: 'b', topSeq: 1 });
  socket.tell('previousMessages', [event(1, { epoch: 'b' }), event(2, { epoch: 'b' })], page(2, { epoch: 'b', recovered: false }));
  await answer('join', { ok: true });
  assert.equal(asked('join').length, 2, 'one page is enough');
  socket.tell('message', event(3, { epoch: 'b' }));
  assert.deepEqual(told, ['reset 1', 'lost', 'reset 1,2 lost', '3']);
});

test('a join that fails for the moment is tried again, a refused one is not', async () => {
  socket.tell('sync:lost', { roomID: 'r', epoch: 'b', topSeq: 1 });
  await answer('join', { ok: false, code: 'unavailable', message: '', retryAfterMs: 1_000 });
  mock.timers.tick(999);
  assert.equal(asked('join').length, 2);
  mock.timers.tick(501);
  assert.equal(asked('join').length, 3);
  const waiting = client.send('r', { message: 'x' });
  await answer('join', { ok: false, code: 'room_gone', message: '' });
  await assert.rejects(waiting, { code: 'room_gone' });
  mock.timers.tick(3_600_000);
  assert.equal(asked('join').length, 3);
  assert.deepEqual(told, ['reset 1', 'closed room_gone']);
});

test('a message to a room that the server does not know as joined waits for a join', async () => {
  const receipt = client.send('r', { message: 'x' });
  await answer('message', { ok: false, code: 'not_joined', message: '' });
  assert.equal(asked('join').length, 2);
  socket.tell('previousMessages', [], page(1));
  await answer('join', { ok: true });
  assert.equal(asked('message').length, 2);
  assert.equal(asked('message')[0].payload.cid, asked('message')[1].payload.cid);
  await answer('message', { ok: true, id: '2-2', seq: 2, epoch: 'a', ts: 2, dup: false });
  assert.equal((await receipt).seq, 2);
});

test('a room left is not joined again, and its late events are nobody\'s', async () => {
  const left = client.leave('r');
  await answer('leave', { ok: true });
  await left;
  socket.tell('message', event(2));
  socket.tell('disconnect');
  mock.timers.tick(1_000);
  socket.tell('connect');
  assert.equal(asked('join').length, 1);
  assert.deepEqual(told, ['reset 1']);
});

test('a listener that throws keeps nothing from the others', () => {
  const faults = [];
  mock.method(globalThis, 'queueMicrotask', (report) => {
    try {
      report();
    } catch (error) {
      faults.push(error.message);
    }
  });
  const seen = [];
  client.on('event', () => { throw new Error('mine'); });
  client.on('event', ({ seq }) => seen.push(seq));
  socket.tell('message', event(2));
  socket.tell('message', event(3));
  mock.restoreAll();
  assert.deepEqual([seen, faults], [[2, 3], ['mine', 'mine']]);
});
