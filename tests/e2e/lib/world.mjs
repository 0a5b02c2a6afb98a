// Everything a test needs to talk to: Redis, the reference backend behind the proxy, nodes and a worker.

import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';

import { startModel } from './model.mjs';
import { Child, freePort } from './process.mjs';
import { startProxy } from './proxy.mjs';
import { redis } from './redis.mjs';
import { until, within } from './wait.mjs';

export const JWT_SECRET = 'an-end-to-end-secret-of-enough-bytes';
export const APP = 'VisionApp/1.0';
/** Opens `/admin` on the ops listeners. */
export const ADMIN_TOKEN = 'an-end-to-end-admin-token-of-enough-bytes';
/** Refused acts after which a session is blocked. */
export const STRIKES = 20;

const { ROOMCAST_E2E_BINARY, ROOMCAST_E2E_DIR, ROOMCAST_E2E_CLUSTER } = process.env;
/** The fewest that `redis-cli --cluster create` makes a cluster of. */
const PRIMARIES = 3;

const answers = async (url) => (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;

async function startRedis(world, { name = 'redis', port = world.redisPort, dir = world.dir, more = [] } = {}) {
  const args = ['--port', port, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'yes', ...more];
  const child = new Child({ name, dir: world.dir, command: 'redis-server', args });
  return child.ready(async () => (await redis(port, 'PING')) === 'PONG');
}

/** Three primaries, of which `world.redisPort` is one. */
async function startCluster(world, keep) {
  const ports = [world.redisPort];
  while (ports.length < PRIMARIES) ports.push(await freePort());
  for (const [index, port] of ports.entries()) {
    const dir = join(world.dir, `primary-${index}`);
    mkdirSync(dir);
    const more = ['--cluster-enabled', 'yes', '--cluster-port', await freePort()];
    await keep(startRedis(world, { name: `redis-${index}`, port, dir, more }));
  }
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  const args = ['--cluster', 'create', ...addresses, '--cluster-yes'];
  const created = new Child({ name: 'redis-cluster', dir: world.dir, command: 'redis-cli', args });
  const { code } = await within('the cluster is created', created.exited, 30_000);
  if (code !== 0) throw new Error(`no cluster\n${created.tail()}`);
  for (const port of ports) {
    await until(`primary ${port} knows the others`, async () => (await redis(port, 'CLUSTER', 'INFO')).includes('cluster_state:ok'), 20_000);
  }
  const [first, ...others] = addresses;
  world.redisUrl = `redis-cluster://${first}?${others.map((other) => `node=${other}`).join('&')}`;
}

async function startBackend(world) {
  const database = `sqlite://${join(world.dir, 'backend.db')}`;
  const child = new Child({
    name: 'backend',
    dir: world.dir,
    command: ROOMCAST_E2E_BINARY,
    args: [
      'backend', '--listen', `127.0.0.1:${world.backendPort}`, '--database', database,
      '--open-login', '--seed-users', '200', '--seed-rooms', '20',
    ],
    env: { JWT_SECRET },
  });
  return child.ready(() => answers(`http://127.0.0.1:${world.backendPort}/healthz`));
}

function settings(world) {
  return {
    REDIS_URL: world.redisUrl,
    AUTH_URL: world.proxy,
    API_URL: world.proxy,
    JWT_SECRET,
    VISION_APP_INFO: 'VisionApp',
    TRUSTED_PROXIES: '127.0.0.0/8',
    GUARD_BLOCK: '60s',
    GUARD_STRIKES: String(STRIKES),
    ROOMCAST_ADMIN_TOKEN: ADMIN_TOKEN,
    GPT_BASE_URL: world.model,
    GPT_API_KEY: 'e2e',
    GPT_MODEL: 'echo',
  };
}

/** Starts one more node in a world; `env` overrides settings, `undefined` unsets one. */
export async function startNode(world, { name, env = {}, port, opsPort, probe = 'readyz' }) {
  port ??= await freePort();
  opsPort ??= await freePort();
  const all = {
    ...settings(world),
    ROOMCAST_LISTEN: `127.0.0.1:${port}`,
    ROOMCAST_OPS_LISTEN: `127.0.0.1:${opsPort}`,
    ...env,
  };
  const child = new Child({
    name,
    dir: world.dir,
    command: ROOMCAST_E2E_BINARY,
    args: ['node'],
    env: Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)),
  });
  await child.ready(() => answers(`http://127.0.0.1:${opsPort}/${probe}`));
  return { url: `http://127.0.0.1:${port}`, port, opsPort, child };
}

async function startWorker(world, name = 'worker') {
  const opsPort = await freePort();
  const child = new Child({
    name,
    dir: world.dir,
    command: ROOMCAST_E2E_BINARY,
    args: ['worker'],
    env: { ...settings(world), ROOMCAST_OPS_LISTEN: `127.0.0.1:${opsPort}` },
  });
  return child.ready(() => answers(`http://127.0.0.1:${opsPort}/readyz`));
}

/** A world of one's own, for faults that would hit other tests; on a cluster where the runner was told so. */
export async function startWorld(name) {
  mkdirSync(ROOMCAST_E2E_DIR, { recursive: true });
  const world = {
    dir: mkdtempSync(join(ROOMCAST_E2E_DIR, `${name}-`)),
    redisPort: await freePort(),
    backendPort: await freePort(),
  };
  const started = [];
  const keep = async (starting) => {
    const child = await starting;
    started.push(child);
    return child;
  };
  world.stop = async () => {
    // In the order of dependence, so that nobody logs the absence of somebody who was told to go first.
    for (const child of started.toReversed()) await child.stop();
    await world.proxyServer?.stop();
    await world.modelServer?.stop();
  };
  try {
    if (ROOMCAST_E2E_CLUSTER) {
      await startCluster(world, keep);
    } else {
      world.redis = await keep(startRedis(world));
      world.redisUrl = `redis://127.0.0.1:${world.redisPort}`;
    }
    world.backend = await keep(startBackend(world));
    world.proxyServer = await startProxy({ port: await freePort(), target: `http://127.0.0.1:${world.backendPort}` });
    world.proxy = world.proxyServer.url;
    world.modelServer = await startModel(await freePort());
    world.model = world.modelServer.url;
    world.nodes = await Promise.all(['node-a', 'node-b'].map((node) => startNode(world, { name: node })));
    started.push(...world.nodes.map((node) => node.child));
    world.worker = await keep(startWorker(world));
    world.children = started;
    world.restartRedis = async () => { world.redis = await keep(startRedis(world)); };
    world.startWorker = (name) => keep(startWorker(world, name));
    world.restartBackend = async () => { world.backend = await keep(startBackend(world)); };
  } catch (error) {
    await world.stop();
    throw error;
  }
  return world;
}

/** What another process needs to know of a world. */
export function describeWorld({ dir, redisPort, redisUrl, backendPort, proxy, model, nodes }) {
  return JSON.stringify({ dir, redisPort, redisUrl, backendPort, proxy, model, nodes: nodes.map(({ url, port, opsPort }) => ({ url, port, opsPort })) });
}

/** The world that the runner has started for all test files. */
export function sharedWorld() {
  const described = process.env.ROOMCAST_E2E_WORLD;
  if (!described) throw new Error('run the tests with: node tests/e2e/run.mjs --binary <path of roomcast>');
  return JSON.parse(described);
}
