// Builds dist/: modules for import and for require, one file for a script tag, and the types.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));
rmSync("dist", { recursive: true, force: true });
const common = { entryPoints: ["src/index.ts"], bundle: true, minify: true, target: "es2022", legalComments: "none" };
await Promise.all([
  build({ ...common, format: "esm", outfile: "dist/esm/index.js" }),
  build({ ...common, entryPoints: ["src/script.ts"], format: "iife", outfile: "dist/parley.js" }),
]);
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.types.json"], { stdio: "inherit" });

// The module for require is the one for import with another last line, which is shorter than what esbuild writes.
const exported = /export\{([^}]*)\};\s*$/;
const module = readFileSync("dist/esm/index.js", "utf8");
const names = exported.exec(module)[1].split(",").map((pair) => pair.split(" as "));
mkdirSync("dist/cjs", { recursive: true });
const assignments = names.map(([own, name]) => `exports.${name ?? own}=${own};`).join("");
writeFileSync("dist/cjs/index.js", `"use strict";${module.replace(exported, "")}${assignments}\n`);
cpSync("dist/esm", "dist/cjs", { recursive: true, filter: (path) => !path.endsWith(".js") });
writeFileSync("dist/cjs/package.json", '{"type":"commonjs"}\n');
