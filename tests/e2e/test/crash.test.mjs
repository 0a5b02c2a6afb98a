// A node that dies: its clients come back and miss nothing, and its traces go.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { UPGRADE, WEBSOCKET, connect, joined, open } from '../lib/client.mjs';
import { login, makeRoom } from '../lib/people.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld, startNode } from '../lib/world.mjs';

const world = sharedWorld();
const [A] = world.nodes;
/** By the contract a dead process leaves no ghosts after this. */
const GHOSTS_MS = 60_000;
/** Nobody is declared dead before Redis and the survivors have been up for this: all others need the time to return. */
const SETTLED_S = 62;
const members = (key) => redis(world.redisPort, 'SMEMBERS', key);

/** Waits until none of these sockets is in the room's sets. */
function untilNoGhosts(room, sockets, since) {
  return until('no ghosts are left', async () => {
    const all = [...await members(`roomUsers:${room}`), ...await members(`joinedRoomUsers:${room}`)];
    return !all.some((id) => sockets.includes(id));
  }, GHOSTS_MS - (performance.now() - since));
}

describe('a node killed with -9', { concurrency: 2 }, () => {
  let [restarted, lost] = [];
  before(async () => {
    [restarted, lost] = await Promise.all(['node-c', 'node-d'].map((name) => startNode(world, { name })));
    await until('Redis has been up for a minute', async () => {
      const [, uptime] = /uptime_in_seconds:(\d+)/.exec(await redis(world.redisPort, 'INFO', 'server'));
      return Number(uptime) >= SETTLED_S;
    }, SETTLED_S * 1_000);
  });
  after(() => Promise.all([restarted, lost].map((node) => node?.child.stop())));

  test('and restarted gets its clients back by themselves, and they get exactly what they missed', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const sender = await joined(t, A, ann, room);
    const clients = await Promise.all([WEBSOCKET, UPGRADE].map(async (transports) => {
      const client = open(t, restarted, bob, { transports, reconnection: true });
      // What a client of ours does: join at every connect, from the newest message it has.
      client.seen = [];
      const take = (message) => { client.last = message; client.seen.push(message.message); };
      client.socket.on('message', take);
      client.socket.on('previousMessages', (messages) => messages.forEach(take));
      client.socket.on('connect', () => client.send('join', { roomID: room, ...(client.last && { lastmessage: client.last.timestamp }) }));
      await client.expect('previousMessages');
      return client;
    }));
    const say = (message) => sender.do('message', { roomID: room, message });
    for (const text of ['1', '2', '3']) await say(text);
    for (const client of clients) await until('the first three came', () => client.seen.length === 3);
    const ghosts = clients.map((client) => client.id);

    const killedAt = performance.now();
    await restarted.child.kill();
    await Promise.all(clients.map((client) => client.ended()));
    for (const text of ['4', '5', '6', '7']) await say(text);
    const { port, opsPort } = restarted;
    restarted = await startNode(world, { name: 'node-c-again', port, opsPort });
    await Promise.all(clients.map((client) => client.expect('previousMessages', undefined, 20_000)));
    for (const text of ['8', '9']) await say(text);
    for (const client of clients) {
      await until('everything came', () => client.seen.length >= 9);
      assert.deepEqual(client.seen, ['1', '2', '3', '4', '5', '6', '7', '8', '9']);
      assert.ok(!ghosts.includes(client.id));
    }
    await untilNoGhosts(room, ghosts, killedAt);
    const now = await members(`joinedRoomUsers:${room}`);
    assert.deepEqual(now.toSorted(), [sender.id, ...clients.map((client) => client.id)].toSorted());
  });

  test('and not coming back leaves no ghosts after 60 s, and touches nobody else', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const survivor = await joined(t, A, ann, room);
    const gone = [await joined(t, lost, bob, room), await connect(t, lost, bob)];
    await until('both are known', async () => (await members(`roomUsers:${room}`)).length === 3);
    const ghosts = gone.map((client) => client.id);
    const killedAt = performance.now();
    await lost.child.kill();
    await Promise.all(gone.map((client) => client.ended()));
    assert.equal((await members(`roomUsers:${room}`)).length, 3, 'a crash cleans nothing up by itself');
    await untilNoGhosts(room, ghosts, killedAt);
    assert.deepEqual(await members(`joinedRoomUsers:${room}`), [survivor.id]);
    assert.deepEqual(await members(`roomUsers:${room}`), [survivor.id]);
    await survivor.do('message', { roomID: room, message: 'still here' });
  });
});

describe('a node that is told to end', () => {
  test('closes its connections so that clients come back by themselves, and leaves nothing behind', async (t) => {
    const node = await startNode(world, { name: 'node-e', env: { ROOMCAST_DRAIN_SPREAD: '1s' } });
    t.after(() => node.child.stop());
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const survivor = await joined(t, A, ann, room);
    const drained = [await joined(t, node, bob, room), await joined(t, node, bob, room, { transports: UPGRADE })];
    const stopping = node.child.stop('SIGTERM', 30_000);
    for (const client of drained) {
      const reason = await client.ended(20_000);
      assert.notEqual(reason, 'io server disconnect', 'JavaScript clients would stay away');
    }
    await stopping;
    assert.equal(node.child.end.code, 0);
    assert.deepEqual(await members(`joinedRoomUsers:${room}`), [survivor.id]);
    assert.deepEqual(await members(`roomUsers:${room}`), [survivor.id]);
  });
});
