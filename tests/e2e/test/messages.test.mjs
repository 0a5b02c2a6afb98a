// `message`, `editMessage`, `deleteMessage`: what everybody in the room sees.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertError, assertRefused, connect, joined, onBothTransports } from '../lib/client.mjs';
import { freshRoom, login, makeRoom } from '../lib/people.mjs';
import { sharedWorld } from '../lib/world.mjs';

const world = sharedWorld();
const [A, B] = world.nodes;

/** Two people in a room, one on each node. */
async function pair(t, transports, more = {}) {
  const [ann, bob] = [await login(world), await login(world)];
  const room = await makeRoom(world, [ann, bob], typeof more === 'function' ? more(ann, bob) : more);
  const [onA, onB] = await Promise.all([joined(t, A, ann, room, { transports }), joined(t, B, bob, room, { transports })]);
  return { ann, bob, room, onA, onB };
}

onBothTransports((transports) => {
  test('a message reaches both nodes with every field the server writes', async (t) => {
    const { ann, room, onA, onB } = await pair(t, transports);
    const own = { colour: 'red', nested: { list: [1, 2.5, null, { deep: true }] }, '키': '값 😀' };
    const ack = await onA.do('message', { roomID: room, message: 'hello 😀 "quoted"\n', ...own });
    assert.deepEqual(Object.keys(ack).toSorted(), ['dup', 'epoch', 'id', 'ok', 'seq', 'ts']);
    assert.equal(ack.dup, false);
    const [seen] = await onB.expect('message');
    const [echo] = await onA.expect('message');
    assert.deepEqual(echo, seen, 'the sender gets what the others get');
    assert.deepEqual(seen, {
      ...own,
      id: ack.id,
      roomID: room,
      platformid: ann.platformid,
      username: ann.username,
      message: 'hello 😀 "quoted"\n',
      timestamp: ack.ts,
      ts: ack.ts,
      seq: ack.seq,
      epoch: ack.epoch,
      kind: 'message',
    });
    assert.ok(Math.abs(seen.ts - Date.now()) < 60_000, 'Unix ms');
    assert.equal(typeof seen.id, 'string');
  });

  test('a message without an ack is stored and sent just the same', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    onA.send('message', { roomID: room, message: 'silent' });
    await onB.expect('message', ({ message }) => message === 'silent');
    assert.deepEqual(onA.all('errorMessage'), []);
  });

  test('messages from both nodes have one order, rising times and no holes', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const sends = Array.from({ length: 40 }, (_, n) => [onA, onB][n % 2].do('message', { roomID: room, message: `${n}` }));
    await Promise.all(sends);
    const seen = async (client) => {
      const found = [];
      while (found.length < 40) found.push((await client.expect('message'))[0]);
      return found;
    };
    const [onOne, onOther] = [await seen(onA), await seen(onB)];
    assert.deepEqual(onOne, onOther);
    assert.deepEqual(onOne.map(({ seq }) => seq), Array.from({ length: 40 }, (_, n) => n + 1));
    for (let n = 1; n < 40; n += 1) assert.ok(onOne[n].timestamp > onOne[n - 1].timestamp, 'strictly rising');
    for (const parity of [0, 1]) {
      const own = onOne.map(({ message }) => Number(message)).filter((n) => n % 2 === parity);
      assert.deepEqual(own, own.toSorted((a, b) => a - b), 'messages of one socket stay in order');
    }
  });

  test('names that belong to the server are removed from what the client sends', async (t) => {
    const { ann, room, onA, onB } = await pair(t, transports);
    const forged = { id: 'mine', seq: 99, ts: 1, epoch: 'mine', kind: 'gpt', rev: 7, timestamp: '2001-01-01T00:00:00Z' };
    const own = { platformid: ann.platformid, username: ann.username.toUpperCase() };
    const ack = await onA.do('message', { roomID: room, message: 'x', ...forged, ...own });
    const [seen] = await onB.expect('message');
    assert.deepEqual(seen, {
      roomID: room, platformid: ann.platformid, username: ann.username, message: 'x', kind: 'message',
      id: ack.id, timestamp: ack.ts, ts: ack.ts, seq: ack.seq, epoch: ack.epoch, clientTimestamp: '2001-01-01T00:00:00Z',
    });
    assert.notEqual(ack.seq, 99);
  });

  test('a repeated cid is stored once, with other content it is a conflict', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const first = await onA.do('message', { roomID: room, message: 'once', cid: 'c-1' });
    const again = await onA.do('message', { roomID: room, message: 'once', cid: 'c-1' });
    assert.deepEqual({ ...again, dup: false }, { ...first, dup: false });
    assert.equal(again.dup, true);
    assertError(await onA.ask('message', { roomID: room, message: 'other', cid: 'c-1' }), 'cid_conflict', 'message');
    await onA.do('message', { roomID: room, message: 'last' });
    await onB.expect('message', ({ message }) => message === 'last');
    assert.deepEqual(onB.all('message').map(([{ message }]) => message), ['once', 'last']);
    assert.equal(onB.all('message')[0][0].cid, 'c-1');
  });

  test('a message needs membership and a join', async (t) => {
    const { ann, room, onA } = await pair(t, transports);
    const unjoined = await connect(t, B, ann, { transports });
    await assertRefused(unjoined, 'message', { roomID: room, message: 'x' }, 'not_joined');
    await assertRefused(unjoined, 'editMessage', { roomID: room, id: '1-1', message: 'x' }, 'not_joined');
    await assertRefused(unjoined, 'deleteMessage', { roomID: room, id: '1-1' }, 'not_joined');
    for (const [event, payload] of [['message', { message: 'x' }], ['editMessage', { id: '1-1', message: 'x' }], ['deleteMessage', { id: '1-1' }]]) {
      await assertRefused(onA, event, { roomID: freshRoom(), ...payload }, 'not_member');
    }
  });

  test('the author edits, and everybody sees the new text under the old id', async (t) => {
    const { ann, room, onA, onB } = await pair(t, transports);
    const sent = await onA.do('message', { roomID: room, message: 'befor', colour: 'red' });
    const ack = await onA.do('editMessage', { roomID: room, id: sent.id, message: 'before', seq: 5, kind: 'message' });
    for (const client of [onA, onB]) {
      const [edit] = await client.expect('editMessage');
      assert.equal(edit.id, sent.id);
      assert.equal(edit.message, 'before');
      assert.equal(edit.kind, 'edit');
      assert.equal(edit.seq, sent.seq + 1);
      assert.equal(edit.rev, edit.seq);
      assert.equal(edit.seq, ack.seq);
      assert.equal(edit.timestamp, ack.ts);
      assert.ok(edit.timestamp > sent.ts);
      assert.deepEqual([edit.roomID, edit.platformid, edit.username], [room, ann.platformid, ann.username]);
    }
  });

  test('nobody else edits, not even the owner of the room', async (t) => {
    const { room, onA, onB } = await pair(t, transports, (_, bob) => ({ owner: bob.platformid }));
    const { id } = await onA.do('message', { roomID: room, message: 'mine' });
    await assertRefused(onB, 'editMessage', { roomID: room, id, message: 'yours' }, 'not_author');
    await onA.do('editMessage', { roomID: room, id, message: 'still mine' });
    const [edit] = await onB.expect('editMessage');
    assert.equal(edit.message, 'still mine');
  });

  test('the author deletes; afterwards there is nothing to edit or delete', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const sent = await onA.do('message', { roomID: room, message: 'gone soon' });
    await onA.do('deleteMessage', { roomID: room, id: sent.id });
    for (const client of [onA, onB]) {
      const [deletion] = await client.expect('deleteMessage');
      assert.deepEqual([deletion.id, deletion.roomID, deletion.kind, deletion.seq], [sent.id, room, 'delete', sent.seq + 1]);
    }
    await assertRefused(onA, 'editMessage', { roomID: room, id: sent.id, message: 'x' }, 'not_found');
    await assertRefused(onA, 'deleteMessage', { roomID: room, id: sent.id }, 'not_found');
  });

  test('somebody else deletes only as the owner of the room', async (t) => {
    const { room, onA, onB } = await pair(t, transports, (ann) => ({ owner: ann.platformid }));
    const ofOwner = await onA.do('message', { roomID: room, message: 'of the owner' });
    const ofGuest = await onB.do('message', { roomID: room, message: 'of the guest' });
    await assertRefused(onB, 'deleteMessage', { roomID: room, id: ofOwner.id }, 'not_author');
    await onA.do('deleteMessage', { roomID: room, id: ofGuest.id });
    const [deletion] = await onB.expect('deleteMessage');
    assert.equal(deletion.id, ofGuest.id);
  });

  test('edits and deletions of messages that do not exist are not_found', async (t) => {
    const { room, onA } = await pair(t, transports);
    const { id } = await onA.do('message', { roomID: room, message: 'x' });
    for (const unknown of [id.replace(/^\d+/, '1'), 'nonsense']) {
      await assertRefused(onA, 'editMessage', { roomID: room, id: unknown, message: 'x' }, 'not_found');
      await assertRefused(onA, 'deleteMessage', { roomID: room, id: unknown }, 'not_found');
    }
  });

  test('a text of exactly the limit passes, one byte more is too_large', async (t) => {
    const { room, onA, onB } = await pair(t, transports);
    const text = 'ä'.repeat(8_192);
    const { id } = await onA.do('message', { roomID: room, message: text });
    await assertRefused(onA, 'message', { roomID: room, message: `${text}x` }, 'too_large');
    await assertRefused(onA, 'editMessage', { roomID: room, id, message: `${text}x` }, 'too_large');
    await onB.expect('message', ({ message }) => message === text);
  });
});
