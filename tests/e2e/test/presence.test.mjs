// Who is where, in the keys that existing tooling reads, and the room list behind them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, connect, joined, onBothTransports, open } from '../lib/client.mjs';
import { freshAddress, login, loginAgain, makeRoom } from '../lib/people.mjs';
import { fault, watch } from '../lib/proxy.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { APP, sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
const command = (...parts) => redis(world.redisPort, ...parts);
const members = async (key) => (await command('SMEMBERS', key)).toSorted();

/** Waits until a set holds exactly these members. */
const untilMembers = (key, wanted) => until(`${key} holds ${wanted.length} members`, async () => {
  assert.deepEqual(await members(key), wanted.toSorted());
  return true;
});

onBothTransports((transports) => {
  test('connecting fills userRooms and roomUsers, joining fills joinedRoomUsers', async (t) => {
    const ann = await login(world);
    const [one, two] = [await makeRoom(world, [ann]), await makeRoom(world, [ann])];
    const client = await connect(t, A, ann, { transports });
    await untilMembers(`userRooms:${ann.platformid}`, [one, two]);
    await untilMembers(`roomUsers:${one}`, [client.id]);
    await untilMembers(`roomUsers:${two}`, [client.id]);
    assert.deepEqual(await members(`joinedRoomUsers:${one}`), []);
    await client.do('join', { roomID: one });
    await untilMembers(`joinedRoomUsers:${one}`, [client.id]);
    assert.deepEqual(await members(`joinedRoomUsers:${two}`), []);
    for (const key of [`userRooms:${ann.platformid}`, `roomUsers:${one}`, `joinedRoomUsers:${one}`]) {
      assert.equal(await command('TYPE', key), 'set');
    }
  });

  test('userRooms lives for at most 120 s and is renewed while a socket of the user lives', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports });
    const key = `userRooms:${ann.platformid}`;
    const ttl = () => command('TTL', key);
    await until('userRooms expires', async () => (await ttl()) > 0);
    assert.ok((await ttl()) <= 120);
    await command('EXPIRE', key, 80);
    await until('userRooms is renewed', async () => (await ttl()) > 80, 60_000);
    client.close();
    await untilMembers(`roomUsers:${room}`, []);
    assert.ok((await ttl()) <= 120);
  });

  test('disconnecting removes the socket from both room sets and leaves other devices there', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const phone = await joined(t, A, ann, room, { transports });
    const laptop = await joined(t, B, await loginAgain(world, ann), room, { transports });
    const other = await joined(t, B, bob, room, { transports });
    const everybody = [phone.id, laptop.id, other.id];
    await untilMembers(`roomUsers:${room}`, everybody);
    await untilMembers(`joinedRoomUsers:${room}`, everybody);
    phone.close();
    await untilMembers(`roomUsers:${room}`, everybody.slice(1));
    await untilMembers(`joinedRoomUsers:${room}`, everybody.slice(1));
    const { id } = await other.do('message', { roomID: room, message: 'still here?' });
    await laptop.expect('message', (message) => message.id === id);
    assert.deepEqual(phone.all('message'), []);
  });

  test('a transport that just ends is cleaned up like a disconnect', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports });
    await untilMembers(`joinedRoomUsers:${room}`, [client.id]);
    client.socket.io.engine.close();
    await untilMembers(`joinedRoomUsers:${room}`, []);
    await untilMembers(`roomUsers:${room}`, []);
  });

  test('the devices of a user all receive, whichever node they are on', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const devices = await Promise.all([A, A, B].map((node) => joined(t, node, ann, room, { transports })));
    const other = await joined(t, B, bob, room, { transports });
    const { id } = await other.do('message', { roomID: room, message: 'to all of you' });
    for (const device of devices) await device.expect('message', (message) => message.id === id);
    for (const device of devices) assert.equal(device.all('message').length, 1);
  });

  test('the connection history tells time, address, user agent, node and why it ended', async (t) => {
    const ann = await login(world);
    const key = `connections:${ann.platformid}`;
    // Far more entries than anybody needs: the cap must hold.
    await command('RPUSH', key, ...Array.from({ length: 2_000 }, (_, i) => `{"old":${i}}`));
    const begin = Date.now();
    const client = await connect(t, A, ann, { transports });
    client.close();
    const entries = await until('the history has the end of the connection', async () => {
      const found = (await command('LRANGE', key, 0, -1)).filter((entry) => entry.includes(client.address));
      return found.some((entry) => /reason/.test(entry)) && found;
    });
    const all = entries.map((entry) => JSON.parse(entry));
    assert.ok(all.every((entry) => JSON.stringify(entry).includes(APP)), entries.join());
    assert.ok(all.some((entry) => Math.abs(new Date(entry.time ?? entry.at ?? entry.ts) - begin) < 60_000), entries.join());
    assert.ok(all.every((entry) => typeof entry.node === 'string'), entries.join());
    assert.ok(all.some((entry) => typeof entry.reason === 'string' && entry.reason), entries.join());
    assert.ok((await command('LLEN', key)) < 2_000, 'the list is capped');
  });

  test('messages are counted per user', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports });
    for (let n = 0; n < 7; n += 1) await client.do('message', { roomID: room, message: `${n}` });
    const key = `messageRequests:${ann.platformid}`;
    await until('seven messages are counted', async () => (await command('GET', key)) === '7', 30_000);
  });

  test('events sent while the room list is fetched wait and are not lost', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const slow = { path: '/api/rooms/user-rooms', match: ann.platformid, act: 'delay', ms: 1_500 };
    await fault(t, world.proxy, slow);
    const client = open(t, A, ann, { transports });
    client.socket.once('connect', () => {
      client.send('join', { roomID: room });
      client.send('message', { roomID: room, message: 'first' });
      client.send('message', { roomID: room, message: 'second' });
    });
    await client.expect('previousMessages');
    const [first] = await client.expect('message');
    const [second] = await client.expect('message');
    assert.deepEqual([first.message, second.message], ['first', 'second']);
    assert.deepEqual(client.all('errorMessage'), []);
  });

  test('a user whom the room service refuses is cut and blocked', async (t) => {
    const ann = await login(world);
    const refusal = await fault(t, world.proxy, { path: '/api/rooms/user-rooms', match: ann.platformid, act: 'answer', status: 403 });
    const client = open(t, A, ann, { transports });
    await client.ended();
    await refusal.clear();
    await until('the login is blocked on the other node', async () => {
      const again = open(t, B, ann, { transports });
      const { name, args } = await again.next(['connect', 'connect_error']);
      again.close();
      return name === 'connect_error' && args[0].message === "you're banned";
    });
    await connect(t, A, await loginAgain(world, ann), { transports, address: client.address });
  });

  test('with the room service away the socket stays, join may be tried again and the list is fetched later', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const listAway = await fault(t, world.proxy, { path: '/api/rooms/user-rooms', match: ann.platformid, act: 'answer', status: 503 });
    const checkAway = await fault(t, world.proxy, { path: '/api/rooms/check-room', match: room, act: 'cut' });
    const client = await connect(t, A, ann, { transports });
    const answer = await client.ask('join', { roomID: room });
    assertError(answer, 'unavailable', 'join');
    assert.ok(answer.retryAfterMs > 0, JSON.stringify(answer));
    assert.ok(client.socket.connected);
    await checkAway.clear();
    await until('join works', async () => (await client.ask('join', { roomID: room })).ok);
    assert.ok((await listAway.requests()).length > 0);
    await listAway.clear();
    await untilMembers(`roomUsers:${room}`, [client.id]);
    await until('the list is fetched', async () => (await members(`userRooms:${ann.platformid}`)).includes(room), 30_000);
    assert.ok(client.socket.connected);
  });

  test('a list that could not be fetched is fetched later without any event of the client', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const away = await fault(t, world.proxy, { path: '/api/rooms/user-rooms', match: ann.platformid, act: 'hang' });
    const client = await connect(t, A, ann, { transports });
    await until('the list was asked for', async () => (await away.requests()).length > 0);
    await away.clear();
    await until('the list is there', async () => (await members(`roomUsers:${room}`)).includes(client.id), 30_000);
  });

  test('joins do not storm the room service', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const calls = await watch(t, world.proxy, { path: '/api/rooms/check-room', match: room });
    const clients = await Promise.all(Array.from({ length: 8 }, () => connect(t, A, ann, { transports, address: freshAddress() })));
    await Promise.all(clients.map((client) => client.do('join', { roomID: room })));
    // Single flight, cached for 5 s: one call, or two on a machine so slow that the first one has aged.
    assert.ok((await calls.requests()).length <= 2, `${(await calls.requests()).length} calls for 8 joins`);
  });
});
