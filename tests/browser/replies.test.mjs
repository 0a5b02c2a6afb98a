// Replies of the model on the page of `roomcast demo`: ROOMCAST_E2E_BINARY=… node --test tests/browser/replies.test.mjs

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { until } from '../e2e/lib/wait.mjs';
import { DESKTOP, launch, shoot } from './browser.mjs';
import { startDemo } from './demo.mjs';
import { Person } from './people.mjs';

/** A reply's end, with all tries of the model before it. */
const END_MS = 30_000;

let demo;
let browser;

before(async () => {
  demo = await startDemo();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await demo?.stop();
});

/** People in a room of their own, each on the next node; Eva may come later. */
async function gather(t, room, ...names) {
  await demo.makeRoom(room, [...names, 'Eva']);
  return Promise.all(names.map((name, number) => arrive(t, room, name, demo.nodes[number % 2])));
}

async function arrive(t, room, name, node) {
  const person = await Person.enter(browser, node, name);
  t.after(() => person.close());
  await person.open(room);
  return person;
}

const rows = (person) => person.page.locator('.gpt');
const last = (person) => rows(person).last();
const stop = (person) => person.page.getByRole('button', { name: 'Stop this answer' });
const again = (person) => person.page.getByRole('button', { name: 'Ask this question again' });
const textOf = (person) => last(person).locator('.text').innerText();
const writes = (person, text) => person.sees('.gpt.writing .text', text);
const ends = (person, text) => person.sees('.gpt.done .text', text, END_MS);
/** The line below a reply. */
const told = (person, text) => person.sees('.gpt .fate-text', text, END_MS);

/** Notes with every frame what the last reply looks like; the function returned ends that and answers it. */
async function film(person) {
  await person.page.evaluate(() => {
    window.frames = [];
    const note = () => {
      const row = [...document.querySelectorAll('.gpt')].at(-1);
      const box = document.getElementById('messages');
      if (row) {
        row.dataset.number ??= String(Math.random());
        window.frames.push({
          row: row.dataset.number,
          text: row.querySelector('.text').textContent,
          line: row.querySelector('.fate-text').textContent,
          state: row.className.match(/asked|queued|writing|failed|done/)?.[0],
          height: row.offsetHeight,
          left: box.scrollHeight - box.scrollTop - box.clientHeight,
          top: box.scrollTop,
        });
      }
      window.film = requestAnimationFrame(note);
    };
    window.film = requestAnimationFrame(note);
  });
  return () => person.page.evaluate(() => {
    cancelAnimationFrame(window.film);
    return window.frames;
  });
}

/** Notes what is said to screen readers; the function returned answers how each of it begins. */
async function listen(person) {
  await person.page.evaluate(() => {
    window.heard = [];
    new MutationObserver(() => window.heard.push(document.getElementById('announcer').textContent))
      .observe(document.getElementById('announcer'), { childList: true });
  });
  return async () => (await person.page.evaluate(() => window.heard)).map((text) => text.split(/,| about/)[0]);
}

test('two people on two nodes watch an answer being written, and nothing jumps when it is there', async (t) => {
  const [ann, ben] = await gather(t, 'harbour', 'Ann', 'Ben');
  await ben.say('The boat leaves at nine.');
  const films = [await film(ann), await film(ben)];
  const heard = await listen(ben);
  await ann.say('@gpt slow 120 ms, what should we know about the sea and the sky, the wind and the tide before we go out tomorrow morning, and what should we bring');
  await until('it is thought about', async () => (await rows(ben).count()) === 1);
  for (const person of [ann, ben]) await writes(person, 'the sea and the sky');
  await ann.sees('.gpt .fate-text', 'Answering your question');
  await ben.sees('.gpt .fate-text', 'Answering Ann’s question');
  assert.equal(await last(ann).getAttribute('aria-busy'), 'true');
  assert.equal(await last(ann).evaluate((row) => row.closest('[aria-live]')), null, 'not every word is read out');
  assert.equal(await stop(ben).count(), 0, 'only who asked can stop it');
  for (const person of [ann, ben]) await ends(person, 'and what should we bring');
  const whole = await textOf(ann);
  assert.equal(await textOf(ben), whole);
  assert.match(whole, /^You asked: what should we know about the sea/);
  assert.equal(await last(ann).getAttribute('aria-busy'), 'false');
  await ann.sees('.gpt .fate-text', 'Answer to your question');
  for (const frames of await Promise.all(films.map((end) => end()))) {
    assert.equal(new Set(frames.map(({ row }) => row)).size, 1, 'one row from the question to the message');
    const texts = [...new Set(frames.map(({ text }) => text))];
    assert.ok(texts.length > 10, `${texts.length} steps`);
    for (const text of texts) assert.ok(whole.startsWith(text), text);
    frames.slice(1).forEach((frame, at) => assert.ok(frame.height >= frames[at].height, `${JSON.stringify(frames[at])} then ${JSON.stringify(frame)}`));
    const late = frames.filter(({ left }) => left > 2).length;
    assert.ok(late <= 2, `the end was out of sight in ${late} of ${frames.length} frames`);
  }
  assert.deepEqual(await heard(), ['Ann: @gpt slow 120 ms', 'An answer is being written', 'gpt: You asked: what should we know']);
  // It is an ordinary message: a reload shows the same.
  await ann.page.reload();
  await ends(ann, 'and what should we bring');
  assert.equal(await textOf(ann), whole);
});

