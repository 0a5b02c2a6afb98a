// `deleteroom`: a user leaves for good, and the last one takes the room along.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, assertRefused, connect, joined, onBothTransports } from '../lib/client.mjs';
import { freshRoom, login, loginAgain, makeRoom, post } from '../lib/people.mjs';
import { fault } from '../lib/proxy.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
const command = (...parts) => redis(world.redisPort, ...parts);
const wish = ({ platformid, username }, roomID, more = {}) => ({ roomID, platformid, username, ...more });

onBothTransports((transports) => {
  test('the others are told, and no socket of the caller on any node stays in the room', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const here = await joined(t, A, ann, room, { transports });
    const there = await joined(t, B, await loginAgain(world, ann), room, { transports });
    const other = await joined(t, B, bob, room, { transports });
    const before = other.all('roomUpdate').length;
    await here.do('deleteroom', wish(ann, room));
    await until('the other is told', () => other.all('roomUpdate').slice(before).some(([update]) => update.roomID === room));
    for (const key of [`roomUsers:${room}`, `joinedRoomUsers:${room}`]) {
      await until(`${key} has only the other`, async () => (await command('SMEMBERS', key)).join() === other.id);
    }
    await until('the room is no longer in userRooms', async () => (await command('SISMEMBER', `userRooms:${ann.platformid}`, room)) === 0);
    await other.do('message', { roomID: room, message: 'they are gone' });
    await other.expect('message');
    for (const socket of [here, there]) {
      assertError(await socket.ask('message', { roomID: room, message: 'x' }), 'not_member', 'message after deleteroom');
      assertError(await socket.ask('join', { roomID: room }), 'not_member', 'join after deleteroom');
      assert.deepEqual(socket.all('message'), []);
    }
    const { participants } = await post(world.proxy, '/api/rooms/check-room', { roomID: room });
    assert.deepEqual(participants.map(({ platformid }) => platformid), [bob.platformid]);
  });

  test('the list in roomUpdate no longer has who left', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const [leaver, other] = [await joined(t, A, ann, room, { transports }), await joined(t, B, bob, room, { transports })];
    await leaver.do('deleteroom', wish(ann, room));
    await until('the list or the count has one left', () => other.all('roomUpdate').some(([{ roomID, participants, count }]) => (
      roomID === room && (participants ? participants.length === 1 && !JSON.stringify(participants).includes(ann.platformid) : count === 1)
    )));
  });

  test('when nobody is left the room and its keys are gone', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const [first, last] = [await joined(t, A, ann, room, { transports }), await joined(t, B, bob, room, { transports })];
    await first.do('message', { roomID: room, message: 'goodbye' });
    await first.do('deleteroom', wish(ann, room));
    await last.do('message', { roomID: room, message: 'alone' });
    last.send('deleteroom', wish(bob, room));
    const exists = async () => (await post(world.proxy, '/api/rooms/check-room', { roomID: room })).exist;
    await until('the room service has no such room', async () => !(await exists()));
    const keysLeft = async () => {
      const all = await command('KEYS', `*${room}*`);
      // What remains of a deleted room is its tombstone.
      return all.filter((key) => !key.endsWith(':meta'));
    };
    await until('no key of the room is left', async () => {
      assert.deepEqual(await keysLeft(), []);
      return true;
    });
    for (const client of [first, last]) {
      for (const event of ['join', 'message']) {
        const answer = await client.ask(event, { roomID: room, message: 'anybody?' });
        assert.ok(['not_member', 'room_gone'].includes(answer.code), `${event}: ${JSON.stringify(answer)}`);
      }
    }
    assert.deepEqual(await keysLeft(), [], 'and none comes back');
  });

  test('createdAt is passed on, and the right one is no hindrance', async (t) => {
    const ann = await login(world);
    const createdAt = 1_700_000_000_000;
    const room = await makeRoom(world, [ann, await login(world)], { createdAt });
    const client = await connect(t, A, ann, { transports });
    await client.do('deleteroom', wish(ann, room, { createdAt }));
  });

  test('nobody is removed in the name of another', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const client = await joined(t, A, ann, room, { transports });
    for (const payload of [wish(bob, room), { ...wish(ann, room), username: bob.username }, { ...wish(ann, room), platformid: bob.platformid }]) {
      const answer = await client.ask('deleteroom', payload);
      assert.notEqual(answer.ok, true);
      assert.equal(typeof answer.code, 'string');
    }
    const { participants } = await post(world.proxy, '/api/rooms/check-room', { roomID: room });
    assert.equal(participants.length, 2);
    await client.do('message', { roomID: room, message: 'still here' });
  });

  test('a room that is not theirs is not_member', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const client = await connect(t, A, ann, { transports });
    await assertRefused(client, 'deleteroom', wish(ann, await makeRoom(world, [bob])), 'not_member');
    await assertRefused(client, 'deleteroom', wish(ann, freshRoom()), 'not_member');
  });

  test('with the room service away nothing is removed and it may be tried again', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports });
    const away = await fault(t, world.proxy, { path: '/api/rooms/delete-room', match: room, act: 'answer', status: 503 });
    const answer = await client.ask('deleteroom', wish(ann, room));
    assertError(answer, 'unavailable', 'deleteroom');
    assert.ok(answer.retryAfterMs > 0);
    await client.do('message', { roomID: room, message: 'still here' });
    await away.clear();
    await client.do('deleteroom', wish(ann, room));
  });
});
