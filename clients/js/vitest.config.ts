import { defineConfig } from "vitest/config";

// The tests wait for servers, proxies and browsers: on a busy machine they are slow, and not red.
export default defineConfig({
  test: {
    include: ["test/*.test.ts"],
    globalSetup: "test/build.ts",
    testTimeout: 240_000,
    hookTimeout: 240_000,
    pool: "forks",
    maxWorkers: 2,
  },
});
