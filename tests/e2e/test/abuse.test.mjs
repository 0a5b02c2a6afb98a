// Hostile payloads: each is refused by name, and nobody else notices.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { POLLING, assertError, assertRefused, connect, joined, onBothTransports, open } from '../lib/client.mjs';
import { freshRoom, login, loginAgain, makeRoom } from '../lib/people.mjs';
import { until } from '../lib/wait.mjs';
import { STRIKES, sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

/** A good payload of each event that names a room, and its fields that must be there. */
const EVENTS = {
  join: { good: (room) => ({ roomID: room }), required: ['roomID'] },
  message: { good: (room) => ({ roomID: room, message: 'x' }), required: ['roomID', 'message'] },
  editMessage: { good: (room) => ({ roomID: room, id: '1-1', message: 'x' }), required: ['roomID', 'id', 'message'] },
  deleteMessage: { good: (room) => ({ roomID: room, id: '1-1' }), required: ['roomID', 'id'] },
  loadMoreMessages_for_room: { good: (room) => ({ roomId: room }), required: ['roomId'] },
  deleteroom: {
    good: (room, { platformid, username }) => ({ roomID: room, platformid, username }),
    required: ['roomID'],
  },
  leave: { good: (room) => ({ roomID: room }), required: ['roomID'] },
};

const nested = (levels) => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`);

/** A room of ann and bob in which both have joined, on both nodes. */
async function pair(t, transports) {
  const [ann, bob] = [await login(world), await login(world)];
  const room = await makeRoom(world, [ann, bob]);
  return { ann, bob, room, onA: await joined(t, A, ann, room, { transports }), onB: await joined(t, B, bob, room, { transports }) };
}

async function assertStillChatting(room, from, to) {
  const { id } = await from.do('message', { roomID: room, message: 'still chatting' });
  await to.expect('message', (message) => message.id === id);
}

onBothTransports((transports) => {
  for (const [event, { good, required }] of Object.entries(EVENTS)) {
    test(`${event} refuses whatever is not its payload, in the ack or as errorMessage`, async (t) => {
      const { ann, room, onA, onB } = await pair(t, transports);
      for (const payload of [null, [], [good(room, ann)], 'text', 7, true]) await assertRefused(onA, event, payload, 'bad_payload');
      assertError(await onA.ask(event), 'bad_payload', `${event} without any payload`);
      for (const field of required) {
        await assertRefused(onA, event, { ...good(room, ann), [field]: undefined }, 'bad_payload');
        for (const wrong of [null, {}, [], true]) await assertRefused(onA, event, { ...good(room, ann), [field]: wrong }, 'bad_payload');
      }
      await assertStillChatting(room, onA, onB);
    });

    test(`${event} refuses ids that would choose a key's slot`, async (t) => {
      const { ann, room, onA, onB } = await pair(t, transports);
      for (const id of ['{p1}', 'a{b', 'a}b', '', 'x'.repeat(257), 'line\nbreak']) {
        await assertRefused(onA, event, good(id, ann), 'bad_payload');
      }
      await assertStillChatting(room, onA, onB);
    });

    test(`${event} refuses the name of another`, async (t) => {
      const { ann, bob, room, onA } = await pair(t, transports);
      for (const foreign of [{ platformid: bob.platformid }, { platformId: bob.platformid }, { username: bob.username }]) {
        const answer = await onA.ask(event, { ...good(room, ann), ...foreign });
        assert.equal(typeof answer?.code, 'string', `${event} ${JSON.stringify(foreign)}: ${JSON.stringify(answer)}`);
        assert.notEqual(answer.ok, true);
      }
      const names = { platformid: ann.platformid, platformId: ann.platformid, username: ann.username.toUpperCase() };
      if (event === 'message') await onA.do(event, { ...good(room, ann), ...names });
    });
  }

  test('a wrong type of message text or gpt flag is bad_payload', async (t) => {
    const { room, onA } = await pair(t, transports);
    await assertRefused(onA, 'message', { roomID: room, message: 7 }, 'bad_payload');
    await assertRefused(onA, 'message', { roomID: room, message: 'x', gpt: 'yes' }, 'bad_payload');
    await assertRefused(onA, 'join', { roomID: room, lastmessage: true }, 'bad_payload');
  });

  test('deeply nested JSON is refused, what fits is passed on', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    await assertRefused(onA, 'message', { roomID: room, message: 'deep', own: nested(300) }, 'bad_payload');
    await onA.do('message', { roomID: room, message: 'shallow', own: nested(30) });
    const [seen] = await onB.expect('message');
    assert.deepEqual(seen.own, nested(30));
  });

  test('JSON too deep for any parser harms nobody', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const payload = `{"roomID":"${room}","message":"x","own":${'['.repeat(25_000)}${']'.repeat(25_000)}}`;
    // By hand: the client itself cannot encode it.
    onA.socket.io.engine.write(`2["message",${payload}]`);
    await onA.next(['errorMessage', 'disconnect']);
    await assertStillChatting(room, onB, onB);
  });

  test('unusual field names are data like any other', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const own = JSON.parse('{"__proto__":{"admin":true},"constructor":1,"toString":"x","":"empty","a.b":2,"$where":"1"}');
    await onA.do('message', { roomID: room, message: 'x', ...own });
    const [seen] = await onB.expect('message');
    for (const [name, value] of Object.entries(own)) {
      assert.ok(Object.hasOwn(seen, name), name);
      assert.deepEqual(seen[name], value);
    }
  });

  test('a frame over the limit cuts that socket alone', async (t) => {
    const { ann, room, onA, onB } = await pair(t, transports);
    const neighbour = await joined(t, A, ann, room, { transports, address: onA.address });
    if (onA.socket.io.engine.transport.name === 'polling') await new Promise((done) => { onA.socket.io.engine.once('upgrade', done); });
    onA.send('message', { roomID: room, message: 'x'.repeat(70_000) });
    await onA.ended();
    await assertStillChatting(room, neighbour, onB);
    assert.deepEqual(onB.all('message').filter(([{ message }]) => message.startsWith('x')), []);
    await joined(t, A, ann, room, { transports, address: onA.address });
  });

  test('events that nobody knows are ignored', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    onA.send('noSuchEvent', { roomID: room });
    onA.send('message', { roomID: room, message: 'a known one' });
    await onB.expect('message', ({ message }) => message === 'a known one');
    assert.ok(onA.socket.connected);
  });

  test('binary payloads are refused', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    onA.send('message', Buffer.from('binary'));
    onA.send('message', { roomID: room, message: Buffer.from('binary') });
    await until('both are refused or the socket is cut', () => onA.all('errorMessage').length === 2 || !onA.socket.connected);
    await assertStillChatting(room, onB, onB);
    assert.equal(onB.all('message').length, 1);
  });

  test('too many acts in the name of another block the login on every node, not the address', async (t) => {
    const { ann, bob, room, onA, onB } = await pair(t, transports);
    const sibling = await connect(t, B, ann, { transports });
    for (let n = 0; n <= STRIKES + 2 && onA.socket.connected; n += 1) {
      onA.send('message', { roomID: room, message: 'x', platformid: bob.platformid });
    }
    await onA.ended();
    await sibling.ended();
    for (const node of [A, B]) {
      const again = open(t, node, ann, { transports });
      assert.equal((await again.refused()).message, "you're banned");
    }
    await connect(t, A, await loginAgain(world, ann), { transports, address: onA.address });
    await assertStillChatting(room, onB, onB);
  });

  test('too many knocks at rooms of others block the login', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    for (let n = 0; n <= STRIKES + 2; n += 1) client.send('join', { roomID: freshRoom() });
    await client.ended(20_000);
    const again = open(t, B, ann, { transports });
    assert.equal((await again.refused()).message, "you're banned");
  });
});

test('a polling request over the limit cuts that socket alone', async (t) => {
  const { ann, room, onA, onB } = await pair(t, POLLING);
  onA.send('message', { roomID: room, message: 'x'.repeat(70_000) });
  await onA.ended();
  await assertStillChatting(room, onB, onB);
  await joined(t, A, ann, room, { transports: POLLING, address: onA.address });
});
