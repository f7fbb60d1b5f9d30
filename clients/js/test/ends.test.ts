import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { client, freePort, Plain, serve, states, until } from "./server.js";

test("4001, 4004, 4007 and 4500 to 4999 end the client; after other codes it comes back", async () => {
  const key = execFileSync(process.env["PARLEY"]!, ["key", "create", "--id", "test", "--scopes", "all"]).toString().split("\n")[0]!;
  const api = await freePort();
  process.env["PARLEY_API_KEY"] = key;
  const s = await serve("--api-port", String(api));
  const disconnect = (connection: string, code: number) =>
    fetch(`http://127.0.0.1:${api}/v1/disconnect`, {
      method: "POST",
      headers: { authorization: "Bearer " + key, "content-type": "application/json" },
      body: JSON.stringify({ connection, code }),
    });
  for (const code of [4007, 4500, 4999, 4100, 4499, 1012]) {
    const p = client(s.url);
    const seen = states(p);
    const drops: unknown[] = [];
    p.on("drop", (d) => drops.push(d));
    await p.connect();
    await disconnect(p.id!, code);
    const ends = code === 4007 || code >= 4500;
    await until(`the client has seen ${code}`, () => (ends ? p.state === "closed" : seen.all.filter((x) => x === "open").length === 2));
    expect(drops[0]).toMatchObject(ends ? { code, retryIn: null } : { code });
    if (ends) expect(seen.all.slice(-2)).toEqual(["open", "closed"]);
    expect(seen.faults).toEqual([]);
  }
});

test("a session that another connection takes over ends the client", async () => {
  const s = await serve();
  let kept = "";
  const storage = { getItem: () => null, setItem: (_: string, v: string) => void (kept = v), removeItem: () => {} };
  const p = client(s.url, { storage });
  await p.connect();
  await until("the token has come", () => kept);
  const other = await Plain.open(s.url);
  const drop = new Promise((go) => p.on("drop", go));
  await other.ask({ type: "reconnect", token: kept });
  expect(await drop).toMatchObject({ code: 4004, retryIn: null });
  expect(p.state).toBe("closed");
  await expect(p.connect()).resolves.toMatchObject({ resumed: false });
});

test("a client waits for as long as the server's goodbye says", async () => {
  const s = await serve();
  const p = client(s.url, { retry: { min: 1, max: 1 } });
  await p.connect();
  const drop = new Promise<{ code: number; retryIn: number }>((go) => p.on("drop", go as any));
  await s.end("SIGTERM");
  const { code, retryIn } = await drop;
  expect(code).toBe(1001);
  expect(retryIn).toBeGreaterThan(900); // whole seconds from 1 on, less the time of the close
  await s.start();
  expect(await p.connect()).toMatchObject({ resumed: false, recovered: true });
});

test("a client that may not try again ends", async () => {
  const p = client(`ws://127.0.0.1:${await freePort()}/`, { retry: { min: 1, max: 1, attempts: 3 } });
  const seen = states(p);
  await expect(p.connect()).rejects.toMatchObject({ code: "gave_up" });
  expect(seen.all.filter((x) => x === "connecting").length).toBe(4);
});
