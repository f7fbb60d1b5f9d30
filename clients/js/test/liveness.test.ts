import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { client, serve, states, until } from "./server.js";

test("a server that is stopped is given up, and the session goes on once it runs again", async () => {
  const s = await serve("--history", "**");
  const p = client(s.url, { quiet: 200, timeout: 1000 });
  await Promise.all([p.connect(), p.room("a").join()]);
  const seen = states(p);
  const drops: { code: number; reason: string }[] = [];
  p.on("drop", (d) => drops.push(d));
  s.child!.kill("SIGSTOP");
  await until("the stopped server is given up, and does not answer the next attempt either", () => drops.length === 2);
  expect(drops).toMatchObject([
    { code: 1006, reason: "nothing was heard of the server" },
    { code: 1006, reason: "the server does not answer" },
  ]);
  s.child!.kill("SIGCONT");
  expect(await p.connect()).toMatchObject({ resumed: true, recovered: true });
  expect(seen.faults).toEqual([]);
});

test("a client whose machine slept keeps a connection that is alive", async () => {
  const s = await serve();
  const program = `
    import WebSocket from "ws";
    import { Parley } from "parley-client";
    class Loud extends WebSocket {
      send(text) {
        if (text.includes('"ping"')) console.log("ping");
        super.send(text);
      }
    }
    const p = new Parley(process.argv[1], { WebSocket: Loud, quiet: 300 });
    p.on("drop", (d) => console.log("drop", JSON.stringify(d)));
    await p.connect();
    console.log("open");
    setInterval(() => p.request("whoami").then(() => console.log("answer")), 200);`;
  const child = spawn("node", ["--input-type=module", "-e", program, s.url], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let said = "";
  child.stdout.on("data", (d) => (said += d));
  await until("the client is open", () => said.includes("answer"));
  said = "";
  s.child!.kill("SIGSTOP");
  await until("the client asks whether the server is there", () => said.includes("ping"));
  child.kill("SIGSTOP");
  s.child!.kill("SIGCONT"); // its answer lies unread while the client sleeps
  await new Promise((go) => setTimeout(go, 7000)); // longer than the client waits for an answer
  said = "";
  child.kill("SIGCONT");
  await until("the client has spoken with the server again", () => said.split("answer").length > 8);
  expect(said).not.toContain("drop");
});
