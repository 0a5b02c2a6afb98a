// The `refreshToken` event: new tokens, and the limit that blocks an address.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { POLLING, UPGRADE, assertBlocked, assertError, connect, onBothTransports, open, together } from '../lib/client.mjs';
import { claims, freshAddress, login, loginAgain } from '../lib/people.mjs';
import { fault, watch } from '../lib/proxy.mjs';
import { redis } from '../lib/redis.mjs';
import { until } from '../lib/wait.mjs';
import { sharedWorld, startNode } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;
const LIMIT = 120;

onBothTransports((transports) => {
  test('refreshToken answers with a new access token that works', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    client.send('refreshToken');
    const [answer] = await client.expect('token:refresh');
    assert.deepEqual(Object.keys(answer), ['accessToken']);
    assert.equal(claims(answer.accessToken).platformid, ann.platformid);
    await connect(t, B, { ...ann, accessToken: answer.accessToken }, { transports });
    client.send('refreshToken');
    await client.expect('token:refresh');
    const key = `tokenRequests:${client.address}`;
    assert.equal(await redis(world.redisPort, 'GET', key), '2');
    const ttl = await redis(world.redisPort, 'TTL', key);
    assert.ok(ttl > 0 && ttl <= 60, `${ttl} s`);
  });

  test('a protocol 2 client gets rotated refresh tokens, and the newest one is used', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports, auth: { proto: 2 } });
    const given = [ann.refreshToken];
    for (let n = 0; n < 3; n += 1) {
      const calls = await watch(t, world.proxy, { path: '/refresh-token', match: given.at(-1) });
      client.send('refreshToken');
      const [{ refreshToken }] = await client.expect('token:refresh');
      assert.equal(typeof refreshToken, 'string');
      assert.ok(!given.includes(refreshToken));
      assert.equal((await calls.requests()).length, 1, 'asked with the newest token');
      given.push(refreshToken);
    }
  });

  test('with the auth service away refreshToken answers auth_unavailable and the socket stays', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    const away = await fault(t, world.proxy, { path: '/refresh-token', match: ann.refreshToken, act: 'answer', status: 503 });
    client.send('refreshToken');
    const [error] = await client.expect('errorMessage', ({ event }) => event === 'refreshToken');
    assertError(error, 'auth_unavailable', 'refreshToken');
    assert.ok(error.retryAfterMs > 0);
    await away.clear();
    client.send('refreshToken');
    await client.expect('token:refresh');
    assert.ok(client.socket.connected);
  });

  test('a counter that lost its expiry gets one again', async (t) => {
    const client = await connect(t, A, await login(world), { transports });
    const key = `tokenRequests:${client.address}`;
    await redis(world.redisPort, 'SET', key, 3);
    client.send('refreshToken');
    await client.expect('token:refresh');
    assert.equal(await redis(world.redisPort, 'GET', key), '4');
    assert.ok((await redis(world.redisPort, 'TTL', key)) > 0);
  });

  test('the 121st refreshToken blocks the address and cuts its sockets on every node', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const address = freshAddress();
    const greedy = await connect(t, A, ann, { transports, address });
    const neighbour = await connect(t, B, bob, { transports, address });
    const elsewhere = await connect(t, B, ann, { transports });
    for (let n = 0; n < LIMIT; n += 1) greedy.send('refreshToken');
    await until(`${LIMIT} are answered`, () => greedy.all('token:refresh').length === LIMIT, 40_000);
    assert.ok(greedy.socket.connected && neighbour.socket.connected);
    greedy.send('refreshToken');
    await greedy.ended();
    await neighbour.ended();
    assert.equal(greedy.all('token:refresh').length, LIMIT);
    await assertBlocked(A, address);
    await assertBlocked(B, address);
    assert.ok(elsewhere.socket.connected, 'the user is not blocked elsewhere');
    await connect(t, A, await loginAgain(world, ann), { transports });
  });
});

