import { ParleyError } from "./error.js";
import type { Message } from "./types.js";

export type Done = (answer: Message | null, error?: ParleyError) => void;

/** Questions to the server, by the `ref` that their answers carry back. */
export class Calls {
  #last = 0;
  #waiting = new Map<number, { done: Done; timer: ReturnType<typeof setTimeout> }>();

  /** Sends a question. `done` is called at most once, in the order of the answers. Returns how to forget the question. */
  ask(send: (m: object) => void, fields: object, timeout: number, done: Done): () => void {
    const ref = ++this.#last;
    const timer = setTimeout(() => this.#take(ref)?.(null, new ParleyError("timeout")), timeout);
    this.#waiting.set(ref, { done, timer });
    send({ ...fields, ref });
    return () => void this.#take(ref);
  }

  answered(m: Message): void {
    const error = m.type === "error" ? new ParleyError(m.code, m.message) : undefined;
    this.#take(m.ref)?.(error ? null : m, error);
  }

  /** Nothing that was asked is answered any more. */
  fail(code: string): void {
    for (const ref of [...this.#waiting.keys()]) this.#take(ref)?.(null, new ParleyError(code));
  }

  #take(ref: number): Done | undefined {
    const call = this.#waiting.get(ref);
    this.#waiting.delete(ref);
    clearTimeout(call?.timer);
    return call?.done;
  }
}
