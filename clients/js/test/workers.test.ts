import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Gap, Opened, Parley } from "../src/index.js";
import { client, serve, states, until } from "./server.js";

/** The process ids of the server's workers. */
const workers = (supervisor: number) => inRole(supervisor, "worker");

/** The process id of the bus. */
const buses = (supervisor: number) => inRole(supervisor, "bus");

function inRole(supervisor: number, role: string): number[] {
  const children = readdirSync(`/proc/${supervisor}/task`).flatMap((t) => readFileSync(`/proc/${supervisor}/task/${t}/children`, "utf8").trim().split(" "));
  return children.filter(Boolean).map(Number).filter((pid) => readFileSync(`/proc/${pid}/environ`, "utf8").includes(`PARLEY_ROLE=${role}`));
}

/** Clients of which both workers have some: an id begins with its worker's number. */
async function onBoth(url: string): Promise<Parley[]> {
  const list: Parley[] = [];
  while (list.length < 6 || new Set(list.map((p) => p.id!.slice(0, 4))).size < 2) {
    const p = client(url);
    list.push(p);
    await p.connect();
  }
  return list;
}

test("clients of a worker that is killed resume on another, and are told that rooms without history may have missed something", async () => {
  const s = await serve("--processes", "2");
  const everybody = await onBoth(s.url);
  const opens: Opened[] = [];
  const gaps: Gap[] = [];
  const heard: unknown[][] = [];
  const seen = everybody.map(states);
  for (const [i, p] of everybody.entries()) {
    p.on("open", (o) => opens.push(o));
    p.room("a").on("gap", (g) => gaps.push(g));
    heard[i] = [];
    p.room("a").on("message", (m) => heard[i]!.push(m.data));
  }
  await until("the rooms are joined", () => everybody.every((p) => p.room("a").state === "joined"));
  const before = everybody.map((p) => p.id!);
  opens.length = 0;
  // A join is kept by the other processes 50 ms after its answer at the latest; so a killed worker must not be too young.
  await new Promise((go) => setTimeout(go, 1000));
  process.kill(workers(s.child!.pid!)[0]!, "SIGKILL");
  const moved = () => everybody.filter((p, i) => p.id !== null && p.id !== before[i]);
  await until("the clients of one worker are back", () => moved().length > 0 && everybody.every((p) => p.state === "open"));
  await until("the rooms are joined", () => everybody.every((p) => p.room("a").state === "joined"));
  expect(opens.length).toBe(moved().length);
  expect(opens.map(({ resumed, recovered, lost }) => ({ resumed, recovered, lost }))).toEqual(
    opens.map(() => ({ resumed: true, recovered: false, lost: [] })),
  );
  expect(gaps).toEqual(opens.map(() => ({ room: "a", from: null, to: null })));
  for (const p of everybody.slice(0, 2)) await p.room("a").publish("hello");
  await until("all hear the first two", () => heard.every((list) => list.length > 0));
  expect(seen.flatMap((x) => x.faults)).toEqual([]);
});

test("rooms with history lose nothing and keep their numbers when a worker and then the bus is killed", async () => {
  const s = await serve("--processes", "2", "--history", "a=messages:500");
  const everybody = await onBoth(s.url);
  const gaps: Gap[] = [];
  const heard: { epoch: string | undefined; data: unknown }[][] = everybody.map(() => []);
  for (const [i, p] of everybody.entries()) {
    p.room("a").on("gap", (g) => gaps.push(g));
    p.room("a").on("message", (m) => heard[i]!.push({ epoch: m.epoch, data: m.data }));
  }
  await until("the room is joined", () => everybody.every((p) => p.room("a").state === "joined"));
  const [publisher, ...readers] = [everybody[0]!, ...heard.slice(1)];
  let published = 0;
  const publish = async (n: number) => {
    for (let i = 0; i < n; i++) {
      const data = published++;
      // Of a publish without an answer it is not known whether it came through: with its key it does once, however often it is sent.
      for (let sent = false; !sent; ) {
        await publisher.connect().catch(() => undefined);
        const fields = { room: "a", data, idempotency_key: `number ${data}` };
        sent = await publisher.request("broadcast", fields).then(() => true, () => false);
      }
    }
  };
  await publish(10);
  await new Promise((go) => setTimeout(go, 1000)); // sessions are kept by the other processes
  process.kill(workers(s.child!.pid!)[0]!, "SIGKILL");
  await publish(10);
  await until("all are back", () => everybody.every((p) => p.state === "open" && p.room("a").state === "joined"));
  process.kill(buses(s.child!.pid!)[0]!, "SIGKILL");
  await publish(10);
  await until("all have all", () => readers.every((list) => list.length >= published));
  for (const list of readers) {
    expect(list.map((m) => m.data)).toEqual(Array.from({ length: published }, (_, i) => i));
    expect(new Set(list.map((m) => m.epoch)).size).toBe(1);
  }
  expect(gaps).toEqual([]);
}, 60_000);