together('an abusive socket is cut', () => {
  /** Does what blocks a login at once. */
  const misbehave = (client) => client.send('syncRooms', { rooms: [] });

  test('and a protocol 2 client is told why before', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { auth: { proto: 2 } });
    misbehave(client);
    const [notice] = await client.expect('security:notice');
    assert.equal(typeof notice.code, 'string');
    assert.equal(typeof notice.message, 'string');
    await client.ended();
    const again = open(t, A, ann, { auth: { proto: 2 } });
    assert.equal(JSON.parse((await again.refused()).message).message, "you're banned");
  });

  test('when it only polls, and so are its siblings on other nodes', async (t) => {
    const ann = await login(world);
    const [one, two] = [await connect(t, A, ann, { transports: POLLING }), await connect(t, B, ann, { transports: POLLING })];
    misbehave(one);
    await one.ended();
    await two.ended();
  });

  test('when its transport was upgraded before it connected', async (t) => {
    const ann = await login(world);
    const client = open(t, A, ann, { transports: UPGRADE, autoConnect: false });
    const { io } = client.socket;
    await new Promise((done, failed) => { io.open((error) => (error ? failed(error) : done())); });
    await new Promise((done) => { io.engine.once('upgrade', done); });
    client.socket.connect();
    await client.expect('connect');
    misbehave(client);
    await client.ended();
  });
});

together('settings of the guard', () => {
  test('GUARD_TOKEN_REQUESTS_SCOPE=session blocks the login and not the address', async (t) => {
    const env = { GUARD_TOKEN_REQUESTS: '3', GUARD_TOKEN_REQUESTS_SCOPE: 'session' };
    const node = await startNode(world, { name: 'node-session-scope', env });
    t.after(() => node.child.stop());
    const [ann, bob] = [await login(world), await login(world)];
    const greedy = await connect(t, node, ann);
    const neighbour = await connect(t, node, bob, { address: greedy.address });
    for (let n = 0; n < 4; n += 1) greedy.send('refreshToken');
    await greedy.ended();
    assert.equal(greedy.all('token:refresh').length, 3);
    assert.equal((await open(t, A, ann).refused()).message, "you're banned");
    await connect(t, A, await loginAgain(world, ann), { address: greedy.address });
    assert.ok(neighbour.socket.connected);
  });

  test('an address in GUARD_ALLOW is never blocked', async (t) => {
    const address = freshAddress();
    const node = await startNode(world, { name: 'node-allow', env: { GUARD_ALLOW: `${address}/32`, GUARD_TOKEN_REQUESTS: '3' } });
    t.after(() => node.child.stop());
    const ann = await login(world);
    assert.equal((await open(t, node, null, { address }).refused()).message, "you're banned");
    const client = await connect(t, node, ann, { address });
    for (let n = 0; n < 5; n += 1) client.send('refreshToken');
    await until('all are answered', () => client.all('token:refresh').length + client.all('errorMessage').length === 5);
    assert.ok(client.socket.connected);
  });

  test('VISION_APP_INFO may be a regular expression', async (t) => {
    const node = await startNode(world, { name: 'node-app', env: { VISION_APP_INFO: 're:^Vision/[0-9]+$' } });
    t.after(() => node.child.stop());
    const ann = await login(world);
    await connect(t, node, ann, { auth: { userAgent: 'Vision/12' } });
    const other = open(t, node, ann, { auth: { userAgent: 'Vision/12 or so' } });
    assert.equal((await other.refused()).message, "you're banned");
  });

  for (const missing of ['VISION_APP_INFO', 'AUTH_URL', 'API_URL', 'JWT_SECRET']) {
    test(`a node without ${missing} does not start`, async () => {
      await assert.rejects(startNode(world, { name: `node-without-${missing}`, env: { [missing]: undefined } }), (error) => {
        assert.match(error.message, /"code":64/);
        assert.ok(error.message.includes(missing), error.message);
        return true;
      });
    });
  }
});
