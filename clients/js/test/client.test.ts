import { expect, test } from "vitest";
import type { Gap, Message, Opened } from "../src/index.js";
import { Proxy } from "./proxy.js";
import { client, Plain, serve, states, token, tokens, until } from "./server.js";

const types = (text: string) => text.trim().split("\n").map((l) => JSON.parse(l).type as string);

test("a room is joined, spoken in, listed, read and left", async () => {
  const s = await serve("--history", "h*");
  const [ann, bob] = [client(s.url), client(s.url)];
  const room = ann.room("h1");
  const opened = await ann.connect();
  expect(opened).toMatchObject({ id: ann.id, resumed: false, recovered: false, lost: [] });
  expect(await room.join()).toEqual({ members: 1, gap: false });
  expect(room).toMatchObject({ state: "joined", position: { seq: 0 } });
  await bob.connect();
  const heard: Message[] = [];
  bob.onMessage("broadcast", (m) => heard.push(m));
  expect(await bob.room("h1").join()).toEqual({ members: 2, gap: false });
  expect(await room.publish({ text: "hello" })).toMatchObject({ recipients: 1 });
  await until("bob hears ann", () => heard.length === 1);
  expect(heard[0]).toMatchObject({ room: "h1", from: ann.id, data: { text: "hello" }, seq: 1 });
  const members = [];
  for await (const m of room.members()) members.push(m);
  expect(members.sort((a, b) => (a.id < b.id ? -1 : 1))).toEqual([ann.id!, bob.id!].sort().map((id) => ({ id, user: null })));
  expect(await room.history()).toEqual(heard);
  const left = new Promise((go) => bob.room("h1").on("member_left", go));
  await room.leave();
  expect(room).toMatchObject({ state: "left", position: null });
  expect(await left).toEqual({ id: opened.id, user: null });
  await expect(room.publish(1)).rejects.toMatchObject({ code: "not_in_room" });
  await expect(ann.request("no such")).rejects.toMatchObject({ code: "unknown_type" });
  await expect(ann.room("\n").join()).rejects.toMatchObject({ code: "invalid_room" });
  expect(ann.room("\n").state).toBe("refused");
});

test("all that there is to say at the opening is in one flight", async () => {
  const s = await serve("--history", "**", ...tokens());
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url, { token: token("ann", 600) });
  p.room("a");
  p.room("b");
  await p.connect();
  expect(p.user).toBe("ann");
  expect(types(proxy.sent[0]!)).toEqual(["auth", "join", "join"]);
  const drop = new Promise((go) => p.on("drop", go));
  proxy.refuses = true;
  proxy.reset();
  await drop;
  p.room("c");
  const open = new Promise<Opened>((go) => p.on("open", go));
  proxy.refuses = false;
  expect(await open).toMatchObject({ resumed: true, recovered: true, lost: [] });
  const flight = proxy.sent.at(-1)!;
  expect(types(flight)).toEqual(["auth", "reconnect", "join"]);
  const last = JSON.parse(flight.trim().split("\n")[1]!).last;
  expect(last).toEqual({ a: p.room("a").position, b: p.room("b").position });
  expect(p.room("c").state).toBe("joined");
});

test("rooms that the resume does not bring are joined again, and their messages are replayed", async () => {
  const s = await serve("--history", "**", "--reconnection-ttl", "1");
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url);
  const heard: Message[] = [];
  p.room("a").on("message", (m) => heard.push(m));
  await p.connect();
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });
  proxy.refuses = true;
  proxy.reset();
  for (let i = 0; i < 3; i++) await other.ask({ type: "broadcast", room: "a", data: i });
  const old = new Promise((go) => setTimeout(go, 2500)); // the session's life, which only time can end
  await old;
  const open = new Promise<Opened>((go) => p.on("open", go));
  proxy.refuses = false;
  expect(await open).toMatchObject({ resumed: false, recovered: true, lost: [] });
  await until("the replay is there", () => heard.length === 3);
  expect(heard.map((m) => m.data)).toEqual([0, 1, 2]);
});

