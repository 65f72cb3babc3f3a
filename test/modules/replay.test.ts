/** Captured steps: when they are captured, what a replay runs, and when it ends. */
import { expect, test } from "vitest";
import { outputObserver, withObserver } from "../../src/modules/observer.ts";
import { ReplayedStep } from "../../src/modules/replay.ts";
import { increment } from "../../src/tensor/ops/increment.ts";
import { takeRows } from "../../src/tensor/ops/take_rows.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const table = device.tensor(
  Float32Array.from({ length: 32 }, (_, i) => i),
  [16, 2],
);

/** Looks tokens up in the table `state[0]` rows further down, and counts the state up: a step whose input changes by itself. */
function counted() {
  const state = device.persistent([1], "u32", "state");
  device.write(state, Uint32Array.of(0));
  let built = 0;
  const step = (tokens: Tensor<"u32">) => {
    built++;
    increment(state, 1);
    return takeRows(table, tokens);
  };
  const replayed = new ReplayedStep(device, step);
  const run = async (...ids: number[]) => {
    const tokens = device.tensor(Uint32Array.from(ids), [ids.length]);
    const rows = await replayed.run(tokens).read();
    tokens.dispose();
    return Array.from(rows).filter((_, i) => i % 2 === 0);
  };
  return { state, replayed, run, built: () => built };
}

test("the first step runs, the second is captured, later ones are replayed with their own tokens", async () => {
  const { state, replayed, run, built } = counted();
  const results: number[][] = [];
  for (const id of [3, 5, 7, 2, 7]) results.push(await run(id, id + 1));
  expect(results).toEqual([3, 5, 7, 2, 7].map((id) => [2 * id, 2 * id + 2]));
  expect(built()).toBe(2);
  expect([...(await state.read())]).toEqual([5]); // each ran all its launches once
  replayed.forget();
  state.dispose();
});

test("forget frees the capture; other rows are then captured", async () => {
  const { state, replayed, run, built } = counted();
  await run(1);
  await run(1);
  const { created, live } = device.memory.use;
  for (let i = 0; i < 5; i++) await run(4);
  expect([device.memory.use.created, device.memory.use.live]).toEqual([created, live]); // a replay allocates nothing
  replayed.forget();
  expect(device.memory.use.live).toBeLessThan(live);
  expect(await run(1, 2, 3)).toEqual([2, 4, 6]);
  expect(await run(4, 5, 6)).toEqual([8, 10, 12]);
  expect(await run(7, 8, 9)).toEqual([14, 16, 18]);
  expect(built()).toBe(4);
  replayed.forget();
  replayed.forget(); // nothing is left to free
  state.dispose();
});

test("with an observer every step runs; without it the earlier capture is replayed", async () => {
  const { state, replayed, run, built } = counted();
  for (const id of [1, 2]) await run(id);
  await withObserver(
    device,
    outputObserver(() => undefined),
    async () => {
      for (const id of [3, 4]) expect(await run(id)).toEqual([2 * id]);
    },
  );
  expect(built()).toBe(4);
  expect(await run(5)).toEqual([10]);
  expect(built()).toBe(4);
  expect([...(await state.read())]).toEqual([5]);
  replayed.forget();
  state.dispose();
});
