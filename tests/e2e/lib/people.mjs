// Users, their tokens and their rooms: every test makes its own, so that tests do not meet.

import { createHmac, randomUUID } from 'node:crypto';

import { APP, JWT_SECRET } from './world.mjs';

let count = 0;
const unique = () => `${process.pid}-${(count += 1)}`;

/** A client address nobody else uses: blocks act on addresses. */
export function freshAddress() {
  count += 1;
  return `${20 + (count >> 8)}.${(process.pid >> 8) & 255}.${process.pid & 255}.${count & 255}`;
}

/** A room id nobody else uses. */
export const freshRoom = () => `r-${unique()}`;

export async function post(base, path, body) {
  const answer = await fetch(`${base}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`);
  return answer.json();
}

/** Logs a user in; a new one unless a name is given. */
export async function login(world, username = `ann-${unique()}`) {
  const { accessToken, refreshToken, user } = await post(world.proxy, '/login', { username });
  return { accessToken, refreshToken, ...user };
}

/** The same user, logged in once more: another device with a session of its own. */
export const loginAgain = (world, person) => login(world, person.username);

export async function logins(world, number) {
  return Promise.all(Array.from({ length: number }, () => login(world)));
}

/** Makes a room with these people in it. */
export async function makeRoom(world, people, { roomID = freshRoom(), ...more } = {}) {
  const participants = people.map(({ platformid, username }) => ({ platformid, nickname: username }));
  await post(world.proxy, '/api/rooms/create-room', { roomID, participants, ...more });
  return roomID;
}

const base64url = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** An access token of a person with any claims and secret. */
export function sign(person, { secret = JWT_SECRET, header = {}, expiresIn = 600, ...claims } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const head = base64url({ alg: 'HS256', typ: 'JWT', ...header });
  const { platformid, username } = person;
  const body = base64url({ platformid, username, sid: randomUUID(), iat: now, exp: now + expiresIn, ...claims });
  const signature = createHmac('sha256', secret).update(`${head}.${body}`).digest('base64url');
  return `${head}.${body}.${signature}`;
}

/** The claims of a token. */
export const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

/** What a client of this person sends in the handshake. */
export function credentials({ accessToken, refreshToken, username }) {
  return { accessToken, refreshToken, username, userAgent: `Mozilla/5.0 ${APP}` };
}
