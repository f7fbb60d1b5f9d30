import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { expect, test } from "vitest";
import { codes, Parley, states } from "../src/index.js";

const home = fileURLToPath(new URL("..", import.meta.url));
const bin = (name: string) => join(home, "node_modules", ".bin", name);

test("each build has at most 6 KB, gzipped", () => {
  for (const file of ["dist/parley.js", "dist/esm/index.js", "dist/cjs/index.js"]) {
    const size = gzipSync(readFileSync(join(home, file)), { level: 9 }).length;
    expect(size, file).toBeLessThanOrEqual(6 * 1024);
  }
});

test("the server's chat page has this build", () => {
  const served = readFileSync(join(home, "../../engine/admin/page/parley.js"), "utf8");
  expect(served === readFileSync(join(home, "dist/esm/index.js"), "utf8"), "run `npm run page`, and commit engine/admin/page/parley.js").toBe(true);
});

test("it depends on nothing", () => {
  const description = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  expect(Object.keys(description).filter((k) => /ependencies/.test(k))).toEqual(["devDependencies"]);
});

test("every code and state has a sentence, and the server's codes are those of docs/codes.md", () => {
  for (const text of [...Object.values(codes), ...Object.values(states)]) expect(text).toMatch(/^[a-zA-Z].*\.$/);
  const doc = readFileSync(join(home, "../../docs/codes.md"), "utf8");
  const list = /## Error codes\n([^]*?)\n## /.exec(doc)![1]!;
  const rows = [...list.matchAll(/^\| `(\w+)` \|/gm)].map((row) => row[1]!);
  expect(rows.length).toBeGreaterThan(15);
  for (const code of rows) expect(codes, code).toHaveProperty(code);
});

test("the README names options and methods that there are, and every option", () => {
  const readme = readFileSync(join(home, "README.md"), "utf8");
  const options = /interface Options \{([^]*?)\n\}/.exec(readFileSync(join(home, "src/types.ts"), "utf8"))![1]!;
  const names = (text: string, name: RegExp) => [...text.matchAll(name)].map((m) => m[1]!);
  expect(names(readme, /^\| `(\w+)` \|/gm)).toEqual(names(options, /^  (\w+)\?:/gm));
  const p = new Parley("ws://x");
  for (const [, of, method] of readme.matchAll(/\b(parley|room|client)\.([a-z]\w+)\(/g)) {
    expect(of === "room" ? p.room("a") : p, `${of}.${method}`).toHaveProperty(method!);
  }
});

test("publint and arethetypeswrong find nothing in the package, and it works as a package", async () => {
  const dir = mkdtempSync(join(tmpdir(), "parley-client-"));
  const said = execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", dir], { cwd: home });
  const tarball = join(dir, [JSON.parse(String(said))].flat().map((p: any) => p.filename ?? (Object.values(p)[0] as any).filename)[0]);
  const { messages, pkg } = await publint({ pkgDir: home, strict: true, pack: false });
  expect(messages.map((m) => formatMessage(m, pkg))).toEqual([]);
  execFileSync(bin("attw"), [tarball], { stdio: "inherit" });

  const installed = join(dir, "node_modules", "parley-client");
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "--strip-components=1", "-C", installed]);
  const program = (name: string, text: string) => (writeFileSync(join(dir, name), text), name);
  const run = (file: string) => String(execFileSync("node", [file], { cwd: dir }));
  const says = "console.log(new Parley('ws://x').state, codes.offline);";
  const expected = "idle " + codes["offline"] + "\n";
  expect(run(program("a.mjs", `import { Parley, codes } from "parley-client"; ${says}`))).toBe(expected);
  expect(run(program("b.cjs", `const { Parley, codes } = require("parley-client"); ${says}`))).toBe(expected);

  program(
    "use.mts",
    `import { Parley, ParleyError, codes, states, type Message, type State } from "parley-client";
     interface Mine { chat: { type: "chat"; text: string } }
     const p = new Parley<Mine & Record<string, Message>>(async () => "ws://x", { getToken: async () => null });
     const stop: () => void = p.onMessage("chat", (m) => console.log(m.text.length));
     p.on("state", (s: State) => console.log(states[s]));
     p.on("drop", ({ retryIn }) => console.log(retryIn === null ? "for good" : retryIn.toFixed()));
     p.on("error", (e: ParleyError) => console.log(codes[e.code]));
     const room = p.room("a", { since: { seq: 1, epoch: "e" } });
     room.on("gap", (g) => console.log(g.from, g.to));
     const n: number = (await room.publish({ text: "hi" })).recipients;
     for await (const m of room.members()) console.log(m.id, m.user, n, stop);
     // @ts-expect-error: there is no such event
     p.on("opened", () => {});
     // @ts-expect-error: there is no such option
     new Parley("ws://x", { retries: 3 });`,
  );
  program("use.cts", `import client = require("parley-client"); const s: client.State = new client.Parley("ws://x").state; console.log(s);`);
  for (const flags of [["--module", "nodenext"], ["--module", "esnext", "--moduleResolution", "bundler"]]) {
    const files = flags.length === 2 ? ["use.mts", "use.cts"] : ["use.mts"];
    execFileSync(bin("tsc"), ["--strict", "--noEmit", "--types", "", "--lib", "es2022,dom", "--target", "es2022", ...flags, ...files], { cwd: dir, stdio: "inherit" });
  }
});