test("a gap names what is missing", async () => {
  const s = await serve("--history", "h*=messages:5");
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url);
  const gaps: Gap[] = [];
  const heard: Message[] = [];
  for (const name of ["h", "plain"]) {
    p.room(name).on("gap", (g) => gaps.push(g));
    p.room(name).on("message", (m) => heard.push(m));
  }
  await p.connect();
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "h" });
  await other.ask({ type: "broadcast", room: "h", data: 1 });
  await until("the first message is there", () => heard.length === 1);
  proxy.refuses = true;
  proxy.reset();
  for (let i = 2; i <= 12; i++) await other.ask({ type: "broadcast", room: "h", data: i });
  const open = new Promise<Opened>((go) => p.on("open", go));
  proxy.refuses = false;
  expect(await open).toMatchObject({ resumed: true, recovered: false });
  await until("the replay is there", () => heard.length === 6);
  expect(gaps).toEqual([
    { room: "h", from: 2, to: 7 },
    { room: "plain", from: null, to: null },
  ]);
  expect(heard.map((m) => m.data)).toEqual([1, 8, 9, 10, 11, 12]);
});

test("messages that come twice are delivered once", async () => {
  const s = await serve("--history", "**");
  const p = client(s.url);
  const room = p.room("a");
  const heard: number[] = [];
  room.on("message", (m) => heard.push(m.seq!));
  await p.connect();
  const start = room.position!;
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });
  for (let i = 0; i < 3; i++) await other.ask({ type: "broadcast", room: "a", data: i });
  await until("three messages are there", () => heard.length === 3);
  let joined = 0;
  room.on("joined", () => joined++);
  p.send("join", { room: "a", since: start }); // the server replays all three
  await other.ask({ type: "broadcast", room: "a", data: 3 });
  await until("the fourth message is there", () => heard.includes(4));
  expect(joined).toBe(1);
  expect(heard).toEqual([1, 2, 3, 4]);
});

test("a client that asks for what was before gets it first", async () => {
  const s = await serve("--history", "**");
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });
  const { seq, epoch } = await other.ask({ type: "broadcast", room: "a", data: 0 });
  for (let i = 1; i < 4; i++) await other.ask({ type: "broadcast", room: "a", data: i });
  const p = client(s.url);
  const heard: unknown[] = [];
  const room = p.room("a", { since: { seq, epoch } });
  room.on("message", (m) => heard.push(m.data));
  await p.connect();
  expect(await room.join()).toMatchObject({ gap: false });
  await until("three messages are there", () => heard.length === 3);
  expect(heard).toEqual([1, 2, 3]);
});

test("a room that was left while the connection was away is left in the session, too", async () => {
  const s = await serve();
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url);
  const room = p.room("a");
  await p.connect();
  const other = await Plain.open(s.url);
  expect(await other.ask({ type: "join", room: "a" })).toMatchObject({ members: 2 });
  const waiting = new Promise((go) => p.on("drop", go));
  proxy.refuses = true;
  proxy.reset();
  await waiting;
  await room.leave();
  expect(room.state).toBe("left");
  proxy.refuses = false;
  await p.connect();
  await p.room("b").join(); // is answered behind what the resume has left
  expect(await other.ask({ type: "members", room: "a" })).toMatchObject({ members: [other.heard[0].connection_id] });
  expect(room.state).toBe("left");
});

test("a room that is left and joined in one breath is joined", async () => {
  const s = await serve("--history", "**");
  const p = client(s.url);
  const room = p.room("a");
  const told: string[] = [];
  for (const name of ["joined", "left", "gap"] as const) room.on(name, () => told.push(name));
  await p.connect();
  const leaving = room.leave();
  const joining = room.join();
  await leaving;
  expect(await joining).toEqual({ members: 1, gap: false });
  expect(room.state).toBe("joined");
  expect(told).toEqual(["joined", "left", "joined"]);
});

