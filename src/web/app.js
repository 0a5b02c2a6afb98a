// The page of the demo: logs in, keeps a connection, and shows rooms.

import { Chat } from './chat.js';
import { avatar, byId, h } from './dom.js';
import { forget, load, login, logout } from './session.js';

let config;
let chat;

async function start() {
  try {
    config = await (await fetch('/config.json')).json();
  } catch {
    fail('The server does not answer', 'Is the demo still running? Reload this page when it is.');
    return;
  }
  if (!config.client) {
    fail('The Socket.IO client is missing', 'This program was built without it. Get it and build again: run “make client”, then “make build”.');
    return;
  }
  const session = load();
  if (session?.accessToken) await enter(session);
  else show('login');
}

/** Shows one of the screens. */
function show(screen) {
  for (const name of ['login', 'app', 'failure']) byId(name).hidden = name !== screen;
  if (screen === 'login') byId('name').focus();
}

function fail(title, text) {
  byId('failure-title').textContent = title;
  byId('failure-text').textContent = text;
  show('failure');
}

async function enter(session) {
  let io;
  let roomcast;
  try {
    [{ io }, roomcast] = await Promise.all([import('./vendor/socket.io.js'), import('./vendor/roomcast/index.js')]);
  } catch {
    fail('The page did not load completely', 'The node may be restarting. Reload this page.');
    return;
  }
  byId('me').replaceChildren(avatar(session.user.username), h('span', { class: 'me-name' }, session.user.username));
  show('app');
  chat = new Chat({ io, roomcast, config, session, onEnded: (reason) => leave(reason) });
}

/** Back to the login; with a reason when nobody asked for it. */
function leave(reason) {
  chat?.close();
  chat = undefined;
  forget();
  if (reason) sessionStorage.setItem('roomcast.reason', reason);
  // A fresh page: nothing of the user before is left in it.
  location.reload();
}

byId('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const username = byId('name').value.trim();
  if (!username) return;
  const [button, problem] = [byId('login-button'), byId('login-problem')];
  button.disabled = true;
  problem.textContent = '';
  try {
    await enter(await login(config.backend, username));
  } catch (error) {
    problem.textContent = error.message;
    byId('name').focus();
  }
  button.disabled = false;
});

byId('log-out').addEventListener('click', () => {
  const session = load();
  if (session) logout(config.backend, session);
  leave();
});
byId('log-in-again').addEventListener('click', () => leave());

byId('login-problem').textContent = sessionStorage.getItem('roomcast.reason') ?? '';
sessionStorage.removeItem('roomcast.reason');
start();
