import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { Proxy } from "./proxy.js";
import { client, Plain, serve, states, token, tokens, until } from "./server.js";

test("a token that is about to end is renewed on the connection that there is", async () => {
  const s = await serve(...tokens());
  let fetched = 0;
  const p = client(s.url, { getToken: async () => (fetched++, token("ann", fetched === 1 ? 3 : 600)) });
  const seen = states(p);
  await p.connect();
  await until("the second token is fetched", () => fetched === 2);
  expect(await p.room("a").join()).toMatchObject({ members: 1 });
  expect(p.user).toBe("ann");
  expect(seen.all).toEqual(["idle", "connecting", "authenticating", "open"]);
});

test("a token that has ended is fetched again before the next attempt, and the session goes on", async () => {
  const s = await serve("--history", "**", ...tokens());
  let away = false;
  let fetched = 0;
  const getToken = async () => {
    if (away) throw new Error("the login is away");
    return token("ann", ++fetched === 1 ? 2 : 600);
  };
  const p = client(s.url, { getToken });
  const errors: string[] = [];
  p.on("error", (e) => errors.push(e.message));
  const drops: number[] = [];
  p.on("drop", (d) => drops.push(d.code));
  await Promise.all([p.connect(), p.room("a").join()]);
  away = true;
  await until("the server has closed the connection, and the login is still away", () => drops.length > 1);
  away = false;
  expect(await p.connect()).toMatchObject({ resumed: true, recovered: true });
  expect(drops[0]).toBe(4006);
  expect(errors[0]).toContain("the login is away");
  expect(fetched).toBe(2);
});

test.each(["message", "subprotocol"] as const)("an expired token in the %s is followed by another, or ends the client", async (tokenIn) => {
  const s = await serve(...tokens());
  const options = { token: token("ann", -600), tokenIn };
  const p = client(s.url, { ...options, getToken: async () => token("ann", 600) });
  await p.connect();
  expect(p.user).toBe("ann");
  const q = client(s.url, options);
  await expect(q.connect()).rejects.toMatchObject({ code: "token_expired" });
  expect(q.state).toBe("closed");
  const r = client(s.url, { token: "nonsense", tokenIn });
  await expect(r.connect()).rejects.toMatchObject({ code: "unauthorized" });
});

test("without a token where one is demanded, and with null from getToken, the client ends", async () => {
  const s = await serve(...tokens());
  await expect(client(s.url).connect()).rejects.toMatchObject({ code: "auth_required" });
  const p = client(s.url, { getToken: async () => null });
  await expect(p.connect()).rejects.toMatchObject({ code: "no_token" });
  expect(p.state).toBe("closed");
});

test("a client whose token cannot be verified now comes back when the server says so, with the same token", async () => {
  const key = { ...generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "jwk" }), kid: "first", alg: "ES256", use: "sig" };
  let asked = 0;
  const keys = createServer((_, a) => void (asked++ ? a.writeHead(500).end() : a.end(JSON.stringify({ keys: [key] }))));
  keys.listen(0, "127.0.0.1");
  await once(keys, "listening");
  onTestFinished(() => void keys.close());
  const url = `http://127.0.0.1:${(keys.address() as AddressInfo).port}/`;
  const s = await serve("--auth", "required", "--jwt-jwks-url", url, "--jwt-audience", "parley");
  await until("the server has read the keys", () => asked > 0);
  let fetched = 0;
  const unknown = [{ alg: "ES256", kid: "second" }, { sub: "ann", aud: "parley", exp: 4e9 }].map((v) => Buffer.from(JSON.stringify(v)).toString("base64url"));
  const p = client(s.url, { getToken: async () => (fetched++, [...unknown, "A".repeat(86)].join(".")) });
  const drops: { code: number; retryIn: number | null }[] = [];
  p.on("drop", (d) => drops.push(d));
  void p.connect();
  await until("the server has sent the client away", () => drops.length === 1);
  for (const { code, retryIn } of drops) {
    expect(code).toBe(1013);
    expect(retryIn).toBeGreaterThan(900);
  }
  expect(fetched).toBe(1);
});

test("a token in the handshake is not sent again in a message", async () => {
  const s = await serve(...tokens());
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url, { token: token("ann", 600), tokenIn: "subprotocol" });
  p.room("a");
  await p.connect();
  expect(p.user).toBe("ann");
  expect(proxy.sent[0]).toBe('{"type":"join","room":"a","ref":1}\n');
});

test("refresh() shows another token, and rooms that it does not allow are left", async () => {
  const s = await serve(...tokens());
  let rights: object = { join: ["a", "b"] };
  let login = true;
  const p = client(s.url, { getToken: async () => (login ? token("ann", 600, rights) : null) });
  const left: unknown[] = [];
  p.room("b").on("left", (l) => left.push(l));
  await Promise.all([p.connect(), p.room("a").join(), p.room("b").join()]);
  rights = { join: ["a"] };
  await p.refresh();
  await until("b is left", () => left.length > 0);
  expect(left).toEqual([{ code: "forbidden" }]);
  expect(p.room("a").state).toBe("joined");
  await expect(p.room("b").join()).rejects.toMatchObject({ code: "forbidden" });
  login = false;
  await expect(p.refresh()).rejects.toMatchObject({ code: "no_token" });
  expect(p.state).toBe("closed");
});

test.each([
  [300, "message"],
  [1, "message"],
  [300, "subprotocol"],
  [1, "subprotocol"],
] as const)("rooms of the token are joined unasked, and miss nothing, with a session of %s s and the token in the %s", async (ttl, tokenIn) => {
  const s = await serve("--history", "**", "--reconnection-ttl", String(ttl), ...tokens());
  const proxy = await Proxy.to(s.port);
  const p = client(proxy.url, { token: token("ann", 600, { join: ["a", "b"], auto: ["a"] }), tokenIn });
  const heard: unknown[] = [];
  p.on("message", (m) => heard.push(m.data));
  const gaps: unknown[] = [];
  await p.connect();
  const room = p.room("a", { join: false });
  room.on("gap", (g) => gaps.push(g));
  await until("a is joined", () => room.state === "joined");
  const other = await Plain.open(s.url);
  await other.ask({ type: "auth", token: token("bob", 600) });
  await other.ask({ type: "join", room: "a" });
  proxy.refuses = true;
  proxy.reset();
  for (let i = 0; i < 3; i++) await other.ask({ type: "broadcast", room: "a", data: i });
  if (ttl === 1) await new Promise((go) => setTimeout(go, 2500)); // the session's life, which only time can end
  proxy.refuses = false;
  expect(await p.connect()).toMatchObject({ resumed: ttl > 1, recovered: true });
  other.say({ type: "broadcast", room: "a", data: 3 });
  await until("the last message is there", () => heard.includes(3));
  expect(heard).toEqual([0, 1, 2, 3]);
  expect(gaps).toEqual([]);
  expect(room.state).toBe("joined");
});
