// The handshake table: who connects, who is blocked, and what a refusal looks like.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertBlocked, blockLeft, connect, joined, onBothTransports, open, rawHandshake, together } from '../lib/client.mjs';
import { claims, credentials, freshAddress, login, loginAgain, makeRoom, sign } from '../lib/people.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

const FIELDS = ['accessToken', 'refreshToken', 'userAgent', 'username'];

/** Access tokens that do not hold, whatever the reason. */
const INVALID_TOKENS = {
  expired: (ann) => sign(ann, { expiresIn: -3600 }),
  'signed with another key': (ann) => sign(ann, { secret: 'somebody else wrote this token, not us' }),
  'signed with an unknown key id and algorithm': (ann) => sign(ann, { header: { alg: 'RS256', kid: 'nobody' } }),
  'without a signature': (ann) => sign(ann, { header: { alg: 'none' } }).replace(/[^.]*$/, ''),
  'no token at all': () => 'garbage',
};

onBothTransports((transports) => {
  test('a valid access token connects and nothing else is sent', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    assert.ok(client.id);
    const room = await makeRoom(world, [ann]);
    await client.do('join', { roomID: room });
    assert.deepEqual(client.all('token:refresh'), []);
  });

  test('the username is compared without regard to case', async (t) => {
    const ann = await login(world);
    await connect(t, A, ann, { transports, auth: { username: ann.username.toUpperCase() } });
  });

  for (const field of FIELDS) {
    test(`a handshake without ${field} bans the address on every node`, async (t) => {
      const ann = await login(world);
      const client = open(t, A, ann, { transports, auth: { [field]: undefined } });
      assert.equal((await client.refused()).message, "you're banned");
      await assertBlocked(A, client.address);
      await assertBlocked(B, client.address);
      const again = open(t, A, ann, { transports, address: client.address });
      const error = await again.refused();
      assert.match(error.message, /xhr poll error|websocket error/, 'a refusal before the upgrade is a transport error');
      await connect(t, A, ann, { transports });
    });
  }

  test('a handshake without any field bans the address', async (t) => {
    const client = open(t, A, null, { transports });
    assert.equal((await client.refused()).message, "you're banned");
    await assertBlocked(A, client.address);
  });

  test('a field that is null counts as missing', async (t) => {
    const ann = await login(world);
    const client = open(t, A, ann, { transports, auth: { refreshToken: null } });
    assert.equal((await client.refused()).message, "you're banned");
    await assertBlocked(A, client.address);
  });

  test('a user agent without the app bans the address', async (t) => {
    const ann = await login(world);
    const client = open(t, A, ann, { transports, auth: { userAgent: 'Mozilla/5.0 (a browser)' } });
    assert.equal((await client.refused()).message, "you're banned");
    await assertBlocked(A, client.address);
    await assertBlocked(B, client.address);
  });

  test("a valid token with another user's name bans the login but not the address", async (t) => {
    const [ann, bob] = await Promise.all([login(world), login(world)]);
    const client = open(t, A, ann, { transports, auth: { username: bob.username } });
    assert.equal((await client.refused()).message, "you're banned");
    for (const node of [A, B]) {
      const again = open(t, node, ann, { transports });
      assert.equal((await again.refused()).message, "you're banned", 'the same login from another address');
    }
    await connect(t, A, bob, { transports, address: client.address });
    await connect(t, A, await loginAgain(world, ann), { transports });
  });

  for (const [what, make] of Object.entries(INVALID_TOKENS)) {
    test(`an access token ${what} is exchanged with the refresh token`, async (t) => {
      const ann = await login(world);
      const client = await connect(t, A, ann, { transports, auth: { accessToken: make(ann) } });
      const [answer] = await client.expect('token:refresh');
      assert.deepEqual(Object.keys(answer), ['accessToken'], 'an old client never learns a new refresh token');
      assert.equal(claims(answer.accessToken).platformid, ann.platformid);
      await connect(t, B, { ...ann, accessToken: answer.accessToken }, { transports });
      // Not rotated: the old one still works.
      const again = await connect(t, B, ann, { transports, auth: { accessToken: make(ann) } });
      await again.expect('token:refresh');
    });
  }

  test("another user's refresh token is refused and blocked", async (t) => {
    const [ann, bob] = await Promise.all([login(world), login(world)]);
    const auth = { accessToken: sign(ann, { expiresIn: -3600 }), refreshToken: bob.refreshToken };
    const client = open(t, A, ann, { transports, auth });
    assert.equal((await client.refused()).message, 'Invalid refresh token');
    const again = open(t, B, ann, { transports, auth, address: client.address });
    assert.match((await again.refused()).message, /you're banned|xhr poll error|websocket error/, 'a block followed');
  });

  test('a refresh token that the auth service refuses blocks the address', async (t) => {
    const ann = await login(world);
    const auth = { accessToken: 'garbage', refreshToken: 'unknown' };
    const client = open(t, A, ann, { transports, auth });
    assert.equal((await client.refused()).message, 'Token refresh failed');
    await assertBlocked(A, client.address);
    await assertBlocked(B, client.address);
  });

  test('a foreign origin is refused without a strike', async (t) => {
    const ann = await login(world);
    const address = freshAddress();
    const headers = { Origin: 'https://evil.example' };
    for (let attempt = 0; attempt < 3; attempt += 1) {
      for (const upgrade of [false, true]) {
        const answer = await rawHandshake(A, { address, upgrade, headers });
        assert.equal(answer.status, 403);
        assert.equal(typeof JSON.parse(answer.body).code, 'string', answer.body);
      }
    }
    const client = open(t, A, ann, { transports, address, headers });
    await client.refused();
    await connect(t, A, ann, { transports, address });
  });

  test('the own origin is allowed', async (t) => {
    const ann = await login(world);
    await connect(t, A, ann, { transports, headers: { Origin: A.url } });
  });

  test('attempts during a block do not prolong it', async (t) => {
    const address = freshAddress();
    const client = open(t, A, null, { transports, address });
    await client.refused();
    const first = await blockLeft(A, address);
    assert.ok(first > 0 && first <= 60, `blocked for ${first} s`);
    const end = Date.now() + 3_000;
    let last = first;
    while (Date.now() < end) {
      const again = open(t, A, null, { transports, address });
      await again.refused();
      const left = await blockLeft(A, address);
      assert.ok(left <= last, `the block went from ${last} to ${left} s`);
      last = left;
    }
    assert.ok(last < first, `the block does not run down: ${first} s, later ${last} s`);
  });

  test('a protocol 2 client gets every refusal as JSON', async (t) => {
    const [ann, bob] = await Promise.all([login(world), login(world)]);
    const proto = { proto: 2 };
    const cases = [
      [{ ...proto, userAgent: 'something else' }, "you're banned"],
      [{ ...proto, accessToken: 'garbage', refreshToken: 'unknown' }, 'Token refresh failed'],
      [{ ...proto, accessToken: 'garbage', refreshToken: bob.refreshToken }, 'Invalid refresh token'],
      [{ ...proto, username: bob.username }, "you're banned"],
    ];
    for (const [auth, text] of cases) {
      const client = open(t, A, ann, { transports, auth });
      const error = JSON.parse((await client.refused()).message);
      assert.equal(typeof error.code, 'string');
      assert.equal(error.message, text);
      if (error.retryAfterMs !== undefined) assert.ok(error.retryAfterMs > 0);
    }
  });

  test('a join in the same tick as connect is never lost', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const clients = Array.from({ length: 15 }, (_, i) => {
      const client = open(t, world.nodes[i % 2], ann, { transports });
      client.socket.once('connect', () => client.send('join', { roomID: room }));
      return client;
    });
    for (const client of clients) {
      const [messages] = await client.expect('previousMessages');
      assert.deepEqual(messages, []);
    }
  });

  test('events emitted before the handshake is done arrive in order', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = open(t, A, ann, { transports });
    const answers = [client.ask('join', { roomID: room })];
    for (let n = 0; n < 5; n += 1) answers.push(client.ask('message', { roomID: room, message: `${n}` }));
    const [join, ...acks] = await Promise.all(answers);
    assert.equal(join.ok, true);
    assert.deepEqual(acks.map(({ seq }) => seq), [1, 2, 3, 4, 5]);
  });
});

