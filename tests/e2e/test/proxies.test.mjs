// Whose address counts: declared proxies are believed, undeclared ones are never blocked.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertBlocked, connect, open, rawHandshake, together } from '../lib/client.mjs';
import { freshAddress, login } from '../lib/people.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld, startNode } from '../lib/world.mjs';

const world = sharedWorld();
const [A] = world.nodes;

together('the client address', () => {
  test('a private peer that forwards for others without being declared is never blocked, but warned about', async (t) => {
    const node = await startNode(world, { name: 'node-undeclared', env: { TRUSTED_PROXIES: undefined } });
    t.after(() => node.child.stop());
    const ann = await login(world);
    for (const address of [freshAddress(), freshAddress()]) {
      const bad = open(t, node, null, { address });
      assert.equal((await bad.refused()).message, "you're banned");
      const refused = open(t, node, ann, { address, auth: { accessToken: 'garbage', refreshToken: 'unknown' } });
      assert.equal((await refused.refused()).message, 'Token refresh failed');
      await connect(t, node, ann, { address });
      assert.equal((await rawHandshake(node, { address })).status, 200);
      assert.equal((await rawHandshake(A, { address })).status, 200);
    }
    await until('the log warns of the undeclared proxy', () => /WARN.*TRUSTED_PROXIES/.test(node.child.output()));
  });

  test('a block ends when its time is over, whatever was tried meanwhile', async (t) => {
    const node = await startNode(world, { name: 'node-short-blocks', env: { GUARD_BLOCK: '3s' } });
    t.after(() => node.child.stop());
    const ann = await login(world);
    const address = freshAddress();
    const start = performance.now();
    const client = open(t, node, null, { address });
    assert.equal((await client.refused()).message, "you're banned");
    await assertBlocked(node, address);
    // Every look is an attempt: if attempts prolonged the block, it would never end.
    await until('the block has ended', async () => (await rawHandshake(node, { address })).status === 200, 6_000);
    const lasted = performance.now() - start;
    assert.ok(lasted >= 2_500, `the block lasted ${lasted} ms`);
    await connect(t, node, ann, { address });
  });

  test('only the hop that the declared proxy wrote is believed', async (t) => {
    const [real, invented] = [freshAddress(), freshAddress()];
    const client = open(t, A, null, { headers: { 'X-Forwarded-For': `${invented}, ${real}` } });
    await client.refused();
    await assertBlocked(A, real);
    assert.equal((await rawHandshake(A, { address: invented })).status, 200);
  });

  test('a listed origin may connect from another host, others may not', async (t) => {
    const node = await startNode(world, { name: 'node-origins', env: { CORS_ORIGINS: 'https://app.example' } });
    t.after(() => node.child.stop());
    const ann = await login(world);
    await connect(t, node, ann, { headers: { Origin: 'https://app.example' } });
    await connect(t, node, ann, { headers: { Origin: 'https://app.example' }, transports: ['polling', 'websocket'] });
    const answer = await rawHandshake(node, { address: freshAddress(), headers: { Origin: 'https://app.example.evil' } });
    assert.equal(answer.status, 403);
  });
});
