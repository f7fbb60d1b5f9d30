import type { Message } from "./types.js";

interface Socket {
  onopen: unknown;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  terminate?(): void;
}

export interface Ends {
  opened(): void;
  message(m: Message): void;
  closed(code: number, reason: string): void;
}

/** One connection. After `close` and `abandon`, and after `closed`, it tells nothing more. */
export class Link {
  #socket: Socket;
  #ends: Ends;

  constructor(kind: unknown, url: string, protocols: string[], ends: Ends) {
    const Kind = (kind ?? (globalThis as any).WebSocket) as new (url: string, protocols: string[]) => Socket;
    if (!Kind) throw new TypeError("there is no WebSocket here: give one in the options");
    const s = (this.#socket = new Kind(url, protocols));
    this.#ends = ends;
    s.onopen = () => ends.opened();
    s.onmessage = (e: { data: unknown }) => this.#message(e.data);
    s.onerror = () => {}; // onclose follows, and says more
    s.onclose = (e: { code: number; reason: string }) => {
      this.#detach();
      ends.closed(e.code, e.reason);
    };
  }

  send(m: object): void {
    this.#socket.send(JSON.stringify(m));
  }

  close(code: number, reason: string): void {
    this.#detach();
    this.#socket.close(code, reason);
  }

  /** Gives up a connection that may be dead: nothing waits for the other end. */
  abandon(): void {
    this.#detach();
    const s = this.#socket;
    if (s.terminate) s.terminate();
    else s.close();
  }

  #message(data: unknown): void {
    let m: Message | null = null;
    try {
      if (typeof data === "string") m = JSON.parse(data);
    } catch {} // the server's raw handler may say anything
    this.#ends.message(m && typeof m === "object" ? m : { type: "" });
  }

  #detach(): void {
    const s = this.#socket;
    s.onopen = s.onmessage = s.onclose = null;
  }
}
