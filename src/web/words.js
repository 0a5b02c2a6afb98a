// What went wrong, in plain words.

const CODES = {
  bad_payload: 'The server did not understand this request.',
  too_large: 'This message is too long.',
  not_member: 'You are not a member of this room.',
  not_joined: 'The room is not open yet. Try again in a moment.',
  not_author: 'Only the person who wrote a message can change it.',
  not_found: 'This message no longer exists.',
  rate_limited: 'That was a little fast. Wait a moment and try again.',
  blocked: 'You are blocked for the moment.',
  unavailable: 'The service cannot do this right now. Try again in a moment.',
  uncertain: 'It is not certain that this arrived. Try again: it will not be doubled.',
  cid_conflict: 'Another message was already sent under this number.',
  room_gone: 'This room was deleted.',
  auth_expired: 'Your login has ended. Log in again.',
  auth_unavailable: 'Logins cannot be checked right now. Nothing is wrong with yours.',
  too_many_rooms: 'You are in more rooms than can be asked about at once.',
  no_answer: 'The server did not answer in time.',
  expired: 'There was no connection for too long, so it is not certain whether this arrived.',
  outbox_full: 'Too many messages wait to be sent already.',
  protocol: 'This server is too old for this page.',
  offline: 'There is no connection right now. Try again when it is back.',
};

/** The words for a failed ack or an `errorMessage`. */
export function explain({ code, message } = {}) {
  return CODES[code] ?? (message ? `The server says: ${message}` : 'Something went wrong.');
}

const REPLIES = {
  provider_unavailable: 'The model cannot be reached right now.',
  rate_limited: 'The model has too much to do right now.',
  timeout: 'The model took too long.',
  bad_stream: 'The answer broke off in the middle.',
  unauthorized: 'The model refuses this service. Whoever runs it has to look at that.',
  context_too_long: 'This conversation is longer than the model can read.',
  too_large: 'The answer became too long.',
  refused: 'The model does not answer this question.',
  room_busy: 'Too many questions of this room wait for an answer already.',
  queue_full: 'Too many questions wait for an answer already.',
  user_busy: 'Too many questions of the same person wait for an answer already.',
  budget: 'The daily limit is reached. Ask again tomorrow.',
  cancelled: 'Stopped before there was an answer.',
  deadline: 'There was no answer in time.',
  stalled: 'The answer failed again and again.',
  unconfigured: 'No model is set up here.',
  lost: 'It is not known what became of this answer.',
};

/** Why there is no reply of the model. */
export function explainReply({ code, message } = {}) {
  return REPLIES[code] ?? (message ? `The server says: ${message}` : 'There was no answer.');
}

const ENDED = {
  'Invalid refresh token': 'Your login belongs to somebody else. Log in again.',
  'Token refresh failed': 'Your login has ended. Log in again.',
};
const WAITING = {
  lost: 'The connection was lost.',
  auth_expired: 'Your login is being renewed.',
  unreachable: 'The node does not answer.',
  auth_unavailable: 'Logins cannot be checked right now. Nothing is wrong with yours.',
  rate_limited: 'Too many connections come from your network right now.',
  draining: 'This node is being restarted.',
  origin: 'This node does not accept connections from this page’s address.',
};

/** A state of the connection: what it means, and whether waiting helps. */
export function explainState({ kind, code, message, retryAt, exact, network }) {
  switch (kind) {
    case 'waiting': return { kind, retryAt, reason: WAITING[code] ?? `The server says: ${message}` };
    case 'ended': return { kind, text: ENDED[message] ?? message };
    case 'blocked': return { kind, retryAt, exact, ...explainBlock({ code, message, network }) };
    default: return { kind };
  }
}

function explainBlock({ code, message, network }) {
  if (network) {
    return {
      title: 'This network is blocked for the moment',
      text: 'Something in the network you are in connected in a way that the server does not allow. Blocks end by themselves.',
    };
  }
  // Anything but the plain refusal of a handshake is a notice, which says why.
  const text = code === 'blocked'
    ? 'This login, or the network you are in, did something that the server does not allow. Blocks end by themselves.'
    : message;
  return { title: 'You are blocked for the moment', text };
}

/** `in 5 s`, `in 2 min`. */
export function inTime(ms) {
  const seconds = Math.max(1, Math.ceil(ms / 1000));
  return seconds < 100 ? `in ${seconds} s` : `in ${Math.ceil(seconds / 60)} min`;
}

export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

export const timeOf = (ts) => clock.format(ts);

/** `Today`, `Yesterday` or the date. */
export function dayOf(ts) {
  const day = new Date(ts).toDateString();
  if (day === new Date().toDateString()) return 'Today';
  const yesterday = new Date();
  yesterday.setDate(yesterday.getDate() - 1);
  return day === yesterday.toDateString() ? 'Yesterday' : date.format(ts);
}
