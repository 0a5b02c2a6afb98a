// `join` and `leave`: who may enter, and what one missed.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, assertRefused, connect, joined, onBothTransports, open } from '../lib/client.mjs';
import { claims, freshRoom, login, loginAgain, makeRoom, post, sign } from '../lib/people.mjs';
import { fault } from '../lib/proxy.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { ADMIN_TOKEN, sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
const members = (key) => redis(world.redisPort, 'SMEMBERS', key);
const texts = (messages) => messages.map(({ message }) => message);

/** The ways in which clients say up to where they have a room. */
const CURSORS = {
  milliseconds: (message) => message.timestamp,
  'a numeric string': (message) => String(message.timestamp),
  'ISO 8601': (message) => new Date(message.timestamp).toISOString(),
  'ISO 8601 with an offset': (message) => new Date(message.timestamp + 9 * 3_600_000).toISOString().replace('Z', '+09:00'),
  'a message id': (message) => message.id,
  'a message': (message) => message,
  'a message of which only id and timestamp are kept': ({ id, timestamp }) => ({ id, timestamp }),
};

/** Who named the messages that are only in the archive. */
const ARCHIVES = {
  'archived by another service': (n) => `old-${n}`,
  'of a Redis that was lost': (n, ts) => `${ts}-${n}`,
};

