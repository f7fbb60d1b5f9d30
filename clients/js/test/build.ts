import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Builds the client, and the server unless PARLEY names one. */
export default function (): void {
  const root = fileURLToPath(new URL("../../..", import.meta.url));
  execFileSync("node", ["build.mjs"], { cwd: fileURLToPath(new URL("..", import.meta.url)), stdio: "inherit" });
  if (process.env["PARLEY"]) return;
  const binary = fileURLToPath(new URL("../node_modules/.cache/parley", import.meta.url));
  execFileSync("go", ["build", "-trimpath", "-o", binary, "./cmd/parley"], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, CGO_ENABLED: "0" },
  });
  process.env["PARLEY"] = binary;
}
