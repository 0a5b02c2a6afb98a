// Replies that are no messages yet: what becomes of each, and that none is kept for ever.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';

import { isGptMessage, RoomcastClient } from '../../dist/index.js';
import { FakeSocket, settle } from './fake.mjs';

/** Longer than any reply lives. */
const SILENCE_MS = 210_000;

let socket;
let client;
let seq;

const event = (more = {}) => {
  seq += 1;
  return { id: `${seq}-${seq}`, roomID: 'r', seq, epoch: 'a', ts: seq, timestamp: seq, kind: 'message', message: `text ${seq}`, ...more };
};
const page = (more = {}) => ({ roomID: 'r', epoch: 'a', topSeq: seq, recovered: true, more: false, ...more });
const tell = (name, payload) => socket.tell(name, { roomID: 'r', ...payload });
const delta = (id, idx, text, gen = 1) => tell('gpt:delta', { id, gen, idx, text });
const fail = (id, code, retryable = true) => tell('gpt:error', { id, code, message: 'no', retryable });
const replies = () => client.replies('r');
const states = () => replies().map(({ state, position, text }) => (position === undefined ? `${state} ${text}` : `${state} ${position}`).trim());
const last = (name) => socket.asked.filter((one) => one.name === name).at(-1);

/** A question of the room; returns the id of its reply. */
const ask = () => {
  const question = event({ gpt: true });
  socket.tell('message', question);
  return `${question.id}-r`;
};
const finish = (id, more = {}) => socket.tell('message', event({ id, kind: 'gpt', gpt: true, replyTo: id.slice(0, -2), message: 'whole', ...more }));

/** A connection lost and found again, with this page. */
async function rejoin(events, info) {
  socket.tell('disconnect', 'transport close');
  mock.timers.tick(20_000);
  socket.tell('connect');
  socket.tell('previousMessages', events, page(info));
  last('join').answer({ ok: true });
  await settle();
}

beforeEach(async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  seq = 0;
  socket = new FakeSocket('http://one');
  client = new RoomcastClient({ io: () => socket, url: 'http://one', auth: () => ({}) });
  client.timeline('r');
  client.join('r');
  client.connect();
  socket.tell('connect');
  socket.tell('previousMessages', [event()], page({ recovered: false }));
  last('join').answer({ ok: true });
  await settle();
});

afterEach(() => {
  client.close();
  mock.timers.reset();
});

test('a reply is asked for, queued, written, and then a message', () => {
  const told = [];
  client.on('gpt:delta', ({ idx, text }) => told.push([idx, text]));
  client.on('event', (one) => isGptMessage(one) && told.push([one.replyTo, replies().length]));
  const id = ask();
  assert.deepEqual(states(), ['asked']);
  tell('gpt:queued', { id, position: 0 });
  assert.deepEqual(states(), ['queued 0']);
  delta(id, 0, 'who');
  delta(id, 1, 'le');
  assert.deepEqual(states(), ['writing whole']);
  assert.equal(replies()[0].question, id.slice(0, -2));
  finish(id);
  assert.deepEqual(replies(), []);
  assert.deepEqual(told, [[0, 'who'], [1, 'le'], [id.slice(0, -2), 0]]);
  // What comes late does not begin it again.
  delta(id, 2, 'late');
  fail(id, 'deadline');
  assert.deepEqual(replies(), []);
});

test('those that wait come nearer as others end, and not when one was never taken in', () => {
  const [one, two, three] = [ask(), ask(), ask()];
  [one, two, three].forEach((id, position) => tell('gpt:queued', { id, position }));
  const refused = ask();
  fail(refused, 'room_busy');
  delta(one, 0, 'a');
  assert.deepEqual(states(), ['writing a', 'queued 1', 'queued 2', 'failed']);
  finish(one);
  assert.deepEqual(states(), ['queued 0', 'queued 1', 'failed']);
  fail(two, 'cancelled', false);
  assert.deepEqual(states(), ['failed', 'queued 0', 'failed']);
});

