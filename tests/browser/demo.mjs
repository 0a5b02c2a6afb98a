// `roomcast demo`, with its worker and its scripted model, as somebody who tries it has it.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { post } from '../e2e/lib/people.mjs';
import { Child, freePort } from '../e2e/lib/process.mjs';

const BINARY = resolve(process.env.ROOMCAST_E2E_BINARY ?? 'target/debug/roomcast');
const answers = async (url) => (await fetch(url, { signal: AbortSignal.timeout(2_000) })).ok;
/** Tries to find ports; the demo wants several that are near each other. */
const TRIES = 5;

export async function startDemo() {
  const dir = mkdtempSync(join(tmpdir(), 'roomcast-demo-'));
  const start = async (tries) => {
    const base = await freePort();
    const child = new Child({ name: `demo-${base}`, dir, command: BINARY, args: ['demo', '--port-base', String(base)] });
    const nodes = [base, base + 1].map((port) => ({ url: `http://127.0.0.1:${port}`, host: `127.0.0.1:${port}` }));
    try {
      await child.ready(async () => (await answers(nodes[1].url)) && child.output().includes('Ctrl-C'));
      return { base, child, nodes };
    } catch (error) {
      await child.stop();
      if (tries === 1) throw error;
      return start(tries - 1);
    }
  };
  const { base, child, nodes } = await start(TRIES);
  const backend = `http://127.0.0.1:${base + 10}`;

  /** A room with these people, who may be new. */
  const makeRoom = async (roomID, names) => {
    const logins = await Promise.all(names.map((username) => post(backend, '/login', { username })));
    const participants = logins.map(({ user }) => ({ platformid: user.platformid, nickname: user.username }));
    await post(backend, '/api/rooms/create-room', { roomID, participants });
  };
  const stop = async () => {
    await child.stop();
    rmSync(dir, { recursive: true, force: true });
  };
  return { nodes, makeRoom, stop };
}
