// The line one writes in: Enter sends, Shift+Enter breaks the line, Escape gives an edit up.

import { byId } from './dom.js';

/** What the server accepts, in bytes. */
const MAX_BYTES = 16_384;
const encoder = new TextEncoder();

export class Composer {
  /** `onSend(text)` for a new message, `onEdit(message, text)` for a changed one, `onLast()` names one's newest. */
  constructor({ onSend, onEdit, onLast, onProblem }) {
    Object.assign(this, { onSend, onEdit, onLast, onProblem, editing: undefined, kept: '' });
    this.box = byId('text');
    this.form = byId('composer');
    this.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit();
    });
    this.box.addEventListener('input', () => this.#fit());
    this.box.addEventListener('keydown', (event) => this.#key(event));
    byId('cancel-edit').addEventListener('click', () => this.stopEdit());
    new ResizeObserver(() => this.#fit()).observe(this.form);
  }

  #key(event) {
    // Enter also ends the choice of a character in an input method.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === 'Escape' && this.editing) {
      event.stopPropagation();
      this.stopEdit();
    } else if (event.key === 'ArrowUp' && this.box.value === '' && !this.editing) {
      const last = this.onLast();
      if (last) {
        event.preventDefault();
        this.startEdit(last);
      }
    }
  }

  submit() {
    const text = this.box.value.trim();
    if (!text) return;
    if (encoder.encode(text).length > MAX_BYTES) {
      this.onProblem('This message is too long. Send it in parts.');
      return;
    }
    const { editing } = this;
    if (editing) {
      this.stopEdit();
      if (text !== editing.message) this.onEdit(editing, text);
    } else {
      this.text = '';
      this.onSend(text);
    }
  }

  startEdit(message) {
    if (!this.editing) this.kept = this.box.value;
    this.editing = message;
    this.form.classList.add('editing');
    this.text = message.message;
    this.focus();
  }

  /** Back to the new message that was being written. */
  stopEdit() {
    if (!this.editing) return;
    this.editing = undefined;
    this.form.classList.remove('editing');
    this.text = this.kept;
    this.focus();
  }

  /** What is being written and not sent, to be kept with its room. */
  get draft() {
    return this.editing ? this.kept : this.box.value;
  }

  set text(text) {
    this.box.value = text;
    this.#fit();
  }

  /** Another room: its draft, and no edit. */
  reset(room) {
    this.editing = undefined;
    this.form.classList.remove('editing');
    this.box.placeholder = `Message ${room.id}`;
    this.text = room.draft;
  }

  focus() {
    this.box.focus();
    this.box.setSelectionRange(this.box.value.length, this.box.value.length);
  }

  #fit() {
    this.box.style.height = 'auto';
    this.box.style.height = `${Math.min(this.box.scrollHeight, 180)}px`;
    byId('send').disabled = this.box.value.trim() === '';
  }
}
