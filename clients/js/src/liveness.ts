const tick = 1000;
const answer = 5000;
const late = 3000;

/**
 * Finds out that a connection is dead. After `quiet` without a byte it asks; after 5 s without an answer the connection is
 * dead. A tick that comes late means that the page or the machine slept: what the server sent meanwhile may lie unread, so it
 * asks once more before it gives up.
 */
export class Liveness {
  #timer: ReturnType<typeof setInterval>;
  #heard = Date.now();
  #ticked = Date.now();
  #asked = 0;
  #again = false;

  constructor(
    readonly quiet: number,
    readonly ping: () => void,
    readonly dead: () => void,
  ) {
    this.#timer = setInterval(() => this.#tick(), Math.min(tick, quiet));
  }

  heard(): void {
    this.#heard = Date.now();
    this.#asked = 0;
    this.#again = false;
  }

  /** Asks now: the page has become visible, or the network is back. */
  ask(): void {
    this.#asked ||= Date.now();
    this.ping();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const now = Date.now();
    const slept = now - this.#ticked > tick + late;
    this.#ticked = now;
    if (this.#asked && now - this.#asked >= answer) {
      if (!slept || this.#again) return this.dead();
      this.#again = true;
      this.#asked = 0;
      this.ask();
    } else if (!this.#asked && (slept || now - this.#heard >= this.quiet)) {
      this.ask();
    }
  }
}
