import type { Storage } from "./types.js";

/**
 * The token that resumes the session. It works once: while a resume has no answer yet, the token that it showed is kept,
 * and the one that the server has sent for the new connection waits.
 */
export class Session {
  token: string | null = null;
  /** The token is that of an earlier page: which rooms the session has is not known. */
  restored = false;
  /** A resume has no answer yet. */
  pending = false;
  #fresh: string | null = null;

  constructor(
    readonly storage: Storage | null | undefined,
    readonly key: string,
  ) {}

  restore(): void {
    try {
      this.token = this.storage?.getItem(this.key) || null;
    } catch {} // storage may be forbidden
    this.restored = !!this.token;
  }

  heard(token: string): void {
    if (this.pending) this.#fresh = token;
    else this.#keep(token);
  }

  resuming(): void {
    this.pending = true;
  }

  /** The resume is answered: its token is spent or void. After a success a fresh one follows. */
  answered(resumed: boolean): void {
    this.pending = this.restored = false;
    this.#keep(resumed ? null : this.#fresh);
    this.#fresh = null;
  }

  /** The connection is gone: an unanswered resume may be tried again. */
  dropped(): void {
    this.pending = false;
    this.#fresh = null;
  }

  forget(): void {
    this.dropped();
    this.restored = false;
    this.#keep(null);
  }

  #keep(token: string | null): void {
    try {
      if (token) this.storage?.setItem(this.key, token);
      else if (this.storage?.getItem(this.key) === this.token) this.storage?.removeItem(this.key);
    } catch {}
    this.token = token;
  }
}
