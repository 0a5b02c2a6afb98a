// Questions to the model: asked with a flag or a mention, answered in the room by the worker.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { joined, onBothTransports } from '../lib/client.mjs';
import { login, makeRoom } from '../lib/people.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
/** A queue, a worker and a model lie between question and reply. */
const REPLY_MS = 20_000;

onBothTransports((transports) => {
  for (const [how, question] of Object.entries({
    'with gpt: true': { message: 'why is that', gpt: true },
    'with a mention': { message: '@gpt why is that' },
  })) {
    test(`a question asked ${how} is answered in the room, on every node`, async (t) => {
      const [ann, bob] = [await login(world), await login(world)];
      const room = await makeRoom(world, [ann, bob]);
      const [onA, onB] = [await joined(t, A, ann, room, { transports }), await joined(t, B, bob, room, { transports })];
      const { id } = await onA.do('message', { roomID: room, ...question });
      const [asked] = await onB.expect('message', (message) => message.id === id);
      assert.equal(asked.gpt, true);
      for (const client of [onA, onB]) {
        const [reply] = await client.expect('message', ({ kind }) => kind === 'gpt', REPLY_MS);
        assert.match(reply.message, /why is that/);
        assert.ok(reply.seq > asked.seq);
        assert.equal(client.all('message').filter(([{ kind }]) => kind === 'gpt').length, 1, 'exactly one reply');
      }
    });
  }

  test('a message that asks nobody is not answered', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const client = await joined(t, A, ann, room, { transports });
    await client.do('message', { roomID: room, message: 'not for @gpt' });
    await client.do('message', { roomID: room, message: 'for it', gpt: true });
    const [reply] = await client.expect('message', ({ kind }) => kind === 'gpt', REPLY_MS);
    assert.match(reply.message, /you said: for it/);
    assert.equal(client.all('message').length, 3);
  });
});
