// Child processes: free ports, output into files, an orderly end.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { until, within } from './wait.mjs';

/** Lines of a log that are worth showing when a process failed. */
const TAIL_LINES = 40;
/** Below the ephemeral ports, where outgoing connections would take a port between its choice and its use. */
const PORTS = { first: 10_000, count: 20_000 };

/** A port nobody listens on. */
export async function freePort() {
  for (;;) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count);
    const free = await new Promise((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/** A started program whose output goes to `<dir>/<name>.log`. */
export class Child {
  constructor({ name, dir, command, args, env = {} }) {
    this.name = name;
    this.log = join(dir, `${name}.log`);
    this.stopping = false;
    const output = openSync(this.log, 'a');
    // Nothing of the caller's environment but what programs need to run: settings must come from the test.
    const { PATH, HOME, TMPDIR } = process.env;
    this.process = spawn(command, args, {
      cwd: dir,
      env: { PATH, HOME, ...(TMPDIR && { TMPDIR }), RUST_BACKTRACE: '1', ...env },
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => resolve({ error }));
      this.process.once('exit', (code, signal) => resolve({ code, signal }));
    });
    this.exited.then((end) => { this.end = end; });
  }

  /** Whether it ended although nobody asked it to. */
  get failed() {
    return this.end !== undefined && !this.stopping;
  }

  /** Waits for `look`; fails at once, with the end of the log, when the program ends instead. */
  async ready(look, deadlineMs = 30_000) {
    try {
      await until(`${this.name} is ready`, async () => this.end || (await look()), deadlineMs);
    } catch (error) {
      throw new Error(`${error.message}\n${this.tail()}`);
    }
    if (this.end) throw new Error(`${this.name} ended at start (${JSON.stringify(this.end)})\n${this.tail()}`);
    return this;
  }

  /** Asks it to end and waits; kills it when it does not within the deadline. */
  async stop(signal = 'SIGTERM', deadlineMs = 8_000) {
    this.stopping = true;
    if (this.end) return;
    this.process.kill(signal);
    this.process.kill('SIGCONT');
    try {
      await within(`${this.name} ended`, this.exited, deadlineMs);
    } catch {
      this.process.kill('SIGKILL');
      await this.exited;
    }
  }

  /** Kills it as a crash would. */
  kill() {
    return this.stop('SIGKILL');
  }

  signal(signal) {
    this.process.kill(signal);
  }

  output() {
    return readFileSync(this.log, 'utf8');
  }

  tail() {
    const lines = this.output().trimEnd().split('\n');
    return [`--- ${this.log}`, ...lines.slice(-TAIL_LINES), '---'].join('\n');
  }
}
