// Replies of a model, seen by official clients on two nodes while two workers write them.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { assertError, joined, together } from '../lib/client.mjs';
import { login, makeRoom } from '../lib/people.mjs';
import { until } from '../lib/wait.mjs';
import { redis } from '../lib/redis.mjs';
import { startWorld } from '../lib/world.mjs';

let world;
before(async () => {
  world = await startWorld('gpt');
  await world.startWorker('worker-2');
});
after(() => world?.stop());

const proto2 = { auth: { proto: 2 } };

/** Two people in a room, one on each node. */
async function pair(t) {
  const [ann, bob, cat] = [await login(world), await login(world), await login(world)];
  const room = await makeRoom(world, [ann, bob, cat]);
  const [A, B] = world.nodes;
  const [onA, onB] = await Promise.all([joined(t, A, ann, room, proto2), joined(t, B, bob, room, proto2)]);
  return { cat, room, onA, onB, A, B };
}

/** Asks, and returns the id of the reply. */
async function ask(client, room, text) {
  const { id } = await client.do('message', { roomID: room, message: `@gpt ${text}` });
  return `${id}-r`;
}

const of = (id) => (event) => event?.id === id;

/** The message that ends a question. */
async function reply(client, id) {
  const [message] = await client.expect('message', of(id));
  assert.equal(message.kind, 'gpt');
  return message;
}

/** What the pieces of the last generation say together; none is missing and none comes twice. */
function written(client, id, { from = -1, text = '' } = {}) {
  const deltas = client.all('gpt:delta').map(([delta]) => delta).filter(of(id));
  const last = Math.max(...deltas.map(({ gen }) => gen));
  const pieces = deltas.filter(({ gen, idx }) => gen === last && idx > from);
  assert.deepEqual(pieces.map(({ idx }) => idx), pieces.map((_, n) => from + 1 + n), client.story());
  return text + pieces.map((piece) => piece.text).join('');
}

/** How often a question was ended before this client. */
function ends(client, id) {
  return ['message', 'gpt:error'].flatMap((name) => client.all(name)).filter(([event]) => event?.id === id).length;
}

together('a model in the room', () => {
  test('both nodes see the reply being written, and what was written is the message', async (t) => {
    const { room, onA, onB } = await pair(t);
    const id = await ask(onA, room, 'slow 30 ms, tell us about the sea and the sky 😀 "and" the rest');
    const messages = await Promise.all([reply(onA, id), reply(onB, id)]);
    assert.deepEqual(messages[0], messages[1]);
    assert.match(messages[0].message, /the sea and the sky 😀 "and" the rest$/);
    for (const client of [onA, onB]) {
      assert.equal(written(client, id), messages[0].message);
      assert.ok(client.all('gpt:delta').length > 1, 'it came in pieces');
      assert.equal(ends(client, id), 1);
    }
  });

  test('who joins in the middle has the same text', async (t) => {
    const { cat, room, onA, B } = await pair(t);
    const id = await ask(onA, room, 'slow 80 ms, one two three four five six seven eight nine ten eleven twelve');
    await onA.expect('gpt:delta', ({ idx }) => idx >= 2);
    const late = await joined(t, B, cat, room, proto2);
    const position = late.all('previousMessages')[0][1];
    const part = position.gpt.find(of(id));
    assert.ok(part, JSON.stringify(position));
    const { message } = await reply(late, id);
    assert.ok(message.startsWith(part.text) && part.text.length < message.length, part.text);
    assert.equal(written(late, id, { from: part.idx, text: part.text }), message);
    assert.equal(ends(late, id), 1);
  });

  test('who joins afterwards has it as a message', async (t) => {
    const { cat, room, onA, B } = await pair(t);
    const id = await ask(onA, room, 'something short');
    const { message } = await reply(onA, id);
    const late = await joined(t, B, cat, room, proto2);
    assert.equal(late.previous.find(of(id))?.message, message);
    assert.deepEqual(late.all('previousMessages')[0][1].gpt ?? [], []);
  });

  test('its asker stops a reply, which keeps what was written', async (t) => {
    const { room, onA, onB } = await pair(t);
    const id = await ask(onA, room, `slow 200 ms, ${'on and '.repeat(40)}on`);
    await onB.expect('gpt:delta', of(id));
    assertError(await onB.ask('gpt:cancel', { roomID: room, id }), 'not_author');
    await onA.do('gpt:cancel', { roomID: room, id });
    const message = await reply(onB, id);
    assert.equal(message.cancelled, true);
    assert.equal(written(onB, id), message.message);
    await until('there is nothing left to cancel', async () => (
      (await onA.ask('gpt:cancel', { roomID: room, id })).code === 'not_found'
    ));
    assert.equal(ends(onB, id), 1);
  });

  test('a question that waits is cancelled without a reply', async (t) => {
    const { room, onA, onB } = await pair(t);
    const first = await ask(onA, room, 'slow 100 ms, one two three four five six seven eight');
    await onB.expect('gpt:delta', of(first));
    const second = await ask(onA, room, 'never mind');
    const [queued] = await onB.expect('gpt:queued', of(second));
    assert.equal(queued.position, 1);
    await onA.do('gpt:cancel', { roomID: room, id: second });
    const [error] = await onB.expect('gpt:error', of(second));
    assertError(error, 'cancelled');
    await reply(onB, first);
    assert.deepEqual([ends(onB, first), ends(onB, second)], [1, 1]);
  });

  test('questions of a room are answered in the order asked, whoever asks and wherever', async (t) => {
    const { room, onA, onB } = await pair(t);
    const first = await ask(onA, room, 'slow 60 ms, the first of two questions');
    const second = await ask(onB, room, 'the second of two questions');
    const replies = [await reply(onA, first), await reply(onA, second)];
    assert.ok(replies[0].seq < replies[1].seq, JSON.stringify(replies));
    // The other node may be a moment behind.
    await reply(onB, second);
    const order = onB.all('gpt:delta').map(([{ id }]) => id);
    assert.deepEqual(order, order.toSorted((a, b) => Number(a === second) - Number(b === second)), 'never at once');
    assert.equal(written(onB, second), replies[1].message);
  });

  test('what the model refuses is told once, and the room goes on', async (t) => {
    const { room, onA, onB } = await pair(t);
    const refused = await ask(onA, room, 'refuse this');
    const [error] = await onB.expect('gpt:error', of(refused));
    assertError(error, 'refused');
    assert.equal(error.retryable, false);
    const next = await ask(onB, room, 'say something');
    await reply(onA, next);
    assert.equal(ends(onB, refused), 1);
  });

  test('a legacy client gets the reply as a message', async (t) => {
    const { cat, room, onA, B } = await pair(t);
    const old = await joined(t, B, cat, room);
    const { id } = await onA.do('message', { roomID: room, message: 'without a mention', gpt: true });
    const message = await reply(old, `${id}-r`);
    assert.match(message.message, /without a mention$/);
    assert.equal(message.username, 'gpt');
  });
});

test('both workers are there, and nothing is left when all is answered', async () => {
  const workers = await redis(world.redisPort, 'HKEYS', 'rc:{gpt}:workers');
  assert.equal(workers.length, 2, JSON.stringify(workers));
  await until('nothing is open', async () => (await redis(world.redisPort, 'ZCARD', 'rc:{gpt}:open')) === 0);
  const [group] = await redis(world.redisPort, 'XINFO', 'GROUPS', 'rc:{gpt}:ready');
  const figure = (name) => group[group.indexOf(name) + 1];
  assert.deepEqual([figure('lag'), figure('pending')], [0, 0]);
});
