// Replies of the model on real nodes: what members see of one that is being written, and how it ends.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { joined, logins, makeRoom, sieve, theWorld, until, within } from './world.mjs';

let world;

before(async () => { world = await theWorld('ts-replies'); });
after(() => world?.stop());

/** Two people in a room of their own, on different nodes. */
async function pair(t, options = {}) {
  const people = await logins(world, 3);
  const room = await makeRoom(world, people);
  const asker = await joined(t, [world.nodes[0]], people[0], room);
  const reader = await joined(t, [world.nodes[1]], people[1], room, options.reader);
  const late = () => joined(t, [world.nodes[1]], people[2], room);
  return { room, asker, reader, late };
}

/** Asks, and returns the reply's id. */
async function ask(client, room, text) {
  const { id } = await client.send(room, { message: `@gpt ${text}` });
  return `${id}-r`;
}

/** The message that a reply ends as. */
async function message(client, room, id) {
  await until('the reply is a message', () => client.timeline(room).find(id), 20_000);
  return client.timeline(room).find(id);
}

const reply = (client, room, id) => client.replies(room).find((one) => one.id === id);
const text = (client, room, id) => reply(client, room, id)?.text ?? '';
/** Keeps every text that a reply has had. */
function watch(client, room, id) {
  const texts = [];
  client.on('replies', () => texts.push(text(client, room, id)));
  return texts;
}

test('a reply grows for everybody, also for who comes in the middle, and what was seen is what it ends as', async (t) => {
  const { room, asker, reader, late } = await pair(t);
  const id = await ask(asker, room, 'slow 60 ms: one two three four five six seven eight nine ten eleven twelve thirteen fourteen');
  const seen = watch(reader, room, id);
  await until('it is being written', () => text(reader, room, id).includes('one'));
  const third = await late();
  const first = text(third, room, id);
  assert.match(first, /^you said: .*one/, 'the text so far came with the join');
  const seenLate = watch(third, room, id);
  const whole = await message(reader, room, id);
  for (const client of [asker, third]) assert.equal((await message(client, room, id)).message, whole.message);
  assert.equal(whole.replyTo, id.slice(0, -2));
  for (const texts of [seen, seenLate]) {
    const written = texts.filter(Boolean);
    assert.ok(written.length > 3, `${written.length} steps`);
    for (const one of written) assert.ok(whole.message.startsWith(one), one);
    assert.equal(written.at(-1), whole.message);
  }
  for (const client of [asker, reader, third]) assert.deepEqual(client.replies(room), []);
});

test('pieces that are lost leave a hole, and the message closes it', async (t) => {
  let number = 0;
  const lossy = sieve((name, args) => {
    if (name !== 'gpt:delta') return [[name, ...args]];
    number += 1;
    return number === 3 ? [] : Array.from({ length: 1 + (number % 2) }, () => [name, ...args]);
  });
  const { room, asker, reader } = await pair(t, { reader: { io: lossy } });
  const id = await ask(asker, room, 'slow 60 ms: a b c d e f g h i j');
  await until('the hole shows', () => reply(reader, room, id)?.hasGap && text(reader, room, id).includes(' … '));
  assert.equal((await message(reader, room, id)).message, (await message(asker, room, id)).message);
  assert.deepEqual(reader.replies(room), []);
});

test('questions wait their turn; one that waits and one that is written can be cancelled by who asked', async (t) => {
  const { room, asker, reader } = await pair(t);
  const first = await ask(asker, room, 'slow 150 ms: a b c d e f g h i j k l m n o p q r s t u v w x y z');
  const second = await ask(reader, room, 'second');
  const third = await ask(asker, room, 'third');
  await until('the third waits', () => reply(reader, room, third)?.position === 2);
  await until('the first is written', () => text(reader, room, first).length > 20);
  await assert.rejects(reader.cancel(room, first), { code: 'not_author' });
  await asker.cancel(room, third);
  await until('the third is cancelled', () => reply(reader, room, third)?.problem?.code === 'cancelled');
  await asker.cancel(room, first);
  const stopped = await message(reader, room, first);
  assert.equal(stopped.cancelled, true);
  assert.ok(stopped.message.length > 20 && !stopped.message.includes(' z'), stopped.message);
  assert.match((await message(asker, room, second)).message, /second/);
  assert.deepEqual(reader.replies(room).map(({ id }) => id), [third]);
  reader.dismiss(room, third);
  assert.deepEqual(reader.replies(room), []);
});

test('a question that the model refuses fails for everybody', async (t) => {
  const { room, asker, reader } = await pair(t);
  const id = await ask(asker, room, 'refuse this');
  for (const client of [asker, reader]) {
    await until('it has failed', () => reply(client, room, id)?.state === 'failed');
    const { problem, failedAt } = reply(client, room, id);
    assert.deepEqual([problem.code, problem.retryable], ['refused', false]);
    assert.equal(failedAt, client.timeline(room).find(id.slice(0, -2)).seq);
  }
});

test('a worker that stops in the middle: the reply begins anew, and no word of the first attempt stays', async (t) => {
  const { room, asker, reader } = await pair(t);
  const id = await ask(asker, room, 'slow 100 ms: a b c d e f g h i j k l m n o p q r s t');
  await until('it is being written', () => text(reader, room, id).includes(' b '), 20_000);
  const { worker } = world;
  world.worker = await world.startWorker('worker-2');
  await worker.stop();
  await until('it begins anew', () => reply(reader, room, id)?.gen === 2, 20_000);
  const seen = watch(reader, room, id);
  const whole = await message(reader, room, id);
  for (const one of seen) assert.ok(whole.message.startsWith(one), one);
  assert.deepEqual(reader.all('gpt:reset').map(({ gen }) => gen), [2]);
});

test('a node killed while a reply is written: its readers go on elsewhere with the text so far', async (t) => {
  const people = await logins(world, 2);
  const room = await makeRoom(world, people);
  const asker = await joined(t, [world.nodes[0]], people[0], room);
  const reader = await joined(t, [world.nodes[1], world.nodes[0]], people[1], room);
  const id = await ask(asker, room, `slow 200 ms: ${'abcdefghijklmnopqrstuvwxyz'.split('').join(' ')}`);
  await until('it is being written', () => text(reader, room, id).includes('a '));
  t.after(await world.killNode(1));
  await until('the reader is back', () => reader.isJoined(room) && reader.state.url === world.nodes[0].url, 20_000);
  const back = text(reader, room, id);
  await until('it grows on', () => text(reader, room, id).length > back.length);
  assert.equal(reply(reader, room, id).hasGap, false);
  assert.equal((await message(reader, room, id)).message, (await message(asker, room, id)).message);
});

test('a room that is left while a reply is written keeps nothing of it', async (t) => {
  const { room, asker, reader } = await pair(t);
  const id = await ask(asker, room, 'slow 60 ms: a b c d e f g h');
  await until('it is being written', () => text(reader, room, id));
  await within('it is left', reader.leave(room));
  assert.deepEqual(reader.replies(room), []);
  await message(asker, room, id);
  assert.deepEqual(reader.replies(room), []);
});