test("the token of the session is kept over a reload of the page", async () => {
  const s = await serve("--history", "**");
  const kept = new Map<string, string>();
  const storage = {
    getItem: (k: string) => kept.get(k) ?? null,
    setItem: (k: string, v: string) => void kept.set(k, v),
    removeItem: (k: string) => void kept.delete(k),
  };
  const proxy = await Proxy.to(s.port);
  const first = client(proxy.url, { storage });
  await Promise.all([first.connect(), first.room("a").join()]);
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });
  expect(kept.size).toBe(1);
  const page = new Map(kept);
  proxy.stall(); // the page is gone without a word
  first.close();
  kept.set([...page.keys()][0]!, [...page.values()][0]!);
  await other.ask({ type: "broadcast", room: "a", data: 1 });
  const second = client(proxy.url, { storage });
  const heard: number[] = [];
  const joined: unknown[] = [];
  second.on("message", (m) => heard.push(m.seq!));
  second.room("a").on("joined", (j) => joined.push(j));
  expect(await second.connect()).toMatchObject({ resumed: true, recovered: true });
  expect(await second.room("a").join()).toEqual({ members: 2, gap: false });
  await until("what was missed is there", () => heard.length === 1);
  expect(heard).toEqual([1]);
  expect(joined.length).toBe(1);
  second.close();
  expect(kept.size).toBe(0);
});

test("publishes and requests are refused while the client is not open, or wait if asked to", async () => {
  const s = await serve("--history", "**");
  const proxy = await Proxy.to(s.port);
  const strict = client(proxy.url);
  await expect(strict.room("a").publish(1)).rejects.toMatchObject({ code: "offline" });
  expect(() => strict.send("chat", {})).toThrow("not open");
  const p = client(proxy.url, { queue: 2 });
  void p.connect();
  const abort = new AbortController();
  const waits = [p.room("a").publish("first"), p.request("ping2", {}, { signal: abort.signal })];
  await expect(p.room("a").publish("third")).rejects.toMatchObject({ code: "offline" });
  abort.abort();
  await expect(waits[1]).rejects.toMatchObject({ name: "AbortError" });
  waits[1] = p.room("a").publish("second");
  expect(await Promise.all(waits)).toMatchObject([{ seq: 1 }, { seq: 2 }]);
  const asked = p.request("broadcast", { room: "a", data: 3 });
  proxy.reset();
  await expect(asked).rejects.toMatchObject({ code: "dropped" });
});

test("a request that is not answered in time says so", async () => {
  const s = await serve();
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url);
  await p.connect();
  proxy.stall();
  await expect(p.request("whoami", {}, { timeout: 50 })).rejects.toMatchObject({ code: "timeout" });
});

test("after close() no listener is called, and connect() begins anew", async () => {
  const s = await serve("--history", "**");
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });
  const p = client(s.url);
  const seen = states(p);
  const room = p.room("a");
  const calls: string[] = [];
  const heard = room.on("message", () => p.close());
  for (const name of ["message", "joined", "left", "gap", "refused"] as const) room.on(name, () => calls.push(name));
  for (const name of ["open", "drop", "message", "error"] as const) p.on(name, () => calls.push(name));
  await p.connect();
  const asked = p.request("whoami").catch((e) => e.code);
  expect(await asked).not.toBe("closed");
  calls.length = 0;
  for (let i = 0; i < 5; i++) other.say({ type: "broadcast", room: "a", data: i });
  await until("the client is closed", () => p.state === "closed");
  await other.ask({ type: "broadcast", room: "a", data: 5 });
  expect(calls).toEqual([]);
  expect(seen.all.at(-1)).toBe("closed");
  heard();
  expect(await p.connect()).toMatchObject({ resumed: false });
  const pending = p.request("whoami").catch((e) => e.code);
  p.close();
  expect(await pending).toBe("closed");
  expect(seen.faults).toEqual([]);
});

test("each listener hears every state in order, whatever another one does", async () => {
  const s = await serve();
  const p = client(s.url);
  let again = 3;
  p.on("state", (state) => {
    if (state === "open") p.close();
    if (state === "closed" && again--) void p.connect();
  });
  const seen = states(p);
  void p.connect();
  await until("the client has closed four times", () => again < 0);
  const round = ["connecting", "authenticating", "closed"];
  expect(seen.all).toEqual(["idle", ...round, ...round, ...round, ...round]);
});
