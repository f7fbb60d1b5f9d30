import { expect, test } from "vitest";
import type { Gap, Message, Parley } from "../src/index.js";
import { Proxy } from "./proxy.js";
import { client, Plain, type Server, serve, states, token, tokens, until } from "./server.js";

const clients = 10;
const cutsEach = 20;
const rooms = ["a", "b"];

/** What one client has heard of one room, held to what the server promises. */
class Ledger {
  faults: string[] = [];
  heard = 0;
  resets = 0;
  #epochs: string[] = [];
  #own = new Set<string>();
  #at = 0;
  #gap = false;
  #holes: [string, number][] = [];

  constructor(
    readonly p: Parley,
    readonly name: string,
    readonly by: Map<string, string>,
  ) {
    const room = p.room(name);
    room.on("message", (m) => this.#message(m));
    room.on("gap", (g: Gap) => {
      if (g.from !== null) this.faults.push(`${name}: a gap from ${g.from} to ${g.to} in a history that has everything`);
      this.#gap = true;
    });
  }

  /** Numbers of this client's own messages, which do not come back to it. */
  async publish(): Promise<void> {
    const sent: any = await this.p.room(this.name).publish("from a client").catch(() => null);
    if (sent?.epoch) this.#own.add(sent.epoch + sent.seq);
  }

  #message(m: Message): void {
    this.heard++;
    this.by.set(m.epoch! + m.seq, m.user!);
    if (m.epoch !== this.#epochs.at(-1)) {
      if (this.#epochs.includes(m.epoch!)) this.faults.push(`${this.name}: epoch ${m.epoch} comes back`);
      if (this.#epochs.length > 0 && !this.#gap) this.faults.push(`${this.name}: a new epoch, and no gap was told`);
      if (this.#epochs.length > 0) this.resets++;
      this.#epochs.push(m.epoch!);
    } else {
      if (m.seq! <= this.#at) this.faults.push(`${this.name}: ${m.seq} after ${this.#at}`);
      for (let n = this.#at + 1; n < m.seq!; n++) this.#holes.push([m.epoch!, n]);
      if (this.#gap) this.faults.push(`${this.name}: a gap was told and the epoch goes on`);
    }
    this.#gap = false;
    this.#at = m.seq!;
  }

  /** Numbers that never came, and were not this client's own. The answers to some of its own publishes were lost. */
  missing(user: string, now: string): string[] {
    const mine = ([epoch, n]: [string, number]) => {
      const author = this.by.get(epoch + n);
      // Nobody can say who wrote a message of an epoch that has ended if only its author was there.
      return this.#own.has(epoch + n) || author === user || (author === undefined && epoch !== now);
    };
    return this.#holes.filter((hole) => !mine(hole)).map(String);
  }
}

/** Publishes into every room, from outside of the proxy, and keeps who published each number. */
async function publisher(s: Server, by: Map<string, string>, goOn: () => boolean): Promise<void> {
  for (let n = 0; goOn(); ) {
    const p = await Plain.open(s.url).catch(() => null);
    if (!p || p.closed) continue;
    const last: Record<string, number> = {};
    for (const room of rooms) await p.ask({ type: "auth", token: token("publisher", 3600) }), await p.ask({ type: "join", room });
    while (!p.closed && goOn()) {
      for (const room of rooms) p.say({ type: "broadcast", room, data: n++ });
      await new Promise((go) => setTimeout(go, 10));
      for (const m of p.heard.splice(0)) {
        if (m.type === "broadcast_sent") (by.set(m.epoch + m.seq, "publisher"), (last[m.room] = m.seq));
        if (m.type === "broadcast") by.set(m.epoch + m.seq, m.user);
      }
    }
    p.ws.close();
  }
}

test(`${clients * cutsEach} cuts at random instants: nothing is missing, nothing comes twice, no state is skipped`, async () => {
  const s = await serve("--history", "**=messages:100000;bytes:60000000", "--reconnection-max-attempts", "1000", ...tokens());
  const by = new Map<string, string>();
  let over = false;
  let login = true;
  const everybody: { p: Parley; proxy: Proxy; ledgers: Ledger[]; seen: ReturnType<typeof states>; drops: number[] }[] = [];
  for (let i = 0; i < clients; i++) {
    const proxy = await Proxy.to(s.port);
    // Every third client has tokens that end every few seconds, and whose renewal fails at times: the server closes with 4006.
    const short = i % 3 === 0;
    const getToken = async () => {
      if (short && !login) throw new Error("the login is away");
      return token("user" + i, short ? 3 : 3600);
    };
    const p = client(proxy.url, { getToken, quiet: 1000, queue: i, timeout: 5000 }); // a stall may meet an opening
    p.on("error", () => {});
    const drops: number[] = [];
    p.on("drop", (d) => drops.push(d.code));
    const ledgers = rooms.map((name) => new Ledger(p, name, by));
    everybody.push({ p, proxy, ledgers, seen: states(p), drops });
  }
  await Promise.all(everybody.map(({ p }) => p.connect()));
  const publishing = publisher(s, by, () => !over);
  const busy = everybody.map(async ({ ledgers }) => {
    while (!over) {
      await Promise.all(ledgers.map((l) => l.publish()));
      await new Promise((go) => setTimeout(go, Math.random() * 200));
    }
  });

  const cutting = everybody.map(async ({ p, proxy }) => {
    for (let cut = 0; cut < cutsEach; cut++) {
      await new Promise((go) => setTimeout(go, Math.random() ** 2 * 500)); // often while the last cut is being mended
      const kind = Math.random();
      if (kind < 0.05) proxy.stall();
      else if (kind < 0.5) proxy.reset();
      else proxy.close();
      if (Math.random() < 0.5) await until(() => `a cut is mended: ${p.state}, ${proxy.pairs.size} connections`, () => p.state === "open" && proxy.pairs.size > 0);
    }
  });
  for (let kill = 0; kill < 3; kill++) {
    await new Promise((go) => setTimeout(go, 1500));
    login = kill % 2 === 1;
    await s.end();
    await s.start();
  }
  login = true;
  await Promise.all(cutting);
  over = true;
  await Promise.all([publishing, ...busy]);

  const top: Record<string, { seq: number; epoch: string }> = {};
  const last = await Plain.open(s.url);
  await last.ask({ type: "auth", token: token("last", 3600) });
  for (const room of rooms) {
    await last.ask({ type: "join", room });
    const { seq, epoch } = await last.ask({ type: "broadcast", room, data: "the last one" });
    top[room] = { seq, epoch };
    for (const m of await all(last, room)) by.set(m.epoch + m.seq, m.user);
  }
  for (const { p } of everybody) {
    for (const room of rooms) {
      const is = () => `a client (${p.state}) has everything of ${room} (${p.room(room).state}): ${JSON.stringify(p.room(room).position)}, not ${JSON.stringify(top[room])}`;
      await until(is, () => JSON.stringify(p.room(room).position) === JSON.stringify(top[room]));
    }
  }
  for (const [i, { ledgers, seen }] of everybody.entries()) {
    expect(seen.faults).toEqual([]);
    for (const l of ledgers) {
      expect(l.faults).toEqual([]);
      expect(l.missing("user" + i, top[l.name]!.epoch)).toEqual([]);
      expect(l.heard).toBeGreaterThan(100);
    }
  }
  const codes = everybody.flatMap(({ drops }) => drops);
  const calls: string[] = [];
  for (const { p } of everybody) {
    p.on("state", () => calls.push("state")), p.on("drop", () => calls.push("drop")), p.on("message", () => calls.push("message"));
    p.close();
  }
  expect(calls.every((c) => c === "state")).toBe(true);
  const after = calls.length;
  await last.ask({ type: "broadcast", room: "a", data: "nobody hears it" });
  expect(calls.length).toBe(after);
  console.log(`${codes.length} drops, codes ${[...new Set(codes)].join(" ")}; ${everybody[0]!.ledgers[0]!.heard} messages of one room, ${everybody[0]!.ledgers[0]!.resets} new epochs`);
});

/** All messages that a room keeps. */
async function all(p: Plain, room: string): Promise<any[]> {
  const found: any[] = [];
  for (let since: object | undefined = { seq: 0, epoch: (await p.ask({ type: "history", room, limit: 1 })).epoch }; since; ) {
    const page: any = await p.ask({ type: "history", room, since, limit: 100 });
    found.push(...page.messages);
    const end = page.messages.at(-1);
    since = page.more ? { seq: end.seq, epoch: end.epoch } : undefined;
  }
  return found;
}
