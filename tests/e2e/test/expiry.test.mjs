// What a client sees when its login ends: an access token that expired, a session that was ended.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { POLLING, UPGRADE, WEBSOCKET, blockLeft, connect, joined, open, together } from '../lib/client.mjs';
import { claims, login, loginAgain, makeRoom, post, sign } from '../lib/people.mjs';
import { until } from '../lib/wait.mjs';
import { ADMIN_TOKEN, sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

/** A token with two seconds left: 60 s of clock difference are tolerated. */
const ending = (person) => sign(person, { expiresIn: -58 });
const endOf = (token) => (claims(token).exp + 60) * 1000;

/** What an old application does: after every connect it joins from the newest message it has shown. */
function chatAsOldApplicationsDo(client, roomID) {
  const shown = new Map();
  const show = (message) => { if (!shown.has(message.id)) shown.set(message.id, message); };
  client.socket.on('connect', () => {
    const lastmessage = [...shown.values()].at(-1)?.timestamp;
    client.send('join', { roomID, lastmessage });
  });
  client.socket.on('previousMessages', (messages) => messages.forEach(show));
  client.socket.on('message', show);
  return shown;
}

together('a token that expires', () => {
  const TRANSPORTS = { websocket: WEBSOCKET, 'polling with upgrade': UPGRADE, 'polling alone': POLLING };
  for (const [over, transports] of Object.entries(TRANSPORTS)) {
    test(`makes an old client over ${over} reconnect by itself, and it misses nothing`, async (t) => {
      const [ann, bob] = [await login(world), await login(world)];
      const room = await makeRoom(world, [ann, bob]);
      const writer = await joined(t, B, bob, room);
      const accessToken = ending(ann);
      const client = open(t, A, ann, { transports, auth: { accessToken }, reconnection: true, autoConnect: false });
      const shown = chatAsOldApplicationsDo(client, room);
      client.socket.connect();
      await client.expect('previousMessages');

      const sent = [];
      const write = async () => {
        const message = `${sent.length}`;
        sent.push(message);
        await writer.do('message', { roomID: room, message });
      };
      let ended;
      const end = client.ended().then((reason) => { ended = { reason, at: Date.now() }; });
      await until('the connection ends', async () => { await write(); return ended; });
      await end;
      assert.ok(['transport close', 'transport error'].includes(ended.reason), `the client stays away: ${ended.reason}`);
      const late = ended.at - endOf(accessToken);
      assert.ok(late > 0 && late < 2_000, `cut ${late} ms after the end of the token`);
      assert.deepEqual(client.all('security:notice').map(([{ code }]) => code), ['auth_expired']);

      const back = client.expect('token:refresh');
      let isBack = false;
      back.then(() => { isBack = true; }, () => {});
      await until('the client is back', async () => { await write(); return isBack; });
      const [{ accessToken: renewed }] = await back;
      assert.equal(claims(renewed).platformid, ann.platformid);
      for (let more = 0; more < 3; more += 1) await write();
      await until('everything is shown', () => shown.size === sent.length);
      assert.deepEqual([...shown.values()].map(({ message }) => message), sent);
      assert.equal(await blockLeft(A, client.address), undefined, 'an end is no block');
    });
  }

  test('cuts nobody who asked for a new one in time', async (t) => {
    const ann = await login(world);
    const accessToken = ending(ann);
    const [asks, sleeps] = [await connect(t, A, ann, { auth: { accessToken } }), await connect(t, A, ann, { auth: { accessToken } })];
    await asks.do('refreshToken');
    await asks.expect('token:refresh');
    await sleeps.ended();
    await until('the time for a cut is over', () => Date.now() > endOf(accessToken) + 2_000);
    assert.ok(asks.socket.connected);
    assert.deepEqual(asks.all('security:notice'), []);
  });
});

together('a login that is ended', () => {
  test('is gone from every node within two seconds, and does not come back', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const other = await joined(t, B, await loginAgain(world, ann), room);
    const { sid } = claims(ann.accessToken);
    const clients = [await connect(t, A, ann), await connect(t, B, ann), await connect(t, B, ann, { transports: POLLING })];
    const started = Date.now();
    await post(world.proxy, '/logout', { refreshToken: ann.refreshToken });
    const answer = await fetch(`http://127.0.0.1:${A.opsPort}/admin/revoke`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_TOKEN}` },
      body: JSON.stringify({ sid }),
    });
    assert.equal(answer.status, 200);
    for (const client of clients) {
      const [{ code }] = await client.expect('security:notice');
      assert.equal(code, 'revoked');
      await client.ended();
    }
    assert.ok(Date.now() - started < 2_000, `${Date.now() - started} ms`);
    for (const node of [A, B]) assert.equal((await open(t, node, ann).refused()).message, "you're banned");
    await other.do('message', { roomID: room, message: 'another login of mine' });
  });
});
