import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { expect, onTestFinished, test } from "vitest";
import { Proxy } from "./proxy.js";
import { Plain, serve, until } from "./server.js";

const args = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const script = () => readFileSync(new URL("../dist/parley.js", import.meta.url), "utf8");

async function browser(): Promise<BrowserContext> {
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "parley-chromium-")), {
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    headless: true,
    args: args.split(" "),
    timeout: 120_000,
  });
  context.setDefaultTimeout(120_000);
  onTestFinished(() => context.close());
  return context;
}

/** A page with the client in it, from an address of its own. */
async function page(context: BrowserContext): Promise<Page> {
  const files: Record<string, [string, string]> = {
    "/": ["text/html", "<!doctype html><script src=parley.js></script>"],
    "/parley.js": ["text/javascript", script()],
    "/worker.js": ["text/javascript", `importScripts("/parley.js");
      onmessage = async ({ data }) => { const p = new parley.Parley(data); await p.connect(); postMessage(await p.room("w").join()); };`],
  };
  const site = createServer((q, a) => {
    const [type, text] = files[q.url!] ?? ["text/plain", ""];
    a.writeHead(200, { "content-type": type }).end(text);
  }).listen(0, "127.0.0.1");
  await new Promise((go) => site.on("listening", go));
  onTestFinished(() => void site.close());
  const tab = await context.newPage();
  await tab.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`);
  return tab;
}

/** Makes window.p, a client that by itself would wait for minutes. */
const patient = (tab: Page, url: string, quiet = 25_000) =>
  tab.evaluate(
    async ([url, quiet]) => {
      const w = globalThis as any;
      w.p = new w.parley.Parley(url, { retry: { min: 1e9, max: 1e9 }, quiet, storage: w.sessionStorage });
      w.drops = [];
      w.p.on("drop", (d: unknown) => w.drops.push(d));
      w.heard = [];
      w.p.on("message", (m: any) => w.heard.push(m.data));
      w.p.room("a");
      return w.p.connect();
    },
    [url, quiet] as const,
  );

/** Somebody looks at the page. A browser without a window never hides one, so the event is made by hand. */
const looks = (tab: Page) => tab.evaluate(() => (globalThis as any).document.dispatchEvent(new Event("visibilitychange")));

async function becomes(tab: Page, want: string): Promise<void> {
  await tab.waitForFunction((want) => (globalThis as any).p.state === want, want);
}

test("without a network no attempt is made; once it is back, or the page is looked at, one follows at once", async () => {
  const s = await serve("--history", "**");
  const proxy = await Proxy.to(s.port);
  const context = await browser();
  const tab = await page(context);
  await patient(tab, proxy.url);
  const other = await Plain.open(s.url);
  await other.ask({ type: "join", room: "a" });

  await context.setOffline(true);
  proxy.reset();
  await becomes(tab, "waiting");
  expect(await tab.evaluate(() => (globalThis as any).drops.at(-1).retryIn)).toBe(null);
  await other.ask({ type: "broadcast", room: "a", data: "while it was offline" });
  await context.setOffline(false);
  await becomes(tab, "open"); // by itself it would wait for days
  await tab.waitForFunction(() => (globalThis as any).heard.includes("while it was offline"));

  proxy.refuses = true;
  proxy.reset();
  await becomes(tab, "waiting");
  expect(await tab.evaluate(() => (globalThis as any).drops.at(-1).retryIn)).toBeGreaterThan(1000);
  proxy.refuses = false;
  await looks(tab);
  await becomes(tab, "open");
});

test("a page that becomes visible asks at once whether its connection lives", async () => {
  const s = await serve();
  const proxy = await Proxy.to(s.port);
  const context = await browser();
  const tab = await page(context);
  await patient(tab, proxy.url, 1e9);
  proxy.stall();
  await looks(tab);
  await tab.waitForFunction(() => (globalThis as any).drops.length > 0);
  expect(await tab.evaluate(() => (globalThis as any).drops[0].reason)).toBe("nothing was heard of the server");
});

test("a reload keeps the session, and a worker can have a client", async () => {
  const s = await serve("--history", "**");
  const tab = await page(await browser());
  const { id } = (await patient(tab, s.url)) as { id: string };
  await tab.waitForFunction(() => (globalThis as any).sessionStorage.length === 1);
  await tab.reload();
  expect(await patient(tab, s.url)).toMatchObject({ resumed: true, recovered: true });
  expect(await tab.evaluate(() => (globalThis as any).p.id)).not.toBe(id);
  const joined = await tab.evaluate(
    (url) =>
      new Promise((go) => {
        const worker = new (globalThis as any).Worker("/worker.js");
        worker.onmessage = (e: any) => go(e.data);
        worker.postMessage(url);
      }),
    s.url,
  );
  expect(joined).toEqual({ members: 1, gap: false });
});

test("the README's page works when it is opened", async () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const text = /```html\n([^]*?)```/.exec(readme)![1]!;
  expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(40);
  const s = await serve("--history", "**");
  const proxy = await Proxy.to(s.port);
  const dir = mkdtempSync(join(tmpdir(), "parley-page-"));
  expect(text).toContain("ws://127.0.0.1:9090/");
  writeFileSync(join(dir, "page.html"), text.replace("ws://127.0.0.1:9090/", proxy.url));
  writeFileSync(join(dir, "parley.js"), script());
  const context = await browser();
  const [ann, bob] = [await context.newPage(), await context.newPage()];
  for (const tab of [ann, bob]) {
    await tab.goto(pathToFileURL(join(dir, "page.html")).href);
    await tab.waitForFunction(() => (globalThis as any).document.getElementById("state").textContent === "Messages come and go.");
  }
  const sees = (tab: Page, what: string) => tab.waitForFunction((what) => (globalThis as any).document.getElementById("log").textContent.includes(what), what);
  const other = await Plain.open(s.url);
  expect(await other.ask({ type: "join", room: "chat" })).toMatchObject({ members: 3 });
  await ann.locator("input").fill("hello");
  await ann.locator("input").press("Enter");
  await sees(bob, ": hello");
  await sees(ann, "me: hello (to 2)");
  const made = proxy.made;
  proxy.reset();
  await until("both are back", () => proxy.made >= made + 2);
  await bob.locator("input").fill("still there?");
  await bob.locator("input").press("Enter");
  await sees(ann, ": still there?");
  expect(await ann.locator(".fault").count()).toBe(0);
});
