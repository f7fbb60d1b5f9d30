import type { ParleyError } from "./error.js";

/** A promise that is settled from outside. Its rejection need not be looked at. */
export class Deferred<T> {
  done = false;
  promise: Promise<T>;
  reject!: (e: ParleyError) => void;
  #resolve!: (v: T) => void;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {});
  }

  resolve(v: T): void {
    this.done = true;
    this.#resolve(v);
  }
}
