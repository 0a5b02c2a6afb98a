// What waits to be sent, and what an answer means.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { memoryStorage, Outbox, webStorage } from '../../dist/index.js';

const MINUTE = 60_000;
const receipt = { ok: true, id: '1-1', seq: 1, epoch: 'a', ts: 1, dup: false };
const refused = (code, more = {}) => ({ ok: false, code, message: code, ...more });

test('messages of a room are sent in the order written', () => {
  const outbox = new Outbox(memoryStorage());
  const [one, two] = ['one', 'two'].map((message) => outbox.add('r', { message }, 0));
  outbox.add('s', { message: 'elsewhere' }, 0);
  assert.equal(outbox.next('r'), one);
  assert.deepEqual(outbox.answer(one.cid, receipt, 0), { kind: 'sent' });
  assert.equal(outbox.next('r'), two);
  assert.equal(outbox.answer(one.cid, receipt, 0).kind, 'gone');
});

test('an answer that is not final keeps the message, its cid and its place', () => {
  for (const code of ['uncertain', 'unavailable', 'rate_limited', 'no_answer', 'not_joined', 'blocked']) {
    const outbox = new Outbox(memoryStorage());
    const entry = outbox.add('r', { message: 'one' }, 0);
    assert.equal(outbox.answer(entry.cid, refused(code), 0).kind, 'again', code);
    assert.equal(outbox.next('r'), entry);
  }
});

test('the wait is what the server asked for and up to half more', () => {
  const outbox = new Outbox(memoryStorage());
  const { cid } = outbox.add('r', { message: 'one' }, 0);
  const at = (random) => outbox.answer(cid, refused('rate_limited', { retryAfterMs: 2_000 }), 100, () => random).atMs;
  assert.deepEqual([at(0), at(1)], [2_100, 3_100]);
  // Without a hint it grows, up to a limit.
  const waits = Array.from({ length: 12 }, () => outbox.answer(cid, refused('uncertain'), 0, () => 0.5).atMs);
  assert.ok(waits.every((wait, index) => index === 0 || wait >= waits[index - 1]));
  assert.equal(waits.at(-1), 10_000);
});

test('a final refusal stays as a problem and holds up nothing', () => {
  const outbox = new Outbox(memoryStorage());
  const [one, two] = ['one', 'two'].map((message) => outbox.add('r', { message }, 0));
  assert.equal(outbox.answer(one.cid, refused('too_large'), 0).kind, 'failed');
  assert.equal(one.problem.code, 'too_large');
  assert.equal(outbox.next('r'), two);
  assert.deepEqual(outbox.all('r'), [one, two]);
});

test('an internal error is tried a few times', () => {
  const outbox = new Outbox(memoryStorage());
  const { cid } = outbox.add('r', { message: 'one' }, 0);
  const kinds = Array.from({ length: 5 }, () => outbox.answer(cid, refused('internal'), 0).kind);
  assert.deepEqual(kinds, ['again', 'again', 'again', 'again', 'failed']);
});

test('what is older than its cid lives is reported, not sent again', () => {
  const outbox = new Outbox(memoryStorage());
  const entry = outbox.add('r', { message: 'one' }, 0);
  assert.deepEqual(outbox.expire(14 * MINUTE), []);
  assert.deepEqual(outbox.expire(15 * MINUTE), [entry]);
  assert.equal(entry.problem.code, 'expired');
  assert.equal(outbox.next('r'), undefined);
  assert.deepEqual(outbox.expire(16 * MINUTE), [], 'it is reported once');
  // Who sends it again wants it sent: under a new cid, since the old one may be unknown by now.
  const again = outbox.retry(entry.cid, 16 * MINUTE);
  assert.notEqual(again.cid, entry.cid);
  assert.deepEqual([outbox.next('r'), outbox.all().length], [again, 1]);
});

test('a retry keeps the cid while the server knows it, unless it stands for other content', () => {
  for (const [code, keeps] of [['too_large', true], ['cid_conflict', false]]) {
    const outbox = new Outbox(memoryStorage());
    const { cid } = outbox.add('r', { message: 'one' }, 0);
    outbox.answer(cid, refused(code), 0);
    assert.equal(outbox.retry(cid, MINUTE).cid === cid, keeps, code);
  }
});

test('the outbox is bounded, and failed messages make room first', () => {
  const outbox = new Outbox(memoryStorage());
  const first = outbox.add('r', { message: 'first' }, 0);
  while (outbox.add('r', { message: 'more' }, 0)) assert.ok(outbox.all().length <= 500);
  assert.equal(outbox.all().length, 500);
  outbox.answer(first.cid, refused('too_large'), 0);
  assert.ok(outbox.add('r', { message: 'last' }, 0));
  assert.equal(outbox.find(first.cid), undefined);

  const heavy = new Outbox(memoryStorage());
  while (heavy.add('r', { message: 'x'.repeat(15_000) }, 0)) assert.ok(heavy.all().length < 100);
});

test('it survives a reload in the storage of the browser, and broken content there', () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const { cid } = new Outbox(webStorage(storage, 'k')).add('r', { message: 'one', colour: 'red' }, 5);
  const outbox = new Outbox(webStorage(storage, 'k'));
  assert.deepEqual(outbox.next('r'), { cid, roomID: 'r', payload: { message: 'one', colour: 'red' }, createdAt: 5 });
  outbox.answer(cid, receipt, 6);
  assert.equal(kept.size, 0);
  kept.set('k', '[{"cid":1},null,7');
  assert.deepEqual(new Outbox(webStorage(storage, 'k')).all(), []);
  kept.set('k', '[{"cid":1},null,7]');
  assert.deepEqual(new Outbox(webStorage(storage, 'k')).all(), []);
});

test('a storage that is full is told, and the message is sent all the same', () => {
  const told = [];
  const outbox = new Outbox({ load: () => [], save: () => { throw new Error('full'); } }, (error) => told.push(error.message));
  assert.ok(outbox.add('r', { message: 'one' }, 0));
  assert.deepEqual(told, ['full']);
});
