// The page of the demo, as two people see it: ROOMCAST_E2E_BINARY=… node --test tests/browser/page.test.mjs

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Client } from '../e2e/lib/client.mjs';
import { until } from '../e2e/lib/wait.mjs';
import { DESKTOP, launch, PHONE, shoot, snap } from './browser.mjs';
import { Person } from './people.mjs';
import { startWorld } from './world.mjs';

let world;
let browser;

before(async () => {
  world = await startWorld();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await world?.stop();
});

/** Two people in a room of their own, on two nodes. */
async function pair(t, room, [one, other] = [`ann-${room}`, `ben-${room}`]) {
  await world.makeRoom(room, [one, other]);
  const ann = await Person.enter(browser, world.nodes[0], one);
  const ben = await Person.enter(browser, world.nodes[1], other);
  t.after(async () => { await ann.close(); await ben.close(); });
  return [ann, ben];
}

test('two people on two nodes talk, edit and delete', async (t) => {
  await world.makeRoom('garden', ['Ann', 'Ben', 'Chloe', 'Dmitri']);
  const [ann, ben] = await pair(t, 'kitchen', ['Ann', 'Ben']);
  for (const person of [ann, ben]) await person.open('kitchen');
  await ann.say('Good morning! Is the kettle on?');
  await ben.reads('Good morning! Is the kettle on?');
  await ben.say('It is. Tea or coffee?');
  // Shift+Enter breaks the line, and what looks like HTML is text.
  await ann.page.locator('#text').click();
  await ann.page.keyboard.type('Tea, please.');
  await ann.page.keyboard.press('Shift+Enter');
  await ann.page.keyboard.type('<b onclick="alert(1)">Thanks</b> & bye');
  await ann.page.keyboard.press('Enter');
  const tea = 'Tea, please.\n<b onclick="alert(1)">Thanks</b> & bye';
  for (const person of [ann, ben]) await person.reads('Good morning! Is the kettle on?', 'It is. Tea or coffee?', tea);

  // By keyboard: arrow up edits one's last message, once it has arrived; Escape gives it up.
  await ann.arrived();
  await ann.page.keyboard.press('ArrowUp');
  assert.equal(await ann.page.inputValue('#text'), tea);
  await ann.page.keyboard.press('Escape');
  assert.equal(await ann.page.inputValue('#text'), '');
  await ann.page.keyboard.press('ArrowUp');
  await ann.page.locator('#text').fill('Coffee after all, please.');
  await ann.page.keyboard.press('Enter');
  for (const person of [ann, ben]) {
    await person.reads('It is. Tea or coffee?', 'Coffee after all, please.');
    await person.sees('.edited', '(edited)');
  }
  // By mouse: only one's own messages can be deleted.
  assert.equal(await ben.message('Coffee after all, please.').locator('.actions').count(), 0);
  await ben.say('Wrong room, sorry');
  await ann.reads('Wrong room, sorry');
  await ben.message('Wrong room, sorry').hover();
  await ben.message('Wrong room, sorry').getByLabel('Delete this message').click();
  await ben.page.getByRole('button', { name: 'Delete', exact: true }).click();
  for (const person of [ann, ben]) await person.reads('It is. Tea or coffee?', 'Coffee after all, please.');

  // Another room shows that something is unread there, until it is opened.
  await ben.open('garden');
  await ben.say('The tomatoes are red.');
  await ben.say('Somebody should pick them before it rains this afternoon, there are at least two baskets full.');
  await ann.sees('[data-room="garden"] .badge', '2');
  assert.match(await ann.page.title(), /^\(2\)/);
  await ben.open('kitchen');
  await ben.say('Coming right up ☕');
  await ann.reads('Coming right up ☕');
  await ann.page.click('#people-toggle');
  await ann.sees('#people-list', 'Ben');
  await ann.page.locator('.message').last().click();
  await shoot(ann, 'chat', { phone: () => ann.page.evaluate(() => { document.getElementById('people').hidden = true; }) });
  await ann.page.setViewportSize(PHONE);
  await ann.page.click('#menu');
  await snap(ann, 'drawer-phone-light');
  await ann.page.keyboard.press('Escape');
  assert.equal(await ann.page.evaluate(() => document.activeElement.id), 'menu');
  // On a phone a tap on one's own message shows what can be done with it; with a keyboard, arrows and a letter do.
  await ann.message('Good morning! Is the kettle on?').click();
  assert.ok(await ann.message('Good morning! Is the kettle on?').getByLabel('Edit this message').isVisible());
  await snap(ann, 'tapped-phone-light');
  await ann.page.keyboard.press('ArrowDown');
  await ann.page.keyboard.press('ArrowDown');
  await ann.page.keyboard.press('Delete');
  await ann.sees('#delete-text', 'Coffee after all, please.');
  await snap(ann, 'delete-phone-light');
  await ann.page.keyboard.press('Escape');
  await ann.page.keyboard.press('e');
  assert.equal(await ann.page.inputValue('#text'), 'Coffee after all, please.');
  await snap(ann, 'edit-phone-light');
  await ann.page.keyboard.press('Escape');
  await ann.reads('It is. Tea or coffee?', 'Coffee after all, please.', 'Coming right up ☕');
  await ann.page.setViewportSize(DESKTOP);
  await ann.open('garden');
  await until('the mark is gone', async () => (await ann.page.locator('[data-room="garden"] .badge').count()) === 0);
  // A reload keeps the login, the room and what was read.
  await ann.page.reload();
  await ann.online(world.nodes[0]);
  await ann.reads('The tomatoes are red.', 'Somebody should pick them before it rains this afternoon, there are at least two baskets full.');
});

