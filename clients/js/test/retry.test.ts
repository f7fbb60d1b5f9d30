import { expect, test } from "vitest";
import { calm, Retry, stays } from "../src/retry.js";

/** Numbers that a seed decides. */
function numbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("in 10,000 histories of drops the waits are within their bounds, grow, start again, and obey the server", () => {
  for (let seed = 1; seed <= 10_000; seed++) {
    const random = numbers(seed);
    const upTo = (n: number) => Math.floor(random() * n);
    const [min, max] = [1 + upTo(2000), 1 + upTo(60_000)];
    const attempts = random() < 0.5 ? Infinity : upTo(12);
    const shares: number[] = [];
    const retry = new Retry(min, max, attempts, () => (shares.push(random()), shares.at(-1)!));
    let now = upTo(1e9);
    let failures = 0;
    let notBefore = 0;
    for (let step = 0; step < 20; step++) {
      now += upTo(20_000);
      if (random() < 0.3) {
        retry.opened(now);
        const lived = upTo(2 * calm);
        now += lived;
        if (lived >= calm) failures = 0;
      }
      if (random() < 0.2) {
        const seconds = upTo(60);
        retry.goodbye(seconds, now);
        notBefore = now + seconds * 1000;
      }
      const rest = Math.max(0, notBefore - now);
      const soon = retry.soon(now);
      if (soon < rest || soon > rest + 1000) throw new Error(`seed ${seed}: back after ${soon}, which is not within a second after ${rest}`);
      const wait = retry.next(now);
      if (failures >= attempts) {
        if (wait !== null) throw new Error(`seed ${seed}: no attempts are left, and there is one after ${wait}`);
        continue;
      }
      const right = rest + shares.at(-1)! * Math.min(max, min * 2 ** failures);
      if (wait === null || Math.abs(wait - right) > 0.001) throw new Error(`seed ${seed}: ${wait}, not ${right}`);
      failures++;
      now += wait!;
    }
  }
});

test("the waits of many clients are spread over all of the bound", () => {
  const random = numbers(7);
  const waits = Array.from({ length: 10_000 }, () => new Retry(500, 20_000, Infinity, random).next(0)!);
  for (let tenth = 0; tenth < 10; tenth++) {
    const n = waits.filter((w) => w >= tenth * 50 && w < tenth * 50 + 50).length;
    expect(n > 850 && n < 1150, `${n} of 10,000 within a tenth`).toBe(true);
  }
});

test("a client stays away after 4001, 4004, 4007 and 4500 to 4999, and after no other code", () => {
  const away = Array.from({ length: 5000 }, (_, code) => code).filter(stays);
  expect(away).toEqual([4001, 4004, 4007, ...Array.from({ length: 500 }, (_, i) => 4500 + i)]);
});
