// Where the outbox is kept: in memory, or in the browser's storage so that it survives a reload.

import type { OutboxEntry } from './outbox.js';

/** Keeps the outbox. Every change saves the whole list, which is bounded. */
export interface OutboxStorage {
  load(): OutboxEntry[];
  save(entries: readonly OutboxEntry[]): void;
}

/** Gone with the page. */
export function memoryStorage(): OutboxStorage {
  let kept: OutboxEntry[] = [];
  return {
    load: () => structuredClone(kept),
    save: (entries) => { kept = structuredClone([...entries]); },
  };
}

/**
 * `sessionStorage` (one tab) or `localStorage` (until it is cleared; then only one tab may use this key).
 * The key should name the user: what is found there is sent as whoever is logged in.
 */
export function webStorage(storage: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>, key: string): OutboxStorage {
  return {
    load: () => {
      try {
        const kept: unknown = JSON.parse(storage.getItem(key) ?? '[]');
        return Array.isArray(kept) ? kept.filter(isEntry) : [];
      } catch {
        return [];
      }
    },
    save: (entries) => {
      if (entries.length) storage.setItem(key, JSON.stringify(entries));
      else storage.removeItem(key);
    },
  };
}

function isEntry(value: unknown): value is OutboxEntry {
  const entry = value as Partial<OutboxEntry> | null;
  return typeof entry?.cid === 'string' && typeof entry.roomID === 'string' && typeof entry.createdAt === 'number'
    && typeof entry.payload === 'object' && entry.payload !== null;
}
