#!/usr/bin/env node
// Starts Redis, the reference backend, two nodes and a worker, runs the tests against them and stops everything.
//
//   node tests/e2e/run.mjs --binary target/debug/roomcast [--only <name pattern>] [--without <file>]
//     [--cluster] [--concurrency N] [--keep] [file ...]

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
/** Test files that run at once; the tests wait far more than they compute. */
const FILES_AT_ONCE = 5;
/** Longer than any file takes; only a test that hangs gets there. */
const TEST_TIMEOUT_MS = 240_000;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    binary: { type: 'string', default: 'target/debug/roomcast' },
    only: { type: 'string' },
    without: { type: 'string', multiple: true, default: [] },
    concurrency: { type: 'string', default: String(FILES_AT_ONCE) },
    cluster: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
  },
});

function refuse(reason) {
  console.error(`e2e: ${reason}`);
  process.exit(64);
}

const binary = resolve(options.binary);
if (!existsSync(binary)) refuse(`there is no ${binary}; build it, or name another with --binary`);
if (!existsSync(join(here, 'node_modules', 'socket.io-client'))) {
  refuse(`node_modules is missing: run \`npm ci\` in ${here} first`);
}

/** The files asked for by (part of) their name, slow ones first so that the rest runs beside them. */
function testFiles() {
  const all = readdirSync(join(here, 'test')).filter((name) => name.endsWith('.test.mjs'));
  const wanted = positionals.map((name) => basename(name));
  const chosen = all
    .filter((name) => !wanted.length || wanted.some((part) => name.includes(part)))
    .filter((name) => !options.without.some((part) => name.includes(part)));
  if (!chosen.length) refuse('no test file is left');
  const slow = (name) => /^(outage|crash|limits)/.test(name);
  return chosen.toSorted((a, b) => slow(b) - slow(a) || a.localeCompare(b)).map((name) => join(here, 'test', name));
}

const dir = mkdtempSync(join(tmpdir(), 'roomcast-e2e-'));
process.env.ROOMCAST_E2E_BINARY = binary;
process.env.ROOMCAST_E2E_DIR = dir;
if (options.cluster) process.env.ROOMCAST_E2E_CLUSTER = 'yes';
const { startWorld, describeWorld } = await import('./lib/world.mjs');

let world;
let tests;
let interrupted = false;

/** The tests run in a process group of their own, so that whatever they started ends with them. */
function endTests(signal) {
  try {
    if (tests?.pid) process.kill(-tests.pid, signal);
  } catch {
    // The group is gone.
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    interrupted = true;
    endTests('SIGKILL');
  });
}

function runTests() {
  const args = ['--test', '--test-reporter=spec', `--test-concurrency=${options.concurrency}`, `--test-timeout=${TEST_TIMEOUT_MS}`];
  if (options.only) args.push(`--test-name-pattern=${options.only}`);
  tests = spawn(process.execPath, [...args, ...testFiles()], {
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
    env: { ...process.env, ROOMCAST_E2E_WORLD: describeWorld(world) },
  });
  return new Promise((done) => { tests.once('exit', (code) => done(code ?? 1)); });
}

/** Logs of all worlds in which a program panicked, whatever the tests say. */
function panics() {
  return readdirSync(dir, { recursive: true })
    .filter((name) => name.endsWith('.log'))
    .map((name) => join(dir, name))
    .filter((name) => readFileSync(name, 'utf8').includes('panicked at'));
}

let code = 1;
try {
  world = await startWorld('shared');
  if (!interrupted) code = await runTests();
} catch (error) {
  console.error(`e2e: ${error.message}`);
}
endTests('SIGKILL');
for (const child of world?.children ?? []) {
  if (child.failed && !interrupted) {
    console.error(`e2e: ${child.name} ended by itself: ${JSON.stringify(child.end)}\n${child.tail()}`);
    code = 1;
  }
}
await world?.stop();
for (const log of panics()) {
  const text = readFileSync(log, 'utf8');
  console.error(`e2e: panic in ${log}\n${text.slice(text.indexOf('panicked at') - 200).slice(0, 2_000)}`);
  code = 1;
}
if (interrupted) code = 130;
if (options.keep || (code !== 0 && code !== 130)) {
  console.error(`e2e: logs are in ${dir}`);
} else {
  rmSync(dir, { recursive: true, force: true });
}
process.exit(code);
