// The services away: chat goes on, nobody is blocked, and what was said is archived later.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { UPGRADE, assertError, connect, joined, open } from '../lib/client.mjs';
import { freshAddress, login, loginAgain, makeRoom } from '../lib/people.mjs';
import { until } from '../lib/wait.mjs';
import { startWorld } from '../lib/world.mjs';

/** Longer than a room list counts as verified (60 s), so that the outage outlives every cache. */
const OUTAGE_MS = 66_000;
/** Between two messages during the outage. */
const PACE_MS = 1_000;

describe('while the services are away', () => {
  let world;
  let [A, B] = [];
  before(async () => {
    world = await startWorld('api');
    [A, B] = world.nodes;
  });
  after(() => world?.stop());

  const archive = async (room) => {
    const answer = await fetch(`${world.proxy}/api/messages/get-messages/${room}?limit=1000&type=new`);
    return (await answer.json()).map(({ message }) => message);
  };

  test('messages are archived as they are sent', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room);
    const sent = [];
    for (const message of ['1', '2', '3']) sent.push(await client.do('message', { roomID: room, message }));
    await client.do('editMessage', { roomID: room, id: sent[1].id, message: 'two' });
    await client.do('deleteMessage', { roomID: room, id: sent[2].id });
    await until('the archive has what is shown', async () => {
      assert.deepEqual(await archive(room), ['1', 'two']);
      return true;
    }, 20_000);
  });

  test('chat goes on for longer than a room list counts, nobody is blocked, and the archive catches up', async (t) => {
    const [ann, bob, cid] = [await login(world), await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    // Never asked about before, so no answer about it can be remembered.
    const unknown = await makeRoom(world, [cid]);
    const onA = await joined(t, A, ann, room);
    const onB = await joined(t, B, bob, room, { transports: UPGRADE });
    const address = freshAddress();
    await world.backend.stop();

    // A valid token needs nobody else: the connection is made, only what needs the services has to wait.
    const late = await connect(t, B, cid, { address });
    const answer = await late.ask('join', { roomID: unknown });
    assertError(answer, 'unavailable', 'join');
    assert.ok(answer.retryAfterMs > 0);
    onA.send('refreshToken');
    const [error] = await onA.expect('errorMessage', ({ event }) => event === 'refreshToken');
    assertError(error, 'auth_unavailable', 'refreshToken');
    const expired = open(t, A, ann, { address, auth: { accessToken: 'garbage' } });
    assert.equal((await expired.refused()).message, 'auth_unavailable');

    const sent = [];
    const end = performance.now() + OUTAGE_MS;
    while (performance.now() < end) {
      const [from, to] = sent.length % 2 ? [onA, onB] : [onB, onA];
      const message = `${sent.length}`;
      const ack = await from.ask('message', { roomID: room, message });
      assert.equal(ack.ok, true, `after ${sent.length} messages: ${JSON.stringify(ack)}`);
      await to.expect('message', ({ id }) => id === ack.id);
      sent.push(message);
      // The outage has to last; the pace keeps it a conversation.
      await pause(PACE_MS);
    }
    await world.restartBackend();
    await until('the archive has everything', async () => {
      assert.deepEqual(await archive(room), sent);
      return true;
    }, 30_000);
    for (const client of [onA, onB, late]) assert.ok(client.socket.connected);
    await until('join works again', async () => (await late.ask('join', { roomID: unknown })).ok, 20_000);
    const newcomer = await joined(t, B, await loginAgain(world, ann), room);
    assert.deepEqual(newcomer.previous.map(({ message }) => message), sent);
    await connect(t, A, ann, { address });
    onA.send('refreshToken');
    await onA.expect('token:refresh');
  });
});
