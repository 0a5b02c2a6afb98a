// Who is logged in, in this tab only: two tabs can be two users.

const SESSION = 'roomcast.session';
const read = (storage, key) => {
  try {
    return JSON.parse(storage.getItem(key)) ?? undefined;
  } catch {
    return undefined;
  }
};

/** Logs in at the demo's backend, which asks for no password. */
export async function login(backend, username) {
  let answer;
  try {
    answer = await fetch(`${backend}/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ username }),
    });
  } catch {
    throw new Error('The login service cannot be reached. Is the demo still running?');
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const reason = body.message ?? body.reason ?? body.error;
    throw new Error(answer.status === 400 && reason ? `This name cannot be used: ${reason}` : 'The login was refused.');
  }
  return save({ ...body, node: undefined });
}

/** Ends the session at the backend too; best effort. */
export function logout(backend, { refreshToken, user }) {
  sessionStorage.removeItem(SESSION);
  sessionStorage.removeItem(outboxOf(user));
  fetch(`${backend}/logout`, {
    method: 'POST',
    keepalive: true,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ refreshToken }),
  }).catch(() => {});
}

export const load = () => read(sessionStorage, SESSION);
export const forget = () => sessionStorage.removeItem(SESSION);

export function save(session) {
  sessionStorage.setItem(SESSION, JSON.stringify(session));
  return session;
}

/** Where messages wait that were not sent yet: in this tab, by user. */
export const outboxOf = (user) => `roomcast.outbox.${user.platformid}`;

const marksOf = (user) => `roomcast.read.${user.platformid}`;

/** Up to when each room was read, by room; it outlives the tab. */
export const loadMarks = (user) => read(localStorage, marksOf(user)) ?? {};

export function saveMark(user, room, ts) {
  localStorage.setItem(marksOf(user), JSON.stringify({ ...loadMarks(user), [room]: ts }));
}