onBothTransports((transports) => {
  test('the first join of a room brings an empty history and an ack', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await connect(t, A, ann, { transports });
    const answer = await client.do('join', { roomID: room });
    assert.equal(answer.code, undefined);
    assert.deepEqual(await client.expect('previousMessages'), [[]]);
    await client.do('join', { roomID: room });
    assert.deepEqual(await client.expect('previousMessages'), [[]], 'joining twice is harmless');
  });

  test('a join without an ack brings the history as well', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const first = await joined(t, A, ann, room, { transports });
    await first.do('message', { roomID: room, message: 'hello' });
    const second = await connect(t, B, bob, { transports });
    second.send('join', { roomID: room });
    const [messages] = await second.expect('previousMessages');
    assert.deepEqual(texts(messages), ['hello']);
  });

  test('a join is told to the others with roomUpdate', async (t) => {
    const [ann, bob, cid] = [await login(world), await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob, cid]);
    const inside = await joined(t, A, ann, room, { transports });
    const outside = await connect(t, B, cid, { transports });
    await until('the member who did not join is known', async () => (await members(`roomUsers:${room}`)).includes(outside.id));
    const [before, beforeOutside] = [inside.all('roomUpdate').length, outside.all('roomUpdate').length];
    await joined(t, B, bob, room, { transports });
    const update = await until('roomUpdate came', () => inside.all('roomUpdate')[before]?.[0]);
    assert.equal(update.roomID, room);
    assert.ok(Array.isArray(update.participants) || typeof update.count === 'number', JSON.stringify(update));
    await until('members who did not join hear of it as well', () => outside.all('roomUpdate').length > beforeOutside);
  });

  for (const [form, cursor] of Object.entries(CURSORS)) {
    test(`lastmessage as ${form} brings exactly what came after it`, async (t) => {
      const [ann, bob] = [await login(world), await login(world)];
      const room = await makeRoom(world, [ann, bob]);
      const sender = await joined(t, A, ann, room, { transports });
      for (const message of ['1', '2', '3', '4', '5']) await sender.do('message', { roomID: room, message });
      const third = (await sender.expect('message', ({ message }) => message === '3'))[0];
      const client = await joined(t, B, bob, room, { transports, join: { lastmessage: cursor(third) } });
      assert.deepEqual(texts(client.previous), ['4', '5']);
      const last = client.previous[1];
      await client.do('join', { roomID: room, lastmessage: cursor(last) });
      assert.deepEqual(await client.expect('previousMessages'), [[]]);
    });
  }

  test('the history is folded: edits applied, deleted messages left out, changes of older ones follow', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const sender = await joined(t, A, ann, room, { transports });
    const sent = [];
    for (const message of ['1', '2', '3', '4']) sent.push(await sender.do('message', { roomID: room, message }));
    const second = (await sender.expect('message', ({ message }) => message === '2'))[0];
    await sender.do('editMessage', { roomID: room, id: sent[3].id, message: 'four' });
    await sender.do('deleteMessage', { roomID: room, id: sent[2].id });
    await sender.do('editMessage', { roomID: room, id: sent[0].id, message: 'one' });
    const whole = await joined(t, B, bob, room, { transports });
    assert.deepEqual(texts(whole.previous), ['one', '2', 'four']);
    assert.deepEqual(whole.previous.map(({ kind }) => kind), ['message', 'message', 'message']);
    const later = await joined(t, B, await loginAgain(world, bob), room, { transports, join: { lastmessage: second } });
    assert.deepEqual(texts(later.previous), ['four']);
    const [edit] = await later.expect('editMessage');
    assert.deepEqual([edit.id, edit.message], [sent[0].id, 'one']);
  });

  for (const [whose, name] of Object.entries(ARCHIVES)) {
    test(`messages ${whose} are part of the history`, async (t) => {
      const [ann, bob] = [await login(world), await login(world)];
      const room = await makeRoom(world, [ann, bob]);
      const begin = Date.now() - 100_000;
      const { platformid, username } = ann;
      const events = [1, 2, 3].map((n) => {
        const ts = begin + n * 1_000;
        return { roomID: room, id: name(n, ts), epoch: 'before', seq: n, ts, timestamp: ts, kind: 'message', platformid, username, message: `old ${n}` };
      });
      await post(world.proxy, '/api/messages/save-messages', { events });
      const sender = await joined(t, A, ann, room, { transports });
      assert.deepEqual(texts(sender.previous), ['old 1', 'old 2', 'old 3']);
      await sender.do('message', { roomID: room, message: 'new' });
      for (const lastmessage of [events[0].ts, events[0].id, events[0], { id: events[0].id }]) {
        const client = await joined(t, B, bob, room, { transports, join: { lastmessage } });
        assert.deepEqual(texts(client.previous), ['old 2', 'old 3', 'new'], `lastmessage: ${JSON.stringify(lastmessage)}`);
        client.close();
      }
    });
  }

  test('a room that does not exist, or is of others, is not_member', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const client = await connect(t, A, ann, { transports });
    await assertRefused(client, 'join', { roomID: freshRoom() }, 'not_member');
    await assertRefused(client, 'join', { roomID: await makeRoom(world, [bob]) }, 'not_member');
  });

  test('membership goes by platformid, not by nickname', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [{ platformid: bob.platformid, username: ann.username }]);
    const client = await connect(t, A, ann, { transports });
    assertError(await client.ask('join', { roomID: room }), 'not_member', 'join by nickname');
  });

  test('a nickname counts where the room service gives no platformid', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const body = JSON.stringify({ exist: true, participants: [{ nickname: ann.username.toUpperCase() }] });
    await fault(t, world.proxy, { path: '/api/rooms/check-room', match: room, act: 'answer', body });
    const client = await connect(t, A, ann, { transports });
    await client.do('join', { roomID: room });
  });

  test('the right createdAt joins, in any form; a forged one is cut and blocked', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const createdAt = 1_700_000_000_123;
    const room = await makeRoom(world, [ann, bob], { createdAt });
    const honest = await joined(t, A, ann, room, { transports, join: { createdAt } });
    await honest.do('join', { roomID: room, createdAt: new Date(createdAt).toISOString() });
    const forger = await connect(t, A, bob, { transports });
    const sibling = await connect(t, B, bob, { transports });
    forger.send('join', { roomID: room, createdAt: createdAt + 1 });
    await forger.ended();
    await sibling.ended();
    assert.deepEqual(forger.all('previousMessages'), []);
    for (const node of [A, B]) {
      const again = open(t, node, bob, { transports });
      assert.equal((await again.refused()).message, "you're banned");
    }
    await connect(t, A, await loginAgain(world, bob), { transports, address: forger.address });
    assert.ok(honest.socket.connected);
  });

  test('an access token that has just ended is exchanged by a join, and without a new one nobody joins', async (t) => {
    const people = [await login(world), await login(world), await login(world)];
    const room = await makeRoom(world, people);
    const [ann, bob, kim] = people;
    const refresh = { path: '/refresh-token', act: 'answer' };
    await fault(t, world.proxy, { ...refresh, match: bob.refreshToken, status: 401 });
    await fault(t, world.proxy, { ...refresh, match: kim.refreshToken, status: 503 });
    // 60 s of clock difference are tolerated, so these have two seconds left.
    const connected = people.map((person) => connect(t, A, person, { transports, auth: { accessToken: sign(person, { expiresIn: -58 }) } }));
    const [renewed, refused, unlucky] = await Promise.all(connected);
    /** Joins again and again, until one comes after the end of the token. */
    const joinPastTheEnd = async (client, isOver) => {
      let answer;
      await until('a join comes after the end of the token', async () => {
        answer = await client.ask('join', { roomID: room });
        return isOver(answer);
      });
      return answer;
    };
    const answers = [
      joinPastTheEnd(renewed, () => renewed.all('token:refresh').length > 0),
      joinPastTheEnd(refused, ({ ok }) => !ok),
      joinPastTheEnd(unlucky, ({ ok }) => !ok),
    ];
    const [, noMore, notNow] = await Promise.all(answers);
    assertError(noMore, 'auth_expired', 'join with a refused refresh token');
    assertError(notNow, 'auth_unavailable', 'join while the auth service is away');
    assert.ok(notNow.retryAfterMs > 0);
    await Promise.all([refused.ended(), unlucky.ended()]);
    await renewed.do('message', { roomID: room, message: 'still here' });
    assert.equal(claims(renewed.all('token:refresh')[0][0].accessToken).platformid, ann.platformid);
  });

  test('a revoked login no longer joins, on any node, and a new one does', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const clients = [await connect(t, A, ann, { transports }), await joined(t, B, ann, room, { transports })];
    const answer = await fetch(`http://127.0.0.1:${A.opsPort}/admin/revoke`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' },
      body: JSON.stringify({ sid: claims(ann.accessToken).sid }),
    });
    assert.ok(answer.ok, `POST /admin/revoke answered ${answer.status}`);
    for (const client of clients) {
      await until('join is refused', async () => {
        if (!client.socket.connected) return true;
        const refusal = await client.ask('join', { roomID: room }).catch(() => ({}));
        return ['auth_expired', 'blocked'].includes(refusal.code);
      });
    }
    await joined(t, B, await loginAgain(world, ann), room, { transports });
  });

  test('leave ends live delivery and keeps the user in the room', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const [sender, leaver, sibling] = [
      await joined(t, A, ann, room, { transports }),
      await joined(t, B, bob, room, { transports }),
      await joined(t, A, await loginAgain(world, bob), room, { transports }),
    ];
    await leaver.do('leave', { username: bob.username, roomID: room });
    assert.ok(!(await members(`joinedRoomUsers:${room}`)).includes(leaver.id));
    assert.ok((await members(`roomUsers:${room}`)).includes(leaver.id));
    assert.ok((await members(`userRooms:${bob.platformid}`)).includes(room));
    assertError(await leaver.ask('message', { roomID: room, message: 'from outside' }), 'not_joined', 'message');
    await sender.do('message', { roomID: room, message: 'while away' });
    await sibling.expect('message', ({ message }) => message === 'while away');
    await leaver.do('join', { roomID: room });
    await sender.do('message', { roomID: room, message: 'back again' });
    await leaver.expect('message', ({ message }) => message === 'back again');
    assert.deepEqual(leaver.all('message').map(([{ message }]) => message), ['back again']);
    assertError(await leaver.ask('leave', { roomID: freshRoom() }), 'not_member', 'leave');
    leaver.send('leave', { roomID: room });
    await until('leaving needs neither name nor ack', async () => !(await members(`joinedRoomUsers:${room}`)).includes(leaver.id));
  });
});
