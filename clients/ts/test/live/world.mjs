// Redis, the backend and two nodes for the tests against the real thing, and clients of them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { io } from 'socket.io-client';

import { RoomcastClient } from '../../dist/index.js';

const dir = mkdtempSync(join(tmpdir(), 'roomcast-ts-'));
process.env.ROOMCAST_E2E_BINARY ??= resolve(import.meta.dirname, '../../../../target/debug/roomcast');
process.env.ROOMCAST_E2E_DIR = dir;

const lib = '../../../../tests/e2e/lib';
const { startNode, startWorld } = await import(`${lib}/world.mjs`);
export const { credentials, freshAddress, login, logins, makeRoom } = await import(`${lib}/people.mjs`);
export const { until, within } = await import(`${lib}/wait.mjs`);

/** A world of the file's own, since its parts are killed. */
export async function theWorld(name) {
  const world = await startWorld(name);
  const { stop } = world;
  world.stop = async () => {
    for (const node of world.nodes) await node.child.stop();
    await stop();
    rmSync(dir, { recursive: true, force: true });
  };
  /** Kills a node as a crash would; the function returned starts it again at its address. */
  world.killNode = async (number) => {
    const { port, opsPort, child } = world.nodes[number];
    await child.kill();
    return async () => { world.nodes[number] = await startNode(world, { name: `node-${number}-again`, port, opsPort }); };
  };
  /** Redis comes back without anything it knew. */
  world.loseRedis = async () => {
    await world.redis.kill();
    rmSync(join(world.dir, 'appendonlydir'), { recursive: true, force: true });
    await world.restartRedis();
  };
  return world;
}

/** A client of these nodes that keeps what it was told. */
export function open(t, nodes, person, options = {}) {
  const client = new RoomcastClient({ io, url: nodes.map(({ url }) => url), auth: () => credentials(person), ...options });
  t.after(() => client.close());
  Object.assign(client, { events: [], told: [] });
  client.on('event', (event) => client.events.push(event));
  for (const name of ['reset', 'lost', 'closed', 'state', 'sent', 'failed', 'tokens', 'notice', 'problem', 'gpt:queued', 'gpt:delta', 'gpt:reset', 'gpt:error']) {
    client.on(name, (...args) => client.told.push([name, ...args]));
  }
  client.all = (name) => client.told.filter(([one]) => one === name).map(([, arg]) => arg);
  client.texts = (room) => client.timeline(room).messages.map(({ message }) => message);
  return client;
}

/** A client that has joined a room. */
export async function joined(t, nodes, person, room, options) {
  const client = open(t, nodes, person, options);
  client.timeline(room);
  client.join(room);
  client.connect();
  await until(`${person.username} has joined`, () => client.isJoined(room));
  return client;
}

/** Drops what a client receives by name; `filter(name, args)` says which of it passes. */
export function sieve(passes) {
  return (url, options) => {
    const socket = io(url, options);
    const onAny = socket.onAny.bind(socket);
    socket.onAny = (listener) => onAny((name, ...args) => {
      for (const copy of passes(name, args)) listener(...copy);
    });
    // The listener that is told is not the one that was given.
    socket.offAny = () => socket;
    return socket;
  };
}
