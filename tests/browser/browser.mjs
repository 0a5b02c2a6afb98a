// A headless Chromium, and screenshots of its pages: SHOTS=<folder> keeps them.

import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];
export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };

const shots = process.env.SHOTS ?? mkdtempSync(join(tmpdir(), 'roomcast-shots-'));
mkdirSync(shots, { recursive: true });

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });

/** The page as it is now. */
export const snap = (person, name) => person.page.screenshot({ path: join(shots, `${name}.png`), animations: 'disabled' });

/** The page at both widths, light and dark. */
export async function shoot(person, name, { phone } = {}) {
  for (const [width, viewport] of [['desktop', DESKTOP], ['phone', PHONE]]) {
    await person.page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await person.page.emulateMedia({ colorScheme });
      if (width === 'phone') await phone?.();
      await snap(person, `${name}-${width}-${colorScheme}`);
    }
  }
  await person.page.setViewportSize(DESKTOP);
  await person.page.emulateMedia({ colorScheme: 'light' });
}
