import { type AddressInfo, type Socket, connect, createServer } from "node:net";
import { onTestFinished } from "vitest";

/** A TCP proxy that breaks what goes through it. */
export class Proxy {
  pairs = new Set<[Socket, Socket]>();
  made = 0;
  /** The bytes that clients have sent, for each connection. */
  sent: string[] = [];
  /** New connections are reset. */
  refuses = false;
  #server = createServer((near) => this.#pair(near));

  constructor(readonly target: number) {}

  static async to(target: number): Promise<Proxy> {
    const p = new Proxy(target);
    p.#server.listen(0, "127.0.0.1");
    await new Promise((go) => p.#server.on("listening", go));
    onTestFinished(() => {
      p.reset();
      p.#server.close();
    });
    return p;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  #pair(near: Socket): void {
    near.on("error", () => {});
    if (this.refuses) return void near.resetAndDestroy();
    const far = connect(this.target, "127.0.0.1");
    const pair: [Socket, Socket] = [near, far];
    const at = this.made++;
    this.sent[at] = "";
    this.pairs.add(pair);
    near.on("data", (d) => {
      this.sent[at] += unmasked(d);
    });
    for (const [from, to] of [pair, [far, near]] as const) {
      from.on("error", () => to.destroy());
      from.on("close", () => {
        this.pairs.delete(pair);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  reset(): void {
    for (const [near, far] of this.pairs) near.resetAndDestroy(), far.resetAndDestroy();
  }

  close(): void {
    for (const [near, far] of this.pairs) near.end(), far.end();
  }

  /** Nothing passes any more on the connections there are, and nobody is told. */
  stall(): void {
    for (const [near, far] of this.pairs) {
      near.unpipe(far);
      far.unpipe(near);
      near.pause();
      far.pause();
    }
    this.pairs.clear();
  }
}

/** The payloads of the small masked frames of a chunk, one after the other; what is no frame counts for nothing. */
function unmasked(d: Buffer): string {
  let text = "";
  for (let at = 0; at + 6 <= d.length && d[at] === 0x81; ) {
    let n = d[at + 1]! & 127;
    let head = 2;
    if (n === 126) {
      n = d.readUInt16BE(at + 2);
      head = 4;
    }
    const mask = d.subarray(at + head, at + head + 4);
    const body = Buffer.from(d.subarray(at + head + 4, at + head + 4 + n));
    for (let i = 0; i < body.length; i++) body[i]! ^= mask[i % 4]!;
    text += body.toString() + "\n";
    at += head + 4 + n;
  }
  return text;
}
