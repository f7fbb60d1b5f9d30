/** A connection that was open for so long has ended the row of failures. */
export const calm = 5000;

/** Close codes after which a client stays away. */
export const stays = (code: number): boolean => /^4(00[147]|[5-9]..)$/.test(String(code));

/** When to try again: full jitter over a bound that doubles, and never before the time that the server named. */
export class Retry {
  #failures = 0;
  #openSince: number | null = null;
  #notBefore = 0;

  constructor(
    readonly min = 500,
    readonly max = 20_000,
    readonly attempts = Infinity,
    readonly random: () => number = Math.random,
  ) {}

  opened(now: number): void {
    this.#openSince = now;
  }

  goodbye(seconds: number, now: number): void {
    this.#notBefore = now + seconds * 1000;
  }

  /** Milliseconds to wait after a drop; null: no more attempts. */
  next(now: number): number | null {
    if (this.#openSince !== null && now - this.#openSince >= calm) this.#failures = 0;
    this.#openSince = null;
    if (this.#failures >= this.attempts) return null;
    return this.#jitter(Math.min(this.max, this.min * 2 ** this.#failures++), now);
  }

  /** Milliseconds to wait when the network or the person is back. */
  soon(now: number): number {
    return this.#jitter(1000, now);
  }

  #jitter(bound: number, now: number): number {
    return Math.max(0, this.#notBefore - now) + this.random() * bound;
  }
}
