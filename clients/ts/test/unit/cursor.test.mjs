// The order of one room's events, input by input.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RoomCursor } from '../../dist/index.js';

const event = (seq, epoch = 'a') => ({ id: `${seq * 10}-${seq}`, roomID: 'r', seq, epoch, ts: seq * 10, kind: 'message' });
const range = (from, to, epoch) => Array.from({ length: to - from + 1 }, (_, at) => event(from + at, epoch));
const info = (topSeq, { epoch = 'a', recovered = true, more = false } = {}) => ({ roomID: 'r', epoch, topSeq, recovered, more });
const seqs = ({ deliver }) => deliver.map(({ seq }) => seq);

/** A cursor that has everything up to `top`. */
function at(top) {
  const cursor = new RoomCursor();
  cursor.page(range(1, top), info(top, { recovered: false }));
  return cursor;
}

test('the next event is delivered, a repeated one is not', () => {
  const cursor = at(4);
  assert.deepEqual(seqs(cursor.offer(event(5))), [5]);
  assert.deepEqual(cursor.offer(event(5)), { deliver: [] });
  assert.deepEqual(cursor.offer(event(2)), { deliver: [] });
  assert.deepEqual(cursor.position, { epoch: 'a', seq: 5, ts: 50 });
});

test('before the first page nothing is delivered', () => {
  assert.deepEqual(new RoomCursor().offer(event(1)), { deliver: [] });
});

test('behind a hole events wait for one question, and come in order', () => {
  const cursor = at(4);
  assert.deepEqual(cursor.offer(event(7)), { deliver: [], want: { kind: 'gap', epoch: 'a', from: 5, to: 6 } });
  assert.deepEqual(cursor.offer(event(8)), { deliver: [] });
  assert.deepEqual(seqs(cursor.fill([event(5), event(6)], 6)), [5, 6, 7, 8]);
  assert.equal(cursor.position.seq, 8);
});

test('a second hole is asked for when the first is filled', () => {
  const cursor = at(4);
  cursor.offer(event(6));
  cursor.offer(event(9));
  const step = cursor.fill([event(5)], 5);
  assert.deepEqual(seqs(step), [5, 6]);
  assert.deepEqual(step.want, { kind: 'gap', epoch: 'a', from: 7, to: 8 });
});

test('an answer that brings a part is asked for the rest', () => {
  const cursor = at(4);
  cursor.offer(event(9));
  const step = cursor.fill([event(5), event(6)], 8);
  assert.deepEqual(seqs(step), [5, 6]);
  assert.deepEqual(step.want, { kind: 'gap', epoch: 'a', from: 7, to: 8 });
});

test('a hole that cannot be filled leads to a join from the position', () => {
  for (const act of [(cursor) => cursor.fill([], 6), (cursor) => cursor.fail(), (cursor) => cursor.broken()]) {
    const cursor = at(4);
    cursor.offer(event(7));
    assert.deepEqual(act(cursor), { deliver: [], want: { kind: 'join' } });
    assert.deepEqual(cursor.position, { epoch: 'a', seq: 4, ts: 40 });
    assert.deepEqual(cursor.offer(event(5)), { deliver: [] }, 'the page will bring it');
    assert.deepEqual(seqs(cursor.page(range(5, 8), info(8))), [5, 6, 7, 8]);
  }
});

test('an event that fills the hole by itself ends the wait', () => {
  const cursor = at(4);
  cursor.offer(event(6));
  assert.deepEqual(seqs(cursor.offer(event(5))), [5, 6]);
  assert.deepEqual(cursor.fill([event(5)], 5), { deliver: [] });
});

test('too many held events lead to a join', () => {
  const cursor = at(4);
  const wants = range(6, 600).map((one) => cursor.offer(one).want?.kind).filter(Boolean);
  assert.deepEqual(wants, ['gap', 'join']);
});

test('a new epoch leads to a join, which may continue', () => {
  const cursor = at(4);
  assert.deepEqual(cursor.offer(event(5, 'b')), { deliver: [], want: { kind: 'join' } });
  const page = cursor.page([event(5, 'b')], info(5, { epoch: 'b' }));
  assert.deepEqual([seqs(page), page.reset, page.lost], [[5], false, false]);
  assert.deepEqual(seqs(cursor.offer(event(6, 'b'))), [6]);
});

test('a page that does not continue is the new truth, and what was lost is said', () => {
  const cursor = at(4);
  const page = cursor.page(range(2, 3, 'b'), info(3, { epoch: 'b', recovered: false }));
  assert.deepEqual([seqs(page), page.reset, page.lost], [[2, 3], true, true]);
  assert.deepEqual(cursor.position, { epoch: 'b', seq: 3, ts: 30 });
  assert.equal(new RoomCursor().page([], info(0, { recovered: false })).lost, false);
});

test('a page brings nothing twice, and an empty one keeps the place', () => {
  const cursor = at(4);
  cursor.suspend();
  assert.deepEqual(seqs(cursor.page(range(3, 6), info(6))), [5, 6]);
  cursor.suspend();
  cursor.page([], info(6));
  assert.deepEqual(cursor.position, { epoch: 'a', seq: 6, ts: 60 });
});

test('an old message that was edited since is news', () => {
  const cursor = at(4);
  assert.deepEqual(seqs(cursor.page([{ ...event(2), rev: 5 }, event(6)], info(6))), [2, 6]);
});

test('a random order with losses and repetitions is delivered once and in order', () => {
  let seed = 7;
  const random = (below) => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % below;
  for (let round = 0; round < 200; round += 1) {
    const cursor = at(1);
    const delivered = [];
    const asked = [];
    const take = ({ deliver, want }) => {
      delivered.push(...deliver.map(({ seq }) => seq));
      if (want) asked.push(want);
    };
    for (let seq = 2; seq <= 60; seq += 1) {
      if (random(4) > 0 || seq === 60) take(cursor.offer(event(seq)));
      if (random(4) === 0) take(cursor.offer(event(1 + random(seq))));
      if (asked.length && random(3) === 0) answer(asked.shift());
    }
    while (asked.length) answer(asked.shift());
    assert.deepEqual(delivered, range(2, 60).map(({ seq }) => seq));

    function answer(want) {
      if (want.kind === 'join') take(cursor.page(range(cursor.position.seq + 1, 60), info(60)));
      else take(cursor.fill(range(want.from, Math.min(want.to, want.from + 2)), want.to));
    }
  }
});
