// A room as it is shown.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Timeline } from '../../dist/index.js';

const message = (seq, more = {}) => ({
  id: `${seq * 10}-${seq}`, roomID: 'r', platformid: 'p', username: 'ann', message: `text ${seq}`, seq, epoch: 'a', ts: seq * 10, timestamp: seq * 10, kind: 'message', ...more,
});
const edit = (of, seq, text) => ({ ...message(seq), id: of.id, kind: 'edit', message: text, rev: seq });
const remove = (of, seq) => ({ ...message(seq), id: of.id, kind: 'delete', message: undefined });
const texts = (timeline) => timeline.messages.map((one) => one.message);

test('edits change the text and its number, and keep author, place and time', () => {
  const timeline = new Timeline();
  const one = message(1, { cid: 'c', colour: 'red' });
  timeline.reset([one, message(2)]);
  assert.equal(timeline.apply({ ...edit(one, 3, 'changed'), username: 'owner', colour: 'blue' }), true);
  assert.deepEqual(timeline.messages[0], { ...one, message: 'changed', colour: 'blue', rev: 3 });
  assert.equal(one.message, 'text 1', 'what was handed out does not change');
  assert.equal(timeline.apply(edit(one, 2, 'older')), false);
  assert.deepEqual(texts(timeline), ['changed', 'text 2']);
});

test('deleted messages go, and do not come back with an older page', () => {
  const timeline = new Timeline();
  timeline.reset([message(5)]);
  timeline.apply(remove(message(3), 6));
  timeline.prepend([message(2), message(3), message(4)]);
  assert.deepEqual(texts(timeline), ['text 2', 'text 4', 'text 5']);
  assert.equal(timeline.apply(remove(message(4), 7)), true);
  assert.deepEqual(texts(timeline), ['text 2', 'text 5']);
});

test('an edit that comes before its message is applied to it', () => {
  const timeline = new Timeline();
  timeline.apply(edit(message(1), 3, 'changed'));
  timeline.prepend([message(1)]);
  assert.deepEqual(texts(timeline), ['changed']);
  // A page that knows a newer form is believed.
  timeline.prepend([message(1, { message: 'newest', rev: 9 })]);
  assert.deepEqual(texts(timeline), ['newest']);
});

test('messages stand in the order of the server, each once', () => {
  const timeline = new Timeline();
  for (const seq of [3, 1, 2, 3, 1]) timeline.apply(message(seq));
  assert.deepEqual(texts(timeline), ['text 1', 'text 2', 'text 3']);
  assert.equal(timeline.trim(2), true);
  assert.deepEqual(texts(timeline), ['text 2', 'text 3']);
});