test('an answer as it is written, for who came in the middle too', async (t) => {
  const [chloe, dmitri] = await gather(t, 'library', 'Chloe', 'Dmitri');
  await dmitri.say('Does anybody know a good book about birds?');
  await chloe.say('@gpt slow 250 ms, which books about birds are worth reading for somebody who has never looked at one for longer than a minute, and which of them fit into a coat pocket on a long walk through wet grass and along the river in the early morning of a cold day');
  await writes(dmitri, 'worth reading');
  const eva = await arrive(t, 'library', 'Eva', demo.nodes[1]);
  await writes(eva, 'You asked: which books about birds');
  await shoot(chloe, 'reply-writing');
  const sofar = await textOf(eva);
  await until('it grows on', async () => (await textOf(eva)).length > sofar.length);
  await ends(eva, 'of a cold day');
  assert.equal(await textOf(eva), await textOf(chloe));
  assert.ok((await textOf(eva)).startsWith(sofar));
  await shoot(chloe, 'reply-done');
});

test('who asked stops an answer by keyboard, and what was written stays, marked', async (t) => {
  const [ann, ben] = await gather(t, 'workshop', 'Ann', 'Ben');
  await ann.say('@gpt slow 200 ms, a long story about everything that ever was and about a few things that never were but could have been if only somebody had thought of them');
  await writes(ann, 'everything that');
  // From the line one writes in it is near.
  await ann.page.locator('#text').focus();
  await until('the button has the focus', async () => {
    await ann.page.keyboard.press('Shift+Tab');
    return ann.page.evaluate(() => document.activeElement.getAttribute('aria-label') === 'Stop this answer');
  });
  await ann.page.keyboard.press('Enter');
  for (const person of [ann, ben]) {
    await person.sees('.gpt.stopped .fate-text', ', stopped');
    assert.match(await textOf(person), /^You asked: a long story about everything that/);
    assert.doesNotMatch(await textOf(person), /thought of them/);
  }
  assert.ok(await last(ann).evaluate((row) => row === document.activeElement), 'the keyboard stays at the answer');
  assert.equal(await stop(ann).filter({ visible: true }).count(), 0);
  await shoot(ann, 'reply-stopped');
});

test('questions wait their turn; one too many can be asked again', async (t) => {
  const [ann, ben] = await gather(t, 'counter', 'Ann', 'Ben');
  await ann.say('@gpt slow 300 ms, first of all, where do we begin and how do we get from there to where we want to be before the evening');
  await writes(ben, 'first of all');
  await ben.say('@gpt second, what comes then');
  await ben.sees('.gpt.queued .fate-text', 'Your question waits behind 1 other');
  await ann.say('@gpt third, and then');
  await ben.say('@gpt fourth, and at last');
  await ann.sees('.gpt.queued .fate-text', 'Ben’s question waits behind 3 others');
  await ann.say('@gpt fifth, is there more');
  for (const person of [ann, ben]) await told(person, 'Too many questions of this room wait for an answer already.');
  assert.equal(await again(ben).filter({ visible: true }).count(), 0, 'it is not his question');
  await shoot(ann, 'reply-queue');
  // What waits can be given up too: the others come nearer.
  await stop(ben).first().click();
  await told(ann, 'Stopped before there was an answer.');
  await ann.sees('.gpt.queued .fate-text', 'Ben’s question waits behind 2 others');
  await stop(ann).first().click();
  await ann.sees('.gpt.stopped .text', 'first of all');
  await again(ann).click();
  await ends(ben, 'You asked: fifth, is there more');
  assert.equal(await again(ann).filter({ visible: true }).count(), 0);
  await ben.page.getByRole('button', { name: 'Remove this notice' }).first().click();
  await ends(ben, 'fourth');
});

test('an error is told in plain words where it happened', async (t) => {
  const [ann, ben] = await gather(t, 'attic', 'Ann', 'Ben');
  for (const [script, words] of [
    ['context too long', 'This conversation is longer than the model can read.'],
    ['huge', 'The answer became too long.'],
    ['refused', 'The model does not answer this question.'],
  ]) {
    await ann.say(`@gpt ${script}, hello`);
    for (const person of [ann, ben]) await told(person, words);
  }
  assert.equal(await again(ann).filter({ visible: true }).count(), 0, 'asking again would not help');
  await ben.say('What a pity.');
  await ann.reads('What a pity.');
  await shoot(ann, 'reply-failed');
  // What is said later stands below.
  const order = await ann.page.locator('#message-list > li').evaluateAll((list) => list.map((row) => (row.classList.contains('failed') ? 'failed' : 'said')));
  assert.deepEqual(order.slice(-7), ['said', 'failed', 'said', 'failed', 'said', 'failed', 'said']);
  for (let left = 3; left > 0; left -= 1) {
    await ann.page.getByRole('button', { name: 'Remove this notice' }).first().click();
    await until('it is gone', async () => (await rows(ann).count()) === left - 1);
  }
});

