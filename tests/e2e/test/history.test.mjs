// `loadMoreMessages_for_room`: exact pages in both directions.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, assertRefused, connect, joined, onBothTransports } from '../lib/client.mjs';
import { freshRoom, login, makeRoom, post } from '../lib/people.mjs';
import { fault } from '../lib/proxy.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
const LOAD = 'loadMoreMessages_for_room';
const PAGE = 50;
const texts = (messages) => messages.map(({ message }) => message);
const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => `${first + n}`);

/** A room with messages "1" … "count", and a member on the other node who has not joined. */
async function filled(t, transports, count) {
  const [ann, bob] = [await login(world), await login(world)];
  const room = await makeRoom(world, [ann, bob]);
  const writer = await joined(t, A, ann, room, { transports });
  const acks = await Promise.all(numbers(1, count).map((message) => writer.do('message', { roomID: room, message })));
  const reader = await connect(t, B, bob, { transports });
  const load = (query) => reader.ask(LOAD, { roomId: room, ...query });
  return { room, writer, reader, acks, load };
}

onBothTransports((transports) => {
  test('a join brings at most the newest 1000 messages, ascending', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const writer = await joined(t, A, ann, room, { transports });
    for (const message of numbers(1, 1_049)) writer.send('message', { roomID: room, message });
    await writer.do('message', { roomID: room, message: '1050' });
    const reader = await joined(t, B, bob, room, { transports });
    assert.deepEqual(texts(reader.previous), numbers(51, 1_050));
  });

  test('pages of 50 lead back to the beginning without a hole or a repetition', async (t) => {
    const { load, writer } = await filled(t, transports, 120);
    const newest = await load({});
    assert.deepEqual(texts(newest), numbers(71, 120));
    const [live] = await writer.expect('message', ({ message }) => message === '120');
    assert.deepEqual(newest.at(-1), live, 'the same object everywhere');
    const middle = await load({ timestamp: newest[0].timestamp });
    assert.deepEqual(texts(middle), numbers(21, 70));
    const oldest = await load({ timestamp: middle[0].timestamp });
    assert.deepEqual(texts(oldest), numbers(1, 20));
    assert.deepEqual(await load({ timestamp: oldest[0].timestamp }), []);
  });

  test('timestamp is exclusive in every form', async (t) => {
    const { load, acks } = await filled(t, transports, 10);
    const { ts, id } = acks[5];
    for (const timestamp of [ts, String(ts), new Date(ts).toISOString(), id, { id, timestamp: ts }]) {
      assert.deepEqual(texts(await load({ timestamp })), numbers(1, 5), JSON.stringify(timestamp));
      assert.deepEqual(texts(await load({ timestamp, type: 'new' })), numbers(7, 10), JSON.stringify(timestamp));
    }
    assert.deepEqual(texts(await load({ timestamp: acks[9].ts + 60_000 })), numbers(1, 10));
    assert.deepEqual(await load({ timestamp: 1 }), []);
  });

  test('oldmessage names the message before which the page ends', async (t) => {
    const { load, acks } = await filled(t, transports, 60);
    assert.deepEqual(texts(await load({ oldmessage: acks[54].id })), numbers(5, 54));
    assert.deepEqual(texts(await load({ oldmessage: acks[4].id })), numbers(1, 4));
    assert.deepEqual(await load({ oldmessage: acks[0].id }), []);
  });

  test('type new reads onwards, ascending, at most 50', async (t) => {
    const { load, acks } = await filled(t, transports, 60);
    assert.deepEqual(texts(await load({ timestamp: acks[3].ts, type: 'new' })), numbers(5, 54));
    assert.deepEqual(texts(await load({ oldmessage: acks[3].id, type: 'new' })), numbers(5, 54));
    assert.deepEqual(texts(await load({ timestamp: acks[53].ts, type: 'new' })), numbers(55, 60));
    assert.deepEqual(await load({ timestamp: acks[59].ts, type: 'new' }), []);
  });

  test('edits are applied and deleted messages are left out, also while the archive does not know of it', async (t) => {
    const { load, acks, room, writer } = await filled(t, transports, 4);
    await until('the archive has all four', async () => {
      const answer = await fetch(`${world.proxy}/api/messages/get-messages/${room}`);
      return (await answer.json()).length === 4;
    });
    const behind = await fault(t, world.proxy, { path: '/api/messages/save-messages', match: room, act: 'answer', status: 503 });
    await writer.do('editMessage', { roomID: room, id: acks[1].id, message: 'two' });
    await writer.do('deleteMessage', { roomID: room, id: acks[2].id });
    assert.deepEqual(texts(await load({})), ['1', 'two', '4']);
    await behind.clear();
    await until('the archive has caught up', async () => {
      const answer = await fetch(`${world.proxy}/api/messages/get-messages/${room}`);
      return texts(await answer.json()).join() === '1,two,4';
    }, 20_000);
    assert.deepEqual(texts(await load({})), ['1', 'two', '4']);
  });

  test('what was archived before this service is reached by paging back', async (t) => {
    const { load, acks, room } = await filled(t, transports, 5);
    const events = numbers(1, PAGE + 10).map((n) => {
      const ts = acks[0].ts - 1_000_000 + Number(n);
      return { roomID: room, id: `old-${n}`, epoch: 'before', seq: Number(n), ts, timestamp: ts, kind: 'message', platformid: 'x', username: 'x', message: `old ${n}` };
    });
    await post(world.proxy, '/api/messages/save-messages', { events });
    const old = (first, last) => numbers(first, last).map((n) => `old ${n}`);
    const newest = await load({});
    assert.deepEqual(texts(newest), [...old(16, 60), ...numbers(1, 5)]);
    const before = await load({ timestamp: newest[0].timestamp });
    assert.deepEqual(texts(before), old(1, 15));
    assert.deepEqual(texts(await load({ oldmessage: 'old-16' })), old(1, 15));
    assert.deepEqual(texts(await load({ oldmessage: 'old-58', type: 'new' })), [...old(59, 60), ...numbers(1, 5)]);
    assert.deepEqual(texts(await load({ timestamp: events[57].ts, type: 'new' })), [...old(59, 60), ...numbers(1, 5)]);
  });

  test('a failure is an object with error and code', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const client = await connect(t, A, ann, { transports });
    const cases = [
      [{ roomId: freshRoom() }, 'not_member'],
      [{ roomId: await makeRoom(world, [bob]) }, 'not_member'],
      [{}, 'bad_payload'],
      [{ roomId: 'a{b}' }, 'bad_payload'],
      [{ roomId: await makeRoom(world, [ann]), timestamp: true }, 'bad_payload'],
      [null, 'bad_payload'],
    ];
    for (const [payload, code] of cases) {
      const answer = await client.ask(LOAD, payload);
      assertError(answer, code, `${LOAD} ${JSON.stringify(payload)}`);
      assert.equal(typeof answer.error, 'string', JSON.stringify(answer));
    }
    await assertRefused(client, LOAD, { roomId: freshRoom() }, 'not_member');
  });
});