together('the transport', () => {
  test('polling alone is enough to chat', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports: ['polling'] });
    const { id } = await client.do('message', { roomID: room, message: 'over polling' });
    await client.expect('message', (message) => message.id === id);
    assert.equal(client.socket.io.engine.transport.name, 'polling');
  });

  test('a client that starts with polling is upgraded', async (t) => {
    const client = await connect(t, A, await login(world), { transports: ['polling', 'websocket'] });
    const { engine } = client.socket.io;
    if (engine.transport.name !== 'websocket') await new Promise((done) => { engine.once('upgrade', done); });
    assert.equal(engine.transport.name, 'websocket');
    assert.ok(client.socket.connected);
  });

  test('a busy room stays in order while a member is upgraded', async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const writer = await joined(t, A, bob, room);
    const marks = [];
    const reader = open(t, A, ann, { transports: ['polling', 'websocket'] });
    reader.socket.io.on('open', () => {
      reader.socket.io.engine.on('packet', ({ data }) => {
        if (String(data).startsWith('32147483647[')) marks.push(data);
      });
    });
    await reader.next(['connect']);
    const joining = reader.do('join', { roomID: room });
    const { engine } = reader.socket.io;
    let upgraded = engine.transport.name === 'websocket';
    engine.once('upgrade', () => { upgraded = true; });
    let count = 0;
    for (let after = 0; after < 30; count += 1) {
      await writer.do('message', { roomID: room, message: `number ${count}` });
      if (upgraded) after += 1;
    }
    await joining;
    const [previous] = await reader.expect('previousMessages');
    await reader.expect('message', ({ message }) => message === `number ${count - 1}`);
    const seen = [...previous, ...reader.all('message').map(([message]) => message)].map(({ message }) => message);
    assert.deepEqual(seen, Array.from({ length: count }, (_, number) => `number ${number}`));
    assert.equal(marks.length, 1, 'what goes to the websocket directly begins behind one mark');
  });

  test('the handshake names a ping every 30 s and a timeout of 60 s', async () => {
    const answer = await rawHandshake(A, { address: freshAddress() });
    assert.equal(answer.status, 200);
    const { pingInterval, pingTimeout, upgrades } = JSON.parse(answer.body.slice(1));
    assert.deepEqual({ pingInterval, pingTimeout, upgrades }, { pingInterval: 30_000, pingTimeout: 60_000, upgrades: ['websocket'] });
  });

  test('the seeded users of the reference services can log in and chat', async (t) => {
    const [first, other] = await Promise.all([login(world, 'user0'), login(world, 'user20')]);
    assert.deepEqual([first.platformid, other.platformid], ['p0', 'p20']);
    const [one, two] = [await joined(t, A, first, 'room-0'), await joined(t, B, other, 'room-0')];
    const { id } = await one.do('message', { roomID: 'room-0', message: 'hello' });
    await two.expect('message', (message) => message.id === id);
  });

  test('tokens in the query are not looked at', async (t) => {
    const ann = await login(world);
    const query = new URLSearchParams(credentials(ann));
    const node = { url: `${A.url}/?${query}` };
    const client = open(t, node, null);
    assert.equal((await client.refused()).message, "you're banned");
  });
});