test('every code of docs/gpt.md has words of its own', async (t) => {
  const [ann] = await gather(t, 'dictionary', 'Ann');
  const docs = readFileSync(new URL('../../docs/gpt.md', import.meta.url), 'utf8');
  const table = docs.split('## What can go wrong')[1].split('\n## ')[0];
  const codes = [...new Set([...table.matchAll(/`([a-z]+(?:_[a-z]+)*)`/g)].map(([, code]) => code))];
  assert.ok(codes.length > 12, `${codes}`);
  const words = await ann.page.evaluate(async (all) => {
    const { explainReply } = await import('/words.js');
    return all.map((code) => explainReply({ code, message: 'unknown' }));
  }, codes);
  assert.deepEqual(codes.filter((_, at) => words[at].includes('unknown')), []);
  assert.equal(new Set(words).size, codes.length);
});

test('an answer that breaks off begins anew, and says so', async (t) => {
  const [ann, ben] = await gather(t, 'bridge', 'Ann', 'Ben');
  const end = await film(ben);
  await ann.say('@gpt id bridge, once, cut after 6, one two three four five six seven eight');
  for (const person of [ann, ben]) await ends(person, 'seven eight');
  const frames = await end();
  const first = frames.findIndex(({ text }) => text.includes('one two three'));
  // The words just before the break may not have been told.
  const anew = frames.findIndex(({ line }) => line === 'Trying again…');
  assert.ok(first >= 0 && first < anew, `${first} ${anew}`);
  assert.equal(frames[anew].text, '');
  assert.equal(await textOf(ben), 'You asked: one two three four five six seven eight');
});

test('an answer that breaks off again and again is given up, and can be asked for again', async (t) => {
  const [ann, ben] = await gather(t, 'ladder', 'Ann', 'Ben');
  await ann.say('@gpt slow 500 ms, cut after 1, one two three');
  await told(ben, 'Trying again…');
  await shoot(ben, 'reply-again');
  for (const person of [ann, ben]) await told(person, 'The answer broke off in the middle.');
  await ann.page.locator('#text').focus();
  await until('the button has the focus', async () => {
    await ann.page.keyboard.press('Shift+Tab');
    return ann.page.evaluate(() => document.activeElement.textContent === 'Ask again');
  });
  await ann.page.keyboard.press('Enter');
  await until('it was asked again', async () => (await ben.texts()).filter((text) => text.endsWith('one two three')).length === 2);
  assert.equal(await ann.page.evaluate(() => document.activeElement.id), 'text');
  await stop(ann).click();
});

test('an answer is text, whatever it looks like', async (t) => {
  const [ann, ben] = await gather(t, 'lab', 'Ann', 'Ben');
  const dialogs = [];
  for (const person of [ann, ben]) person.page.on('dialog', (dialog) => { dialogs.push(dialog.message()); return dialog.dismiss(); });
  const evil = '<img src=x onerror="alert(1)"> <script>alert(2)</script> <a href="javascript:alert(3)">go</a> &lt;b&gt;';
  await ann.say(`@gpt slow 60 ms, ${evil}`);
  await writes(ben, '<img');
  for (const person of [ann, ben]) await ends(person, `You asked: ${evil}`);
  await ann.say('@gpt html, hello');
  for (const person of [ann, ben]) await ends(person, '<img src=x onerror=alert(2)> &amp; done');
  await ann.say('@gpt control, hello');
  for (const person of [ann, ben]) await ends(person, 'cd\n');
  for (const person of [ann, ben]) {
    const text = await textOf(person);
    assert.doesNotMatch(text, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/u, JSON.stringify(text));
    assert.equal(await person.page.locator('#message-list').locator('img, script, a, b, h1').count(), 0);
  }
  assert.deepEqual(dialogs, []);
  await shoot(ann, 'reply-text');
});

test('who reads further up stays there while an answer grows below', async (t) => {
  const [ann, ben] = await gather(t, 'tower', 'Ann', 'Ben');
  const long = Array.from({ length: 250 }, (_, number) => `step ${number}`).join(' ');
  await ann.say(`@gpt slow 10 ms, ${long}`);
  await ends(ben, 'step 249');
  await ann.say(`@gpt slow 60 ms, ${long}, again`);
  await writes(ben, 'step 3');
  await ben.page.locator('#messages').hover();
  // Less than what counts as being near the end.
  await ben.page.mouse.wheel(0, -40);
  await ben.sees('#jump', 'To the newest');
  const end = await film(ben);
  await writes(ben, 'step 60');
  const frames = await end();
  assert.equal(new Set(frames.map(({ top }) => top)).size, 1, 'it does not move');
  await ben.page.click('#jump');
  await until('the end is in sight', async () => (await ben.page.locator('#messages').evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)) < 2);
  await ben.page.setViewportSize(DESKTOP);
  await stop(ann).click();
  await ben.sees('.gpt.stopped .fate-text', ', stopped');
});
