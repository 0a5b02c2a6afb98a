// The text of a reply, whatever becomes of its pieces.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ReplyText } from '../../dist/index.js';

const WORDS = ['The ', 'sea ', 'is ', 'wide ', 'and ', 'blue.'];
const piece = (idx, gen = 1) => ({ gen, idx, text: WORDS[idx] });
const told = (...pieces) => {
  const reply = new ReplyText();
  for (const one of pieces) reply.piece(one);
  return reply;
};

test('pieces are put together by their number, each once', () => {
  const reply = told(piece(0), piece(1), piece(1), piece(0), piece(2));
  assert.equal(reply.text, 'The sea is ');
  assert.equal(reply.piece(piece(2)), false);
  assert.equal(reply.hasGap, false);
});

test('what is missing shows as an ellipsis until it comes', () => {
  const reply = told(piece(0), piece(3), piece(2), piece(5));
  assert.equal(reply.text, 'The  … is wide  … blue.');
  assert.equal(reply.hasGap, true);
  for (const idx of [1, 4]) reply.piece(piece(idx));
  assert.equal(reply.text, WORDS.join(''));
  assert.equal(reply.hasGap, false);
});

test('an earlier attempt does not count, whether or not the new one was announced', () => {
  const reply = told(piece(0), piece(1));
  assert.equal(reply.reset(2), true);
  assert.deepEqual([reply.text, reply.gen], ['', 2]);
  assert.equal(reply.reset(2), false);
  assert.equal(reply.piece(piece(2, 1)), false);
  assert.equal(reply.reset(1), false);
  reply.piece(piece(0, 3));
  assert.deepEqual([reply.text, reply.gen], ['The ', 3]);
});

test('who comes in the middle has the text so far, and what overtook it', () => {
  const late = told(piece(2), piece(3), piece(4));
  assert.equal(late.part({ gen: 1, idx: 2, text: 'The sea is ' }), true);
  assert.equal(late.text, 'The sea is wide and ');
  assert.equal(late.part({ gen: 1, idx: 2, text: 'The sea is ' }), false, 'more is known already');
  // Nothing is written yet, or what is known is of an earlier attempt.
  const early = told();
  assert.equal(early.part({ gen: 2, idx: -1, text: '' }), true);
  assert.deepEqual([early.text, early.gen], ['', 2]);
  assert.equal(early.part({ gen: 1, idx: 2, text: 'The sea is ' }), false);
});

test('whatever order pieces come in, and however often, the text is the same', () => {
  // A generator with a seed: the same orders in every run.
  let seed = 7;
  const random = (below) => { seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31; return seed % below; };
  for (let round = 0; round < 200; round += 1) {
    const pieces = [0, 1, 2, 3, 4, 5].flatMap((idx) => Array.from({ length: 1 + random(2) }, () => piece(idx, 2)));
    pieces.push(...[0, 1, 2].map((idx) => ({ gen: 1, idx, text: 'old' })));
    for (let at = pieces.length - 1; at > 0; at -= 1) {
      const other = random(at + 1);
      [pieces[at], pieces[other]] = [pieces[other], pieces[at]];
    }
    const reply = new ReplyText();
    const joinAt = random(pieces.length);
    pieces.forEach((one, at) => {
      if (at === joinAt) reply.part({ gen: 2, idx: 1, text: 'The sea ' });
      reply.piece(one);
    });
    assert.equal(reply.text, WORDS.join(''), JSON.stringify(pieces));
  }
});

test('a reply without an end takes no more memory than the longest there may be', () => {
  const reply = new ReplyText();
  const long = 'x'.repeat(300_000);
  for (let idx = 0; idx < 10; idx += 1) reply.piece({ gen: 1, idx, text: long });
  assert.equal(reply.text.length, 900_000);
  const behind = new ReplyText();
  for (let idx = 1; idx < 10_000; idx += 1) behind.piece({ gen: 1, idx, text: 'x' });
  assert.ok(behind.text.length < 5_000, `${behind.text.length}`);
});
