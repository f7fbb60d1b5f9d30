// The real server, clients of it, and a proxy between them.
import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";
import { onTestFinished } from "vitest";
import { type Options, Parley, type State } from "../src/index.js";

export const secret = "a secret of at least thirty-two bytes";

/** Waits until something holds. How long it takes is the machine's affair. */
export async function until(what: string | (() => string), holds: () => unknown, ms = 60_000): Promise<void> {
  for (const end = Date.now() + ms; !holds(); ) {
    if (Date.now() > end) throw new Error("waited in vain until " + (typeof what === "string" ? what : what()));
    await new Promise((go) => setTimeout(go, 5));
  }
}

export async function freePort(): Promise<number> {
  const s = createServer().listen(0, "127.0.0.1");
  await new Promise((go) => s.on("listening", go));
  const { port } = s.address() as { port: number };
  await new Promise((go) => s.close(go));
  return port;
}

export class Server {
  child: ChildProcess | null = null;
  said = "";

  constructor(
    readonly port: number,
    readonly words: string[],
  ) {}

  get url(): string {
    return `ws://127.0.0.1:${this.port}/`;
  }

  async start(): Promise<void> {
    for (;;) {
      this.said = "";
      const words = ["serve", "--port", String(this.port), "--admin-port", "0", "--api-port", "0", ...this.words];
      const child = (this.child = spawn(process.env["PARLEY"]!, words, { stdio: ["ignore", "pipe", "pipe"] }));
      for (const stream of [child.stdout, child.stderr]) stream!.on("data", (d) => (this.said += d));
      await until("the server is ready: " + this.said, () => /ready on/.test(this.said) || child.exitCode !== null);
      if (child.exitCode === null) return;
      if (!/address already in use/.test(this.said)) throw new Error(this.said);
    }
  }

  /** Ends it; without time for farewells by default. */
  async end(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.child;
    this.child = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((go) => child.on("exit", go));
    child.kill(signal);
    await gone;
  }
}

export async function serve(...words: string[]): Promise<Server> {
  const s = new Server(await freePort(), words);
  await s.start();
  onTestFinished(async () => {
    s.child?.kill("SIGCONT");
    await s.end();
  });
  return s;
}

/** The settings of a server that demands tokens of a life of seconds. */
export function tokens(): string[] {
  const file = join(mkdtempSync(join(tmpdir(), "parley-")), "secret");
  writeFileSync(file, secret, { mode: 0o600 });
  return ["--auth", "required", "--jwt-secret-file", file, "--jwt-leeway", "1", "--jwt-grace", "1"];
}

const base64 = (v: object) => Buffer.from(JSON.stringify(v)).toString("base64url");

export function token(user: string, seconds: number, rights: object = { join: ["**"], publish: ["**"] }): string {
  const body = base64({ alg: "HS256", typ: "JWT" }) + "." + base64({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds, parley: rights });
  return body + "." + createHmac("sha256", secret).update(body).digest("base64url");
}

/** A client with short waits, which is closed when the test ends. */
export function client(url: string, options: Options = {}): Parley {
  const p = new Parley(url, { WebSocket, retry: { min: 5, max: 50 }, timeout: 60_000, ...options });
  onTestFinished(() => p.close());
  return p;
}

const follows: Record<State, string> = {
  idle: "connecting closed",
  connecting: "authenticating waiting closed",
  authenticating: "open waiting closed",
  open: "waiting closed",
  waiting: "connecting closed",
  closed: "connecting",
};

/** Notes the states of a client, and those that were skipped. */
export function states(p: Parley): { all: State[]; faults: string[] } {
  const seen = { all: [p.state], faults: [] as string[] };
  p.on("state", (s) => {
    const before = seen.all[seen.all.length - 1]!;
    if (!follows[before].split(" ").includes(s)) seen.faults.push(before + " -> " + s);
    seen.all.push(s);
  });
  return seen;
}

/** A client without any cleverness: what it says is sent, what it hears is kept. */
export class Plain {
  heard: any[] = [];
  closed: number | null = null;

  static async open(url: string): Promise<Plain> {
    const ws = new WebSocket(url);
    const p = new Plain(ws);
    await until("a plain client is greeted", () => p.heard.length > 0 || p.closed);
    return p;
  }

  private constructor(readonly ws: WebSocket) {
    ws.on("message", (m) => this.heard.push(JSON.parse(String(m))));
    ws.on("close", (code) => (this.closed = code));
    ws.on("error", () => {});
  }

  say(m: object): void {
    this.ws.send(JSON.stringify(m));
  }

  async ask(m: object): Promise<any> {
    const ref = "p" + Math.random();
    this.say({ ...m, ref });
    await until("an answer to " + JSON.stringify(m), () => this.heard.some((h) => h.ref === ref) || this.closed);
    return this.heard.find((h) => h.ref === ref);
  }
}
