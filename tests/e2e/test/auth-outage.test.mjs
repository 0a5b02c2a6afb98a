// An outage of the auth service refuses a handshake and never blocks; each of its refusals does.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { assertBlocked, blockLeft, connect, onBothTransports, open, rawHandshake, together } from '../lib/client.mjs';
import { freshAddress, login, loginAgain, sign } from '../lib/people.mjs';
import { fault } from '../lib/proxy.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld, startNode } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

/** How a service may fail without refusing anybody. */
const OUTAGES = {
  'answers 503': { act: 'answer', status: 503 },
  'answers 500': { act: 'answer', status: 500 },
  'answers 404': { act: 'answer', status: 404 },
  'answers 429': { act: 'answer', status: 429 },
  redirects: { act: 'answer', status: 302, headers: { location: 'http://127.0.0.1:1/' } },
  hangs: { act: 'hang' },
  'cuts the connection': { act: 'cut' },
  'answers garbage': { act: 'answer', body: '<html>maintenance</html>' },
  'answers another shape': { act: 'answer', body: '{"ok":true}' },
};

/** Asserts that a handshake was refused for an outage, in both dialects, and that the next good one connects. */
async function assertOutage(t, node, person, { transports, auth, address, broken, repaired = auth }) {
  const old = open(t, node, person, { transports, auth, address });
  const proto2 = open(t, node, person, { transports, auth: { ...auth, proto: 2 }, address });
  assert.equal((await old.refused()).message, 'auth_unavailable');
  const error = JSON.parse((await proto2.refused()).message);
  assert.equal(error.code, 'auth_unavailable');
  assert.ok(error.retryAfterMs > 0, JSON.stringify(error));
  assert.equal(await blockLeft(A, address), undefined, 'an outage blocks nobody');
  await broken.clear();
  return connect(t, node, person, { transports, auth: repaired, address });
}

onBothTransports((transports) => {
  for (const [what, rule] of Object.entries(OUTAGES)) {
    test(`a refresh service that ${what} refuses the handshake and blocks nobody`, async (t) => {
      const ann = await login(world);
      const broken = await fault(t, world.proxy, { path: '/refresh-token', match: ann.refreshToken, ...rule });
      const auth = { accessToken: sign(ann, { expiresIn: -3600 }) };
      const client = await assertOutage(t, A, ann, { transports, auth, address: freshAddress(), broken });
      await client.expect('token:refresh');
    });
  }

  test('a new access token that does not hold is an outage of the service that issued it', async (t) => {
    const ann = await login(world);
    const body = JSON.stringify({ accessToken: 'garbage', user: { platformid: ann.platformid, username: ann.username } });
    const broken = await fault(t, world.proxy, { path: '/refresh-token', match: ann.refreshToken, act: 'answer', body });
    await assertOutage(t, A, ann, { transports, auth: { accessToken: 'expired' }, address: freshAddress(), broken });
  });

  for (const status of [400, 401, 403]) {
    test(`a refresh service that answers ${status} has refused the user`, async (t) => {
      const ann = await login(world);
      await fault(t, world.proxy, { path: '/refresh-token', match: ann.refreshToken, act: 'answer', status });
      const client = open(t, A, ann, { transports, auth: { accessToken: 'garbage' } });
      assert.equal((await client.refused()).message, 'Token refresh failed');
      await assertBlocked(A, client.address);
      await assertBlocked(B, client.address);
    });
  }

  test('a valid access token connects while the auth service is away', async (t) => {
    const ann = await login(world);
    await fault(t, world.proxy, { path: '/refresh-token', match: ann.refreshToken, act: 'cut' });
    await connect(t, A, ann, { transports });
  });
});

describe('with tokens verified by the auth service', { concurrency: 6 }, () => {
  let node;
  before(async () => {
    node = await startNode(world, { name: 'node-http', env: { AUTH_MODE: 'http', JWT_SECRET: undefined } });
  });
  after(() => node?.child.stop());

  const verify = (t, person, rule) => fault(t, world.proxy, { path: '/verify-access-token', match: person.accessToken, ...rule });

  test('a valid token connects', async (t) => {
    const ann = await login(world);
    const client = await connect(t, node, ann);
    assert.ok(client.id);
  });

  for (const [what, rule] of Object.entries(OUTAGES)) {
    test(`a service that ${what} refuses the handshake and blocks nobody`, async (t) => {
      const ann = await login(world);
      const broken = await verify(t, ann, rule);
      await assertOutage(t, node, ann, { auth: {}, address: freshAddress(), broken });
    });
  }

  const INVALID = {
    'answers 401': { act: 'answer', status: 401 },
    'answers 400': { act: 'answer', status: 400 },
    'answers 403': { act: 'answer', status: 403 },
    'says that the token is not valid': { act: 'answer', body: '{"valid":false}' },
  };
  for (const [what, rule] of Object.entries(INVALID)) {
    test(`a token of which the service ${what} is exchanged`, async (t) => {
      const ann = await login(world);
      // One of its own: what the service issues within a second is the same token again.
      const old = sign(ann);
      await verify(t, { accessToken: old }, rule);
      const client = await connect(t, node, ann, { auth: { accessToken: old } });
      const [{ accessToken }] = await client.expect('token:refresh');
      assert.notEqual(accessToken, old);
    });
  }

  test('a token of another user than the username bans the login', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const client = open(t, node, ann, { auth: { username: bob.username } });
    assert.equal((await client.refused()).message, "you're banned");
    await connect(t, node, await loginAgain(world, ann), { address: client.address });
  });
});

together('with a key set', () => {
  const KEYS = '/e2e-jwks.json';

  for (const [what, rule] of Object.entries({ 'is away': OUTAGES['answers 503'], 'is garbage': OUTAGES['answers garbage'] })) {
    test(`a key set that ${what} refuses the handshake and blocks nobody`, async (t) => {
      const path = `${KEYS}-${what.replace(' ', '-')}`;
      await fault(t, world.proxy, { path, ...rule });
      const env = { JWT_SECRET: undefined, JWKS_URL: `${world.proxy}${path}` };
      const node = await startNode(world, { name: `node-jwks-${what.replace(' ', '-')}`, env, probe: 'livez' });
      t.after(() => node.child.stop());
      const ann = await login(world);
      const address = freshAddress();
      await until('the node takes handshakes', async () => (await rawHandshake(node, { address })).status === 200);
      const client = open(t, node, ann, { address });
      assert.equal((await client.refused()).message, 'auth_unavailable');
      await connect(t, A, ann, { address });
    });
  }
});
