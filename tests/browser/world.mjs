// Redis, the backend and two nodes with the demo's page, each a process of its own so that one can be killed.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { post } from '../e2e/lib/people.mjs';
import { Child, freePort } from '../e2e/lib/process.mjs';
import { redis } from '../e2e/lib/redis.mjs';

/** Long enough that a slow machine sees a page loaded anew while the block holds. */
export const BLOCK_MS = 12_000;

const BINARY = resolve(process.env.ROOMCAST_E2E_BINARY ?? 'target/debug/roomcast');
const JWT_SECRET = 'a-secret-of-the-browser-tests-of-enough-bytes';
const local = (port) => `http://127.0.0.1:${port}`;
const answers = async (url) => (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;

export async function startWorld() {
  const dir = mkdtempSync(join(tmpdir(), 'roomcast-browser-'));
  const started = [];
  const start = async (name, command, args, env, look) => {
    const child = new Child({ name, dir, command, args, env });
    started.push(child);
    await child.ready(look);
    return child;
  };
  const [redisPort, backendPort, ...ports] = await Promise.all(Array.from({ length: 6 }, freePort));
  const backend = local(backendPort);
  const nodes = [0, 1].map((number) => ({ url: local(ports[number]), host: `127.0.0.1:${ports[number]}`, ops: `127.0.0.1:${ports[number + 2]}` }));

  /** Starts a node, or starts it again at its address. `pages` are the nodes its page knows. */
  const startNode = async (node, pages) => {
    node.child = await start(`node-${node.host.split(':')[1]}`, BINARY, ['node'], {
      REDIS_URL: `redis://127.0.0.1:${redisPort}`,
      AUTH_URL: backend,
      API_URL: backend,
      JWT_SECRET,
      VISION_APP_INFO: 'Mozilla',
      CORS_ORIGINS: '*',
      GUARD_BLOCK: `${BLOCK_MS}ms`,
      GUARD_STRIKES: '5',
      ROOMCAST_DEMO_PAGE: backend,
      ROOMCAST_DEMO_NODES: pages.map(({ url }) => url).join(','),
      ROOMCAST_LISTEN: node.host,
      ROOMCAST_OPS_LISTEN: node.ops,
    }, () => answers(`http://${node.ops}/readyz`));
  };
  const stop = async () => {
    for (const child of started.toReversed()) await child.stop();
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await start('redis', 'redis-server', ['--port', redisPort, '--bind', '127.0.0.1', '--dir', dir, '--save', ''], {}, async () => (await redis(redisPort, 'PING')) === 'PONG');
    await start('backend', BINARY, ['backend', '--listen', `127.0.0.1:${backendPort}`, '--database', `sqlite://${join(dir, 'backend.db')}`, '--open-login'], { JWT_SECRET }, () => answers(`${backend}/healthz`));
    // The first node's page knows both; the second's knows only itself, so that it has to wait for its own.
    await Promise.all([startNode(nodes[0], nodes), startNode(nodes[1], [nodes[1]])]);
  } catch (error) {
    await stop();
    throw error;
  }

  /** A room with these people, who may be new. */
  const makeRoom = async (roomID, names) => {
    const logins = await Promise.all(names.map((username) => post(backend, '/login', { username })));
    const participants = logins.map(({ user }) => ({ platformid: user.platformid, nickname: user.username }));
    await post(backend, '/api/rooms/create-room', { roomID, participants });
  };
  return { dir, backend, nodes, started, startNode, makeRoom, stop };
}
