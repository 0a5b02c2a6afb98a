// Against real nodes: whatever dies, every message arrives once and in order, or its loss is told.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { webStorage } from '../../dist/index.js';
import { freshAddress, joined, login, logins, makeRoom, open, sieve, theWorld, until, within } from './world.mjs';

let world;

before(async () => { world = await theWorld('ts'); });
after(() => world?.stop());

/** Longer than a restart of Redis and the waits of everybody who noticed it. */
const RECOVERY_MS = 40_000;
const numbers = (count, from = 0) => Array.from({ length: count }, (_, number) => `line ${from + number}`);

/** Two people in a room of their own, on different nodes first. */
async function pair(t, options = {}) {
  const people = await logins(world, 2);
  const room = await makeRoom(world, people);
  const [one, other] = world.nodes;
  const writer = await joined(t, [one, other], people[0], room, options.writer);
  const reader = await joined(t, [other, one], people[1], room, options.reader);
  return { room, writer, reader, people };
}

test('a node killed under the writer: every message arrives once and in order', async (t) => {
  const { room, writer, reader } = await pair(t);
  const sent = numbers(200).map((message) => writer.send(room, { message }));
  await within('a part is stored', sent[30]);
  t.after(await world.killNode(0));
  const receipts = await within('all are stored', Promise.all(sent), RECOVERY_MS);
  await until('the reader has all', () => reader.events.length >= 200);
  assert.deepEqual(reader.events.map(({ message }) => message), numbers(200));
  assert.deepEqual(receipts.map(({ seq }) => seq), reader.events.map(({ seq }) => seq));
  await until('the writer has all', () => writer.events.length >= 200);
  assert.deepEqual(writer.events.map(({ message }) => message), numbers(200));
  assert.deepEqual(writer.pending(room), []);
  assert.equal(writer.all('lost').length, 0);
});

for (const transport of ['websocket', 'polling']) test(`a node killed under the reader, over ${transport}: it resumes elsewhere where it stood`, async (t) => {
  const { room, writer, reader } = await pair(t, { reader: { options: { transports: [transport] } } });
  const [first, second] = [numbers(20), numbers(60, 20)];
  await Promise.all(first.map((message) => writer.send(room, { message })));
  await until('the reader has the first', () => reader.events.length === 20);
  t.after(await world.killNode(1));
  await Promise.all(second.map((message) => writer.send(room, { message })));
  await until('the reader has the rest', () => reader.events.length >= 80, RECOVERY_MS);
  assert.deepEqual(reader.events.map(({ message }) => message), [...first, ...second]);
  assert.equal(reader.all('reset').length, 1, 'only the first join begins anew');
});

test('Redis killed and started again: what was written meanwhile waits and arrives once', async (t) => {
  const { room, writer, reader } = await pair(t);
  await writer.send(room, { message: 'before' });
  await until('its event has come', () => writer.pending(room).length === 0);
  await world.redis.kill();
  const sent = numbers(20).map((message) => writer.send(room, { message }));
  assert.equal(writer.pending(room).length, 20);
  await world.restartRedis();
  await within('all are stored', Promise.all(sent), RECOVERY_MS);
  await until('the reader has all', () => reader.events.length >= 21, RECOVERY_MS);
  assert.deepEqual(reader.texts(room), ['before', ...numbers(20)]);
  assert.deepEqual(reader.events.map(({ message }) => message), ['before', ...numbers(20)]);
});

test('what Redis has lost is told, and the room goes on', async (t) => {
  const { room, writer, reader } = await pair(t);
  for (const message of numbers(5)) await writer.send(room, { message });
  await until('the reader has all', () => reader.events.length === 5);
  await world.loseRedis();
  await until('both know', () => [writer, reader].every((client) => client.all('lost').length > 0), RECOVERY_MS);
  assert.equal(reader.all('reset').at(-1).lost, true);
  await within('stored', writer.send(room, { message: 'after' }), RECOVERY_MS);
  await until('the reader goes on', () => reader.texts(room).at(-1) === 'after');
  assert.equal(reader.texts(room).filter((text) => text === 'after').length, 1);
});

test('the outbox survives a reload, and what was stored already is not doubled', async (t) => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const people = await logins(world, 2);
  const room = await makeRoom(world, people);
  const reader = await joined(t, world.nodes, people[1], room);
  // A page that never learns that its first message was stored.
  const deaf = sieve((name, args) => (name === 'message' ? [] : [[name, ...args]]));
  const io = (url, options) => withoutAcks(deaf(url, options));
  const first = await joined(t, world.nodes, people[0], room, { storage: webStorage(storage, 'outbox'), io });
  const messages = numbers(3);
  for (const message of messages) void first.send(room, { message });
  await until('the first is stored', () => reader.events.length === 1);
  assert.equal(first.pending(room).length, 3);
  first.close();

  const second = open(t, world.nodes, people[0], { storage: webStorage(storage, 'outbox') });
  assert.deepEqual(second.pending(room).map(({ payload }) => payload.message), messages);
  second.connect();
  await until('all have arrived', () => reader.events.length >= 3);
  await until('nothing waits', () => second.pending(room).length === 0);
  assert.deepEqual(reader.events.map(({ message }) => message), messages);
  assert.equal(kept.size, 0);
});

/** A socket that never gets the ack of a message. */
function withoutAcks(socket) {
  const timeout = socket.timeout.bind(socket);
  socket.timeout = (ms) => ({
    emitWithAck: (name, ...args) => {
      const answer = timeout(ms).emitWithAck(name, ...args);
      if (name !== 'message') return answer;
      answer.catch(() => {});
      return new Promise(() => {});
    },
  });
  return socket;
}

