// Redis away: answers come soon and say so, sockets stay, and everything is back by itself.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { UPGRADE, connect, joined, open, rawHandshake } from '../lib/client.mjs';
import { freshAddress, login, loginAgain, makeRoom } from '../lib/people.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { startWorld } from '../lib/world.mjs';

/** A message must be answered within this while Redis is away: 2 s by the design, and one for a loaded machine. */
const ANSWER_MS = 3_000;

describe('while Redis is away', () => {
  let world;
  let [A, B] = [];
  before(async () => {
    world = await startWorld('redis');
    [A, B] = world.nodes;
  });
  after(() => world?.stop());

  /** Two people in a room, one per node and transport. */
  async function pair(t) {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const onA = await joined(t, A, ann, room);
    const onB = await joined(t, B, bob, room, { transports: UPGRADE });
    const { id } = await onA.do('message', { roomID: room, message: 'before', cid: 'before' });
    await onB.expect('message', (message) => message.id === id);
    return { ann, bob, room, onA, onB };
  }

  /** Sends while Redis is away and asserts that the answer is an honest one, and soon. */
  async function assertAnswered(client, room, cid) {
    const start = performance.now();
    const answer = await client.ask('message', { roomID: room, message: cid, cid });
    const took = performance.now() - start;
    assert.ok(['unavailable', 'uncertain'].includes(answer.code), JSON.stringify(answer));
    assert.equal(answer.ok, false);
    assert.ok(answer.retryAfterMs > 0, JSON.stringify(answer));
    assert.ok(took <= ANSWER_MS, `answered after ${took} ms`);
  }

  /** Asserts that a handshake is refused with a hint, and not as a block. */
  async function assertRefusedForNow(t, node, person, address) {
    const client = open(t, node, person, { address, auth: { proto: 2 } });
    const { name, args } = await client.next(['connect', 'connect_error']);
    assert.equal(name, 'connect_error');
    if (/^\{/.test(args[0].message)) {
      const error = JSON.parse(args[0].message);
      assert.equal(error.code, 'auth_unavailable');
      assert.ok(error.retryAfterMs > 0);
      return;
    }
    const { status, headers, body } = await rawHandshake(node, { address });
    assert.equal(status, 503, body);
    assert.ok(Number(headers['retry-after']) > 0);
    assert.equal(typeof JSON.parse(body).code, 'string');
  }

  /** Resends until it is acked, as a client with a `cid` may, and returns the ack. */
  const resend = (client, room, cid) => until(`message ${cid} is accepted`, async () => {
    const answer = await client.ask('message', { roomID: room, message: cid, cid });
    return answer.ok && answer;
  }, 15_000);

  /** Asserts that both clients have these messages, once and in order, and that a newcomer gets the same. */
  async function assertSame(t, { ann, room, onA, onB }, wanted) {
    for (const client of [onA, onB]) {
      const seen = () => client.all('message').map(([message]) => message);
      await until('every message came', () => seen().length >= wanted.length);
      assert.deepEqual(seen().map(({ message }) => message), wanted);
      const seqs = seen().map(({ seq }) => seq);
      assert.deepEqual(seqs, seqs.map((_, n) => seqs[0] + n), 'no holes');
      for (let n = 1; n < wanted.length; n += 1) assert.ok(seen()[n].timestamp > seen()[n - 1].timestamp);
    }
    const newcomer = await joined(t, B, await loginAgain(world, ann), room);
    assert.deepEqual(newcomer.previous, onA.all('message').map(([message]) => message));
  }

  test('a Redis that hangs for some seconds costs nobody the connection', async (t) => {
    const people = await pair(t);
    const { ann, room, onA, onB } = people;
    const address = freshAddress();
    world.redis.signal('SIGSTOP');
    try {
      await Promise.all([assertAnswered(onA, room, 'hung-a'), assertAnswered(onB, room, 'hung-b')]);
      await assertRefusedForNow(t, A, ann, address);
    } finally {
      world.redis.signal('SIGCONT');
    }
    const first = await resend(onA, room, 'hung-a');
    await resend(onB, room, 'hung-b');
    assert.ok(onA.socket.connected && onB.socket.connected, 'both sockets stayed');
    assert.equal(onA.all('disconnect').length + onB.all('disconnect').length, 0);
    const again = await onA.do('message', { roomID: room, message: 'hung-a', cid: 'hung-a' });
    assert.deepEqual([again.dup, again.id], [true, first.id], 'stored once, however often it was sent');
    await onA.do('message', { roomID: room, message: 'after' });
    await until('the newest came', () => onB.all('message').some(([{ message }]) => message === 'after'));
    const order = onB.all('message').map(([{ message }]) => message);
    assert.deepEqual(order.toSorted(), ['after', 'before', 'hung-a', 'hung-b']);
    await assertSame(t, people, order);
    await connect(t, A, ann, { address });
  });

  test('a Redis that is restarted is used again within seconds, with everything that was acked', async (t) => {
    const people = await pair(t);
    const { ann, room, onA, onB } = people;
    const address = freshAddress();
    const key = `joinedRoomUsers:${room}`;
    const expected = (await redis(world.redisPort, 'SMEMBERS', key)).toSorted();
    await world.redis.stop();
    await assertAnswered(onA, room, 'down-a');
    await assertAnswered(onB, room, 'down-b');
    await assertRefusedForNow(t, B, ann, address);
    await world.restartRedis();
    const back = performance.now();
    await resend(onA, room, 'down-a');
    assert.ok(performance.now() - back < 5_000, `back after ${performance.now() - back} ms`);
    await resend(onB, room, 'down-b');
    assert.equal(onA.all('disconnect').length + onB.all('disconnect').length, 0, 'both sockets stayed');
    await assertSame(t, people, ['before', 'down-a', 'down-b']);
    assert.ok((await redis(world.redisPort, 'SMEMBERS', key)).filter((id) => expected.includes(id)).length === 2);
    await connect(t, A, ann, { address });
    const { status } = await rawHandshake(B, { address });
    assert.equal(status, 200, 'nobody was blocked');
  });

  test('events other than messages say unavailable as well, and nobody is struck for trying', async (t) => {
    const { ann, room, onA } = await pair(t);
    const { id } = await onA.do('message', { roomID: room, message: 'x' });
    await world.redis.stop();
    try {
      const asked = [
        ['join', { roomID: room }],
        ['editMessage', { roomID: room, id, message: 'y' }],
        ['deleteMessage', { roomID: room, id }],
        ['loadMoreMessages_for_room', { roomId: room }],
      ];
      for (const [event, payload] of asked) {
        const answer = await onA.ask(event, payload);
        assert.ok(['unavailable', 'uncertain'].includes(answer?.code), `${event}: ${JSON.stringify(answer)}`);
      }
    } finally {
      await world.restartRedis();
    }
    let member = onA;
    await until('join works again', async () => {
      // On a slow machine the outage may last long enough for the node to close its connections.
      if (member.all('disconnect').length) member = await connect(t, A, ann);
      return (await member.ask('join', { roomID: room })).ok;
    }, 20_000);
    await until('handshakes work again', async () => {
      const client = open(t, B, ann);
      const { name } = await client.next(['connect', 'connect_error']);
      return name === 'connect';
    }, 15_000);
    for (const node of [A, B]) assert.equal(node.child.failed, false);
  });
});
