// A person in front of the page: what one does, and what one sees.

import assert from 'node:assert/strict';

import { Client } from '../e2e/lib/client.mjs';
import { until } from '../e2e/lib/wait.mjs';

export class Person {
  constructor(page, name) {
    Object.assign(this, { page, name, faults: [] });
    // A violated policy or an error in a script is a failure, whatever else works.
    page.on('pageerror', (error) => this.faults.push(String(error)));
    page.on('console', (entry) => entry.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(entry.text()) && this.faults.push(entry.text()));
  }

  static async enter(browser, node, name, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', ...options });
    context.setDefaultTimeout(10_000);
    const person = new Person(await context.newPage(), name);
    await person.page.goto(node.url);
    await person.page.fill('#name', name);
    await person.page.keyboard.press('Enter');
    await person.online(node);
    return person;
  }

  /** Waits until the page says that it is connected to this node. */
  online(node) {
    return this.sees('#connection-text', `Connected to ${node.host}`, 30_000);
  }

  sees(selector, text, deadlineMs = 10_000) {
    return until(`${this.name} sees “${text}” in ${selector}`, async () => {
      const found = await this.page.locator(selector).filter({ visible: true }).allInnerTexts();
      return found.some((one) => one.includes(text)) || Promise.reject(new Error(JSON.stringify(found).slice(-600)));
    }, deadlineMs);
  }

  async open(room) {
    await this.page.locator(`[data-room="${room}"]`).click();
    await this.sees('#room-title', room);
  }

  async say(text) {
    await this.page.locator('#text').fill(text);
    await this.page.keyboard.press('Enter');
  }

  /** Waits until nothing of one's own is on its way any more. */
  arrived() {
    return until(`${this.name}'s messages have arrived`, async () => (await this.page.locator('.message.pending').count()) === 0);
  }

  /** The texts of all messages in the order shown. */
  texts() {
    return this.page.locator('.message .text').allInnerTexts();
  }

  /** Waits until exactly these are the last messages. */
  reads(...wanted) {
    return until(`${this.name} reads ${JSON.stringify(wanted)}`, async () => {
      const last = (await this.texts()).slice(-wanted.length);
      return JSON.stringify(last) === JSON.stringify(wanted) || Promise.reject(new Error(JSON.stringify(last)));
    });
  }

  message(text) {
    return this.page.locator('.message').filter({ has: this.page.getByText(text, { exact: true }) });
  }

  /** Between the page and every node a tunnel that lets nothing through while `closed`; it holds from the next load on. */
  async tunnel() {
    const tunnel = { closed: false, open: new Set() };
    await this.page.routeWebSocket(/socket\.io/, (socket) => {
      if (tunnel.closed) {
        socket.close();
        return;
      }
      socket.connectToServer();
      tunnel.open.add(socket);
    });
    await this.page.route(/socket\.io\/\?/, (route) => (tunnel.closed ? route.abort() : route.continue()));
    tunnel.enter = async () => {
      tunnel.closed = true;
      for (const socket of tunnel.open) await socket.close();
    };
    tunnel.leave = () => { tunnel.closed = false; };
    return tunnel;
  }

  /** Another client under the same login, as the page keeps it. */
  async double(node) {
    const session = JSON.parse(await this.page.evaluate(() => sessionStorage.getItem('roomcast.session')));
    const auth = { accessToken: session.accessToken, refreshToken: session.refreshToken, username: session.user.username, userAgent: 'Mozilla' };
    const client = new Client(node, { auth });
    await client.expect('connect');
    return client;
  }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.faults, [], `${this.name}'s page`);
  }
}