test('an event that is missing is fetched, one that comes twice is dropped', async (t) => {
  let number = 0;
  const lossy = sieve((name, args) => {
    if (name !== 'message') return [[name, ...args]];
    number += 1;
    // Every third is lost, every second comes twice.
    return number % 3 === 0 ? [] : Array.from({ length: 1 + (number % 2) }, () => [name, ...args]);
  });
  const { room, writer, reader } = await pair(t, { reader: { io: lossy } });
  await Promise.all(numbers(100).map((message) => writer.send(room, { message })));
  await until('the reader has all', () => reader.events.length >= 100);
  assert.deepEqual(reader.events.map(({ message }) => message), numbers(100));
  assert.equal(reader.all('reset').length, 1);
  assert.equal(reader.all('lost').length, 0);
});

test('a page that was cut is read on to its end', async (t) => {
  const { room, writer, reader } = await pair(t);
  await writer.send(room, { message: 'first' });
  await until('the reader has it', () => reader.events.length === 1);
  const position = reader.position(room);
  reader.close();
  // More than a page of 1 MiB holds.
  const long = 'x'.repeat(15_000);
  const count = 150;
  for (let n = 0; n < count; n += 1) await writer.send(room, { message: `${n} ${long}` });
  reader.connect();
  await until('the reader has all', () => reader.events.length >= count + 1, RECOVERY_MS);
  assert.equal(reader.position(room).seq, position.seq + count);
  assert.deepEqual(reader.events.slice(1).map(({ message }) => message.split(' ')[0]), Array.from({ length: count }, (_, n) => String(n)));
});

test('edits and deletions are folded, also those that came while the connection was away', async (t) => {
  const { room, writer, reader } = await pair(t);
  const receipts = [];
  for (const message of ['one', 'two', 'three']) receipts.push(await writer.send(room, { message }));
  await until('the reader has all', () => reader.texts(room).length === 3);
  await writer.edit(room, receipts[0].id, { message: 'one, changed' });
  await until('the edit is there', () => reader.texts(room)[0] === 'one, changed');
  reader.close();
  await writer.edit(room, receipts[1].id, { message: 'two, changed' });
  await writer.delete(room, receipts[2].id);
  reader.connect();
  await until('the rest is there', () => reader.texts(room).length === 2);
  assert.deepEqual(reader.texts(room), ['one, changed', 'two, changed']);
  assert.deepEqual(reader.events.map(({ kind }) => kind), ['message', 'message', 'message', 'edit', 'edit', 'delete']);
});

test('a message that is refused fails at once and holds up nothing', async (t) => {
  const { room, writer, reader } = await pair(t);
  const long = writer.send(room, { message: 'x'.repeat(20_000) });
  const after = writer.send(room, { message: 'after' });
  await assert.rejects(long, { code: 'too_large' });
  await after;
  await until('the reader has it', () => reader.texts(room).includes('after'));
  const [failed] = writer.pending(room).filter(({ problem }) => problem);
  assert.equal(failed.problem.code, 'too_large');
  assert.equal(writer.discard(failed.cid), true);
});

test('a room of others is closed, with what was written to it', async (t) => {
  const [ann, ben] = await logins(world, 2);
  const room = await makeRoom(world, [ben]);
  const client = open(t, world.nodes, ann);
  client.connect();
  await assert.rejects(client.send(room, { message: 'let me in' }), { code: 'not_member' });
  assert.deepEqual(client.all('closed').map(({ roomID, code }) => [roomID, code]), [[room, 'not_member']]);
});

test('an existing socket is taken over', async (t) => {
  const { io } = await import('socket.io-client');
  const person = await login(world);
  const room = await makeRoom(world, [person]);
  const socket = io(world.nodes[0].url, { forceNew: true });
  const client = await joined(t, world.nodes, person, room, { socket });
  assert.equal((await client.send(room, { message: 'over an existing socket' })).dup, false);
  // The transport breaks; the helper comes back by itself.
  socket.io.engine.close();
  await until('it is away', () => !client.isJoined(room));
  await until('it is back', () => client.isJoined(room));
  assert.equal(client.all('reset').length, 1);
});

test('a login that does not hold ends the tries; one that was renewed hands its tokens over', async (t) => {
  const person = await login(world);
  const room = await makeRoom(world, [person]);
  const renewed = await joined(t, world.nodes, { ...person, accessToken: 'x' }, room, elsewhere());
  const [{ accessToken, refreshToken }] = renewed.all('tokens');
  assert.notEqual(refreshToken, person.refreshToken, 'the refresh token was rotated');
  await joined(t, world.nodes, { ...person, accessToken, refreshToken }, room, elsewhere());

  const refused = open(t, world.nodes, { ...person, accessToken: 'x', refreshToken: 'y' }, elsewhere());
  refused.connect();
  await until('it is over', () => refused.state.kind === 'ended');
  assert.deepEqual([refused.state.code, refused.state.message], ['blocked', 'Token refresh failed']);
});

test('a blocked address waits as long as it was told', async (t) => {
  const place = elsewhere();
  const person = await login(world);
  const forger = open(t, [world.nodes[0]], { ...person, username: '' }, place);
  forger.connect();
  await until('it is blocked', () => forger.state.kind === 'blocked');
  const client = open(t, [world.nodes[0]], person, place);
  client.connect();
  await until('it waits', () => client.state.kind === 'blocked');
  assert.equal(client.state.exact, true);
  const left = client.state.retryAt - Date.now();
  assert.ok(left > 10_000 && left < 62_000, `${left} ms`);
});

/** An address of one's own: blocks act on addresses. */
const elsewhere = () => ({ options: { extraHeaders: { 'X-Forwarded-For': freshAddress() } } });