test('scrolling back brings older messages', async (t) => {
  const [ann, ben] = await pair(t, 'archive');
  const client = await ben.double(world.nodes[1]);
  t.after(() => client.close());
  await client.do('join', { roomID: 'archive' });
  await Promise.all(Array.from({ length: 150 }, (_, number) => client.do('message', { roomID: 'archive', message: `line ${number}` })));
  await ann.page.reload();
  await ann.online(world.nodes[0]);
  await ann.reads('line 149');
  assert.ok((await ann.texts()).length < 100, 'only the newest are there at first');
  await until('everything is there', async () => {
    await ann.page.locator('#messages').evaluate((box) => { box.scrollTop = 0; });
    return (await ann.texts()).length === 150;
  });
  const texts = await ann.texts();
  assert.deepEqual(texts, Array.from({ length: 150 }, (_, number) => `line ${number}`));
  await until('the beginning is named', async () => {
    await ann.page.locator('#messages').evaluate((box) => { box.scrollTop = 0; });
    return ann.page.locator('#beginning').isVisible();
  });
  // Who reads old messages stays there, and is told of new ones.
  await ben.say('news');
  await ann.sees('#jump', '1 new message');
  await ann.page.click('#jump');
  await ann.reads('line 149', 'news');
});

test('a killed node: the page says so, and what was missed comes once', async (t) => {
  const [ann, ben] = await pair(t, 'night-shift', ['Anika', 'Bo']);
  await ann.say('before');
  await ann.say('to be changed');
  await ann.say('to be deleted');
  await ben.reads('before', 'to be changed', 'to be deleted');
  await world.nodes[1].child.kill();
  await ben.sees('#reconnecting', 'Reconnecting…');
  await ben.say('written without a connection');
  await ben.sees('.fate', 'Sending…');
  await ann.say('missed one');
  await ann.say('missed two');
  await ann.reads('missed one', 'missed two');
  await ann.message('to be changed').hover();
  await ann.message('to be changed').getByLabel('Edit this message').click();
  await ann.page.locator('#text').fill('changed meanwhile');
  await ann.page.keyboard.press('Enter');
  await ann.message('to be deleted').hover();
  await ann.message('to be deleted').getByLabel('Delete this message').click();
  await ann.page.click('#delete-yes');
  await ann.reads('before', 'changed meanwhile', 'missed one', 'missed two');
  await shoot(ben, 'reconnecting');
  await world.startNode(world.nodes[1], [world.nodes[1]]);
  await ben.online(world.nodes[1]);
  const all = ['before', 'changed meanwhile', 'missed one', 'missed two', 'written without a connection'];
  for (const person of [ann, ben]) {
    await person.reads(...all);
    assert.deepEqual(await person.texts(), all);
  }
  await ben.sees('.divider', 'While you were away');
  assert.equal(await ben.page.locator('#reconnecting').isVisible(), false);
  await shoot(ben, 'recovered');

  // A page that knows another node goes there by itself.
  await world.nodes[0].child.kill();
  await ann.online(world.nodes[1]);
  await ben.say('still here?');
  await ann.reads('written without a connection', 'still here?');
  assert.deepEqual(await ann.texts(), [...all, 'still here?']);
  await world.startNode(world.nodes[0], world.nodes);
});

