// `syncRooms`: many rooms at once, in parallel up to ten and as a batch above.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, assertRefused, connect, joined, onBothTransports, open } from '../lib/client.mjs';
import { freshRoom, login, makeRoom } from '../lib/people.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

/** Rooms of ann and bob with three messages each, as ann wrote them. */
async function roomsWithMessages(t, transports, count) {
  const [ann, bob] = [await login(world), await login(world)];
  const rooms = await Promise.all(Array.from({ length: count }, () => makeRoom(world, [ann, bob])));
  const writer = await connect(t, A, ann, { transports });
  const acks = new Map();
  for (const roomID of rooms) {
    await writer.do('join', { roomID });
    acks.set(roomID, await Promise.all(['1', '2', '3'].map((n) => writer.do('message', { roomID, message: `${roomID} ${n}` }))));
  }
  const reader = await connect(t, B, bob, { transports });
  return { bob, rooms, acks, reader };
}

function assertSynced(answer, wanted) {
  assert.deepEqual(answer.map(({ roomId }) => roomId), wanted.map(([roomId]) => roomId));
  for (const [index, [roomId, numbers]] of wanted.entries()) {
    assert.deepEqual(answer[index].messages.map(({ message }) => message), numbers.map((n) => `${roomId} ${n}`));
  }
}

onBothTransports((transports) => {
  test('up to ten rooms answer as syncRoomsResponse, from each timestamp on', async (t) => {
    const { bob, rooms, acks, reader } = await roomsWithMessages(t, transports, 10);
    const asked = rooms.map((roomId, index) => {
      const { ts } = acks.get(roomId)[index % 3];
      const forms = [{}, { timestamp: ts }, { timestamp: String(ts) }, { timestamp: new Date(ts).toISOString() }];
      return { roomId, ...forms[index % 4] };
    });
    reader.send('syncRooms', { platformid: bob.platformid, platformId: bob.platformid, rooms: asked });
    const [answer] = await reader.expect('syncRoomsResponse');
    assertSynced(answer, asked.map(({ roomId, timestamp }, index) => [roomId, [1, 2, 3].slice(timestamp ? (index % 3) + 1 : 0)]));
    assert.deepEqual(reader.all('updatedRooms'), []);
    const [message] = answer[0].messages;
    assert.equal(typeof message.timestamp, 'number');
    assert.equal(message.roomID, rooms[0]);
  });

  test('eleven rooms answer as one batch, updatedRooms', async (t) => {
    const { bob, rooms, acks, reader } = await roomsWithMessages(t, transports, 11);
    const asked = rooms.map((roomId) => ({ roomId, timestamp: acks.get(roomId)[1].ts }));
    reader.send('syncRooms', { platformId: bob.platformid, rooms: asked });
    const [answer] = await reader.expect('updatedRooms');
    assertSynced(answer, rooms.map((roomId) => [roomId, [3]]));
    assert.deepEqual(reader.all('syncRoomsResponse'), []);
  });

  test('no rooms are an empty answer', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    client.send('syncRooms', { platformId: ann.platformid, rooms: [] });
    assert.deepEqual(await client.expect('syncRoomsResponse'), [[]]);
  });

  test('the messages are folded', async (t) => {
    const { bob, rooms: [room], acks, reader } = await roomsWithMessages(t, transports, 1);
    await reader.do('join', { roomID: room });
    const { id } = await reader.do('message', { roomID: room, message: 'mine' });
    await reader.do('editMessage', { roomID: room, id, message: `${room} edited` });
    const other = await reader.do('message', { roomID: room, message: 'deleted' });
    await reader.do('deleteMessage', { roomID: room, id: other.id });
    reader.send('syncRooms', { platformId: bob.platformid, rooms: [{ roomId: room, timestamp: acks.get(room)[2].ts }] });
    assertSynced((await reader.expect('syncRoomsResponse'))[0], [[room, ['edited']]]);
  });

  test('2000 rooms are too many, with and without an ack', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    const rooms = Array.from({ length: 2_000 }, (_, n) => ({ roomId: `x-${n}` }));
    await assertRefused(client, 'syncRooms', { platformId: ann.platformid, rooms }, 'too_many_rooms');
    const barely = rooms.slice(0, 1_001);
    assertError(await client.ask('syncRooms', { platformId: ann.platformid, rooms: barely }), 'too_many_rooms', '1001 rooms');
    assert.ok(client.socket.connected);
  });

  test('a missing platformId is cut and blocked', async (t) => {
    const ann = await login(world);
    const room = await makeRoom(world, [ann]);
    const client = await joined(t, A, ann, room, { transports });
    const sibling = await connect(t, B, ann, { transports });
    client.send('syncRooms', { rooms: [{ roomId: room }] });
    await client.ended();
    await sibling.ended();
    assert.deepEqual(client.all('syncRoomsResponse'), []);
    const again = open(t, B, ann, { transports });
    assert.equal((await again.refused()).message, "you're banned");
  });

  test("another user's platformId is refused", async (t) => {
    const [ann, bob] = [await login(world), await login(world)];
    const room = await makeRoom(world, [ann, bob]);
    const client = await connect(t, A, ann, { transports });
    const answer = await client.ask('syncRooms', { platformId: bob.platformid, rooms: [{ roomId: room }] });
    assert.equal(typeof answer?.code, 'string', JSON.stringify(answer));
    assert.deepEqual(client.all('syncRoomsResponse'), []);
  });

  test('a room of others is not disclosed, alone or among own ones', async (t) => {
    const { bob, rooms: [room], reader } = await roomsWithMessages(t, transports, 1);
    const stranger = await login(world);
    const own = await makeRoom(world, [stranger]);
    const client = await connect(t, A, stranger, { transports });
    for (const rooms of [[{ roomId: room }], [{ roomId: own }, { roomId: room }], [{ roomId: freshRoom() }]]) {
      client.send('syncRooms', { platformId: stranger.platformid, rooms });
      const [error] = await client.expect('errorMessage', ({ event }) => event === 'syncRooms');
      assertError(error, 'not_member', JSON.stringify(rooms));
    }
    assert.ok(!JSON.stringify(client.record).includes(`${room} 1`), client.story());
    reader.send('syncRooms', { platformId: bob.platformid, rooms: [{ roomId: room }] });
    await reader.expect('syncRoomsResponse');
  });

  test('rooms that are no list of rooms are bad_payload', async (t) => {
    const ann = await login(world);
    const client = await connect(t, A, ann, { transports });
    for (const rooms of [undefined, null, 'all', 7, {}, [null], ['room'], [{}], [{ roomId: {} }], [{ roomId: 'a{b}' }], [{ roomId: 'x', timestamp: true }]]) {
      await assertRefused(client, 'syncRooms', { platformId: ann.platformid, rooms }, 'bad_payload');
    }
  });
});