test('an attempt that begins anew clears the text', () => {
  const id = ask();
  delta(id, 0, 'first');
  tell('gpt:reset', { id, gen: 2 });
  assert.deepEqual([states(), replies()[0].gen], [['writing'], 2]);
  delta(id, 1, 'of the first', 1);
  delta(id, 0, 'second', 2);
  assert.deepEqual(states(), ['writing second']);
});

test('a failure stays where it happened until it is dismissed, or its question is deleted', () => {
  const id = ask();
  delta(id, 0, 'so far');
  fail(id, 'timeout');
  const [{ problem, failedAt, text }] = replies();
  assert.deepEqual([problem, failedAt, text], [{ code: 'timeout', message: 'no', retryable: true }, seq, 'so far']);
  client.dismiss('r', id);
  assert.deepEqual(replies(), []);
  const other = ask();
  fail(other, 'refused', false);
  socket.tell('deleteMessage', event({ id: other.slice(0, -2), kind: 'delete', message: undefined }));
  assert.deepEqual(replies(), []);
  // What is under way is not dismissed.
  const third = ask();
  client.dismiss('r', third);
  assert.equal(replies().length, 1);
});

test('who joins in the middle has the text so far and what overtook it', async () => {
  client.join('s');
  socket.tell('gpt:delta', { roomID: 's', id: '1-1-r', gen: 1, idx: 2, text: 'c' });
  socket.tell('previousMessages', [], { roomID: 's', epoch: 'b', topSeq: 1, recovered: false, more: false, gpt: [{ id: '1-1-r', gen: 1, idx: 1, text: 'ab' }] });
  last('join').answer({ ok: true });
  await settle();
  assert.deepEqual(client.replies('s').map(({ state, text, hasGap }) => [state, text, hasGap]), [['writing', 'abc', false]]);
});

test('an end that was missed is found at the next join, and one that is on its way is waited for', async () => {
  const [ended, stored, missed] = [ask(), ask(), ask()];
  for (const id of [ended, stored, missed]) delta(id, 0, 'a');
  const message = event({ id: ended, kind: 'gpt', gpt: true, message: 'a, whole' });
  await rejoin([message], { gpt: [{ id: ended, gen: 1, idx: 0, text: 'a' }] });
  assert.deepEqual(states(), ['writing a', 'writing a'], 'the message in the page counts more than the part');
  mock.timers.tick(4_000);
  finish(stored);
  mock.timers.tick(2_000);
  assert.deepEqual(replies().map(({ id, state, problem }) => [id, state, problem.code]), [[missed, 'failed', 'lost']]);
  // It was not lost after all.
  finish(missed);
  assert.deepEqual(replies(), []);
});

test('a reply that nobody ends is given up, and every sign of life puts that off', () => {
  const [silent, slow] = [ask(), ask()];
  mock.timers.tick(SILENCE_MS / 2);
  delta(slow, 0, 'a');
  mock.timers.tick(SILENCE_MS / 2);
  assert.deepEqual(replies().map(({ id, state }) => [id, state]), [[silent, 'failed'], [slow, 'writing']]);
});

test('a room that is left keeps nothing, and what still comes of it is dropped', async () => {
  const id = ask();
  delta(id, 0, 'a');
  void client.leave('r').catch(() => {});
  assert.deepEqual(replies(), []);
  delta(id, 1, 'b');
  fail(ask(), 'timeout');
  assert.deepEqual(replies(), []);
});

test('a room keeps few replies, whatever comes', () => {
  for (let n = 0; n < 500; n += 1) fail(`${n}-r`, 'timeout');
  for (let n = 500; n < 1_000; n += 1) delta(`${n}-r`, 3, 'text');
  assert.equal(replies().length, 20);
});

test('a cancellation is asked for and its refusal is told', async () => {
  const id = ask();
  const cancelled = client.cancel('r', id);
  assert.deepEqual(last('gpt:cancel').payload, { roomID: 'r', id });
  last('gpt:cancel').answer({ ok: true });
  await cancelled;
  const refused = client.cancel('r', id);
  last('gpt:cancel').answer({ ok: false, code: 'not_author', message: 'no' });
  await assert.rejects(refused, { code: 'not_author' });
  finish(id, { cancelled: true });
  assert.equal(client.timeline('r').find(id).cancelled, true);
});
