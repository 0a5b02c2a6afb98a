// The text of one reply, put together from pieces that may be missing, come twice, or belong to an earlier attempt.

import type { GptDelta, PartOfReply } from './protocol.js';

/** A server ends replies far below this; who sends more is not believed. */
const CHARS_MAX = 1_000_000;
/** Pieces kept behind a hole: more than any reply has. */
const AHEAD_MAX = 4_096;
/** What stands for pieces that are missing. */
const HOLE = ' … ';

export class ReplyText {
  #gen = 0;
  /** Everything up to the first hole. */
  #known = '';
  /** The number of the piece that follows it. */
  #next = 0;
  /** What came from behind the hole, by number. */
  readonly #ahead = new Map<number, string>();
  #chars = 0;

  /** The attempt it is of; above 1: an earlier one has failed. */
  get gen(): number {
    return this.#gen;
  }

  /** Whether pieces are missing. The final message has them. */
  get hasGap(): boolean {
    return this.#ahead.size > 0;
  }

  /** The text so far; an ellipsis stands for what is missing. */
  get text(): string {
    if (!this.hasGap) return this.#known;
    let text = this.#known;
    let next = this.#next;
    for (const [idx, piece] of [...this.#ahead].sort(([one], [other]) => one - other)) {
      text += (idx === next ? '' : HOLE) + piece;
      next = idx + 1;
    }
    return text;
  }

  /** One piece; whether it changes anything. */
  piece({ gen, idx, text }: Pick<GptDelta, 'gen' | 'idx' | 'text'>): boolean {
    if (gen < this.#gen) return false;
    if (gen > this.#gen) this.#begin(gen);
    if (idx < this.#next || this.#ahead.has(idx) || this.#chars + text.length > CHARS_MAX) return false;
    if (idx > this.#next && this.#ahead.size >= AHEAD_MAX) return false;
    this.#chars += text.length;
    this.#ahead.set(idx, text);
    this.#join();
    return true;
  }

  /** The text so far, as a join tells it; whether it changes anything. */
  part({ gen, idx, text }: Pick<PartOfReply, 'gen' | 'idx' | 'text'>): boolean {
    if (gen < this.#gen) return false;
    if (gen > this.#gen) this.#begin(gen);
    else if (idx < this.#next) return false;
    this.#known = text.slice(0, CHARS_MAX);
    this.#next = idx + 1;
    // Pieces overtake the answer to a join: those that are not in it are still good.
    for (const number of this.#ahead.keys()) if (number <= idx) this.#ahead.delete(number);
    this.#chars = [...this.#ahead.values()].reduce((sum, piece) => sum + piece.length, this.#known.length);
    this.#join();
    return true;
  }

  /** An attempt that begins; whether it is news. */
  reset(gen: number): boolean {
    if (gen <= this.#gen) return false;
    this.#begin(gen);
    return true;
  }

  #begin(gen: number): void {
    this.#gen = gen;
    this.#known = '';
    this.#next = 0;
    this.#chars = 0;
    this.#ahead.clear();
  }

  #join(): void {
    for (;;) {
      const piece = this.#ahead.get(this.#next);
      if (piece === undefined) return;
      this.#ahead.delete(this.#next);
      this.#known += piece;
      this.#next += 1;
    }
  }
}