test('a message written while offline survives a reload and arrives once', async (t) => {
  const [ann, ben] = await pair(t, 'railway', ['Tara', 'Umar']);
  const tunnel = await ben.tunnel();
  await ben.page.reload();
  await ben.online(world.nodes[1]);
  await ben.say('There is a tunnel ahead');
  await ann.reads('There is a tunnel ahead');
  await tunnel.enter();
  await ben.sees('#reconnecting', 'Reconnecting…');
  await ben.say('written in the tunnel');
  await ben.sees('.fate', 'Sending…');
  await ben.page.reload();
  await ben.sees('.pending .text', 'written in the tunnel');
  await shoot(ben, 'offline');
  assert.deepEqual(await ann.texts(), ['There is a tunnel ahead']);
  tunnel.leave();
  await ben.online(world.nodes[1]);
  await ben.arrived();
  await ben.say('light again');
  for (const person of [ann, ben]) {
    await person.reads('light again');
    assert.deepEqual(await person.texts(), ['There is a tunnel ahead', 'written in the tunnel', 'light again']);
  }
});

test('who is blocked sees why, and comes back by itself', async (t) => {
  const [ann, ben] = await pair(t, 'gate', ['Ada', 'Bert']);
  await ann.say('hello');
  await ben.reads('hello');
  const double = await ann.double(world.nodes[1]);
  t.after(() => double.close());
  for (let strike = 0; strike < 8; strike += 1) double.send('join', { roomID: `not-mine-${strike}` });
  await ann.sees('#blocked-title', 'You are blocked for the moment');
  await ann.sees('#blocked-text', 'Too many requests were refused.');
  await shoot(ann, 'blocked');
  await ben.say('said during the block');
  await ann.online(world.nodes[0]);
  await ann.reads('hello', 'said during the block');

  // A blocked network is refused before there is a connection; the page finds out why.
  const forged = new Client(world.nodes[1], { auth: { accessToken: 'x' } });
  t.after(() => forged.close());
  await forged.refused();
  await ben.page.reload();
  await ben.sees('#blocked-title', 'This network is blocked for the moment');
  await ben.sees('#blocked-when', 'It ends in');
  await ben.online(world.nodes[1]);
  await ben.reads('hello', 'said during the block');
});

test('a page built without the client says what to do', async (t) => {
  const page = await browser.newPage();
  t.after(() => page.close());
  await page.route('**/config.json', (route) => route.fulfill({ json: { backend: world.backend, nodes: [], client: false } }));
  await page.goto(world.nodes[0].url);
  await page.getByText('make client').waitFor();
});

test('a login that was ended leads back to the door, with the reason', async (t) => {
  const [ann] = await pair(t, 'door');
  await ann.page.evaluate(() => {
    const session = JSON.parse(sessionStorage.getItem('roomcast.session'));
    sessionStorage.setItem('roomcast.session', JSON.stringify({ ...session, accessToken: 'x', refreshToken: 'y' }));
  });
  await ann.page.reload();
  await ann.sees('#login-problem', 'Your login has ended.');
  await shoot(ann, 'login');
});
