// What travels on the wire in protocol 2, as types.

/** A place in a room: everything up to and with `seq` of this epoch is known. `ts` makes the look-up exact. */
export interface Cursor {
  epoch: string;
  seq: number;
  ts?: number;
}

/** A message object or a change of one: the author's own fields beside what the server writes. */
export interface RoomEvent {
  id: string;
  roomID: string;
  platformid: string;
  username: string;
  message?: string;
  ts: number;
  timestamp: number;
  seq: number;
  epoch: string;
  /** `message`, `gpt` (a reply), `edit` or `delete`; others may come later. */
  kind: string;
  cid?: string;
  rev?: number;
  [field: string]: unknown;
}

/** Second argument of `previousMessages`. */
export interface PageInfo {
  roomID: string;
  epoch: string;
  topSeq: number;
  /** Whether the page begins exactly where the cursor ended. */
  recovered: boolean;
  /** Whether the page ends below the room's newest event. */
  more: boolean;
  /** Replies that are being written. */
  gpt?: PartOfReply[];
}

/** A reply that is being written, as far as it has come: pieces of the same `gen` behind `idx` follow; -1 = none yet. */
export interface PartOfReply {
  id: string;
  gen: number;
  idx: number;
  text: string;
}

/** `gpt:queued`: the question was taken in; `position` others of the room are before it. */
export interface GptQueued {
  roomID: string;
  id: string;
  position: number;
}

/** `gpt:delta`: a piece of a reply. A higher `gen` begins anew, `idx` counts from 0. */
export interface GptDelta {
  roomID: string;
  id: string;
  gen: number;
  idx: number;
  text: string;
}

/** `gpt:reset`: what was written so far does not count. */
export interface GptReset {
  roomID: string;
  id: string;
  gen: number;
}

/** `gpt:error`: there will be no reply. */
export interface GptError {
  roomID: string;
  id: string;
  code: string;
  message: string;
  /** Whether asking again may help. */
  retryable: boolean;
}

/** A reply as the message that it ends as. */
export interface GptMessage extends RoomEvent {
  kind: 'gpt';
  message: string;
  /** The message that asked. */
  replyTo: string;
  /** It was ended before its time, and is as long as it was then. */
  cancelled?: true;
}

/** The ack of a stored event. */
export interface Receipt {
  ok: true;
  id: string;
  seq: number;
  epoch: string;
  ts: number;
  /** Whether an earlier send had stored it already. */
  dup: boolean;
}

/** The ack of a failed event. */
export interface Failure {
  ok: false;
  code: string;
  message: string;
  retryAfterMs?: number;
}

/** `security:notice`: why the socket is about to be cut. */
export interface Notice {
  code: string;
  message: string;
  blockedForMs?: number;
}

/** `roomUpdate`. */
export interface RoomUpdate {
  roomID: string;
  participants?: { platformid?: string; nickname?: string }[];
  count?: number;
  topSeq?: number;
  preview?: unknown;
}

/** `token:refresh`: a rotated refresh token replaces the old one, which no longer works. */
export interface Tokens {
  accessToken: string;
  refreshToken?: string;
}

/** A failure as an exception, with the code of the contract or one of the client's own. */
export class RoomcastError extends Error {
  readonly code: string;
  readonly retryAfterMs: number | undefined;

  constructor({ code, message, retryAfterMs }: { code: string; message: string; retryAfterMs?: number }) {
    super(message);
    this.name = 'RoomcastError';
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Codes after which the same request may succeed later; a block ends by itself. */
const RETRYABLE = new Set(['rate_limited', 'unavailable', 'uncertain', 'auth_unavailable', 'no_answer', 'offline', 'blocked']);

export const isRetryable = ({ code, retryAfterMs }: Failure): boolean => RETRYABLE.has(code) || retryAfterMs !== undefined;

/** Whether a payload is an event of a room's log, whatever the name it came under. */
export function isRoomEvent(value: unknown): value is RoomEvent {
  const event = value as RoomEvent | null;
  return typeof event === 'object' && event !== null && typeof event.roomID === 'string' && typeof event.seq === 'number' && typeof event.epoch === 'string';
}

/** Whether an event is the end of a reply, the message that has the whole of it. */
export const isGptMessage = (event: RoomEvent): event is GptMessage => event.kind === 'gpt';

/** A failed ack in one form, whatever was answered. */
export function failure(answer: unknown): Failure {
  const { code, message, retryAfterMs } = (answer ?? {}) as Partial<Failure>;
  const known = { ok: false as const, code: code ?? 'internal', message: message ?? 'an answer of an unknown form' };
  return typeof retryAfterMs === 'number' ? { ...known, retryAfterMs } : known;
}
