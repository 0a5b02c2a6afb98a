// Why a connection did not come about, or ended: the forms in which a server says so.

import { failure, type Failure } from './protocol.js';

/** How long the question for the reason may take. */
const PROBE_MS = 5_000;
/** Refusals that no waiting heals: the login itself is of no use any more. */
const ENDED_TEXTS = new Set(['Invalid refresh token', 'Token refresh failed']);
const ENDED_CODES = new Set(['revoked', 'user_refused']);
/** The notice before the cut of a connection whose access token has ended: the refresh token brings it back. */
export const EXPIRED = 'auth_expired';
/** What a server says to clients that it takes for old ones. */
const OLD_TEXTS: Record<string, string> = {
  "you're banned": 'blocked', 'Invalid refresh token': 'blocked', 'Token refresh failed': 'blocked', auth_unavailable: 'auth_unavailable',
};

/** The refusal of a handshake in `connect_error`; `undefined` when the transport failed instead. */
export function parseRefusal(text: string): Failure | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof (parsed as Failure | null)?.code === 'string') return failure(parsed);
  } catch {
    // No JSON: an old server, or a transport.
  }
  const code = OLD_TEXTS[text];
  return code ? { ok: false, code, message: text } : undefined;
}

/** Whether a new login is needed. */
export const isEnded = ({ code, message }: { code: string; message: string }): boolean => ENDED_CODES.has(code) || ENDED_TEXTS.has(message);

/** The client hides what was answered before the upgrade; asked once more, it can be read. */
export async function probe(url: string, path: string, headers: Record<string, string>): Promise<Failure> {
  const nobody: Failure = { ok: false, code: 'unreachable', message: 'the server cannot be reached' };
  try {
    const answer = await fetch(`${new URL(path, url).href}?EIO=4&transport=polling`, { headers, signal: AbortSignal.timeout(PROBE_MS) });
    if (answer.ok) return nobody;
    const body = failure(await answer.json().catch(() => ({ code: 'refused', message: `HTTP ${answer.status}` })));
    const seconds = Number(answer.headers.get('retry-after'));
    return body.retryAfterMs === undefined && seconds > 0 ? { ...body, retryAfterMs: seconds * 1000 } : body;
  } catch {
    return nobody;
  }
}
