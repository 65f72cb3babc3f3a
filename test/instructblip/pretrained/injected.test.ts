/**
 * Injected failures of every driver call, during loading and every kind of answer: one typed error, no leaks, and the device
 * still works, or after its loss a new one. A seeded sample of the calls; with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`)
 * every one of them.
 */
import { afterAll, describe, expect, test } from "vitest";
import { EngineError, InstructBlipForConditionalGeneration, TextIteratorStreamer } from "../../../src/index.node.ts";
import { Weights } from "../../../src/modules/weights.ts";
import { type Device, GpuDevice } from "../../../src/tensor/device/device.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { driverDevice } from "../../device.ts";
import { CALLS, type CallName, type Fault, FaultyDriver, type Injection } from "../../faults.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { Random } from "../../random.ts";
import { ALL } from "../../rounds.ts";

/** Faults of each scenario in a sample, and how many of them lose the device, which takes a new one each. */
const SAMPLE = { faults: 3, losses: 1 };

const folder = goldenFolder("plain_f32");
const { pixel_values, qformer_input_ids, input_ids } = await goldenInputs("plain_f32", 1);
const inputs = { pixel_values, qformer_input_ids, input_ids };

/** A device whose driver fails when it is told to, and a model on it. */
interface World {
  readonly device: Device;
  readonly driver: FaultyDriver;
  readonly model: InstructBlipForConditionalGeneration;
}

const load = (device: Device, options: { signal?: AbortSignal; compile?: boolean } = {}) =>
  InstructBlipForConditionalGeneration.from_pretrained(folder, { device, ...options });

/** @param ahead as on a GPU, which is given steps before the ids of the last are read */
async function newWorld(ahead: boolean): Promise<World> {
  const opened = await driverDevice({});
  const driver = new FaultyDriver(opened.handle);
  const { handle, caps } = opened;
  const device = ahead ? new GpuDevice(handle, { ...caps, isSoftware: false }, Number.POSITIVE_INFINITY) : opened;
  return { device, driver, model: await load(device, { compile: false }) };
}

/** Worlds whose devices are not lost: to open one takes as long as twenty answers. */
const worlds = new Map<boolean, World>();
async function worldOf(ahead: boolean): Promise<World> {
  const world = worlds.get(ahead) ?? (await newWorld(ahead));
  worlds.set(ahead, world);
  return world;
}
afterAll(() => {
  for (const { device } of worlds.values()) device.destroy();
});

type Scenario = (world: World, signal?: AbortSignal) => Promise<unknown>;

const answer =
  (options: object): Scenario =>
  ({ model }, signal) =>
    model.generate({ ...inputs, max_new_tokens: 5, eos_token_id: null, ...options, ...(signal && { signal }) });

/** Says ids as numbers. */
const tokenizer = { decodeStream: () => ({ push: (id: number) => `${id} `, finish: () => "." }) };

const SCENARIOS: Record<string, Scenario> = {
  load: async ({ device }, signal) => {
    const model = await load(device, signal && { signal });
    model.dispose();
    return "loaded";
  },
  "load, quantized on the device": async ({ device }, signal) => {
    const checkpoint = await openCheckpoint(folder);
    const call = device.call(signal);
    let weights: Weights | undefined;
    try {
      const bound = Weights.open(checkpoint, device, "int4");
      weights = bound;
      device.within(call, () => {
        for (const { name, shape } of checkpoint.tensors.values()) {
          if (shape.length === 2) bound.matrix(name, [shape[0], shape[1]]);
        }
      });
      const { launches } = device.counts;
      await bound.load({ call, quantize_on_device: 0, ...(signal && { signal }) });
      expect(device.counts.launches).toBeGreaterThan(launches);
      return "loaded";
    } finally {
      weights?.dispose();
      call.end();
      await checkpoint.close();
    }
  },
  greedy: answer({}),
  "greedy, ahead": answer({}),
  stream: async (world, signal) => {
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
    const done = answer({ streamer })(world, signal);
    done.catch(() => {}); // the streamer says it too
    let text = "";
    for await (const piece of streamer) text += piece;
    return [text, await done];
  },
  "3 beams": answer({ num_beams: 3 }),
  sampling: answer({ do_sample: true, seed: 5, top_k: 4 }),
  ranking: ({ model }, signal) =>
    model.rank_answers({ ...inputs, candidates: [[5, 6], [7], [8, 9, 10]], ...(signal && { signal }) }),
};

/** What a fault may come out as. */
const CODES: Record<Fault, readonly string[]> = {
  throw: ["GPU", "PIPELINE"],
  refuse: ["GPU_OOM", "GPU_VALIDATION"],
  lose: ["DEVICE_LOST"],
  hang: [],
};

/** Every fault that can be put into a run of which `counts` are the calls; or a sample of them. */
function injections(counts: Partial<Record<CallName, number>>, seed: number): Injection[] {
  const all = (Object.keys(counts) as CallName[]).flatMap((call) =>
    CALLS[call].flatMap((fault) => Array.from({ length: counts[call]! }, (_, k): Injection => ({ call, k, fault }))),
  );
  if (ALL) return all;
  const random = new Random(seed);
  const pick = (from: Injection[], n: number) =>
    Array.from({ length: n }, () => {
      const calls = [...new Set(from.map(({ call }) => call))]; // a call made often is no more likely than others
      const call = calls[random.int(0, calls.length)];
      const of = from.filter((one) => one.call === call);
      return of[random.int(0, of.length)];
    });
  const loses = ({ fault }: Injection) => fault === "lose";
  return [
    ...pick(all.filter(loses), SAMPLE.losses),
    ...pick(
      all.filter((one) => !loses(one)),
      SAMPLE.faults,
    ),
  ];
}

/** Runs a scenario in which the driver fails. */
async function inject(run: Scenario, world: World, injection: Injection): Promise<unknown> {
  const stop = new AbortController();
  const reason = new Error("waited long enough");
  world.driver.arm(injection);
  // What hangs is ended by the signal, as soon as it hangs.
  const watch = setInterval(() => {
    if (injection.fault === "hang" && world.driver.happened) stop.abort(reason);
  }, 5);
  try {
    return { result: await run(world, stop.signal) };
  } catch (error) {
    if (error === reason) return "stopped";
    expect(error).toBeInstanceOf(EngineError);
    return (error as EngineError).code;
  } finally {
    clearInterval(watch);
  }
}

describe.each(Object.keys(SCENARIOS))("%s", (name) => {
  /** With the image looked at anew, so that this may fail too. */
  const run: Scenario = (world, signal) => {
    world.model.clear_image_cache();
    return SCENARIOS[name](world, signal);
  };
  const liveBytes = ({ model, device }: World) => {
    model.clear_image_cache();
    return device.memory.use.live;
  };
  const ahead = name === "greedy, ahead";

  test(
    `${ALL ? "every call" : "a sample of the calls"} to the driver fails`,
    async () => {
      let world = await worldOf(ahead);
      await run(world);
      world.driver.arm();
      const right = { result: await run(world) };
      const points = injections(world.driver.counts, name.length);
      expect(points.length).toBeGreaterThanOrEqual(SAMPLE.faults);
      for (const injection of points) {
        const { call, k, fault } = injection;
        const where = `${name}: ${fault} at ${call} ${k}`;
        const live = liveBytes(world);
        const came = await inject(run, world, injection);
        if (world.driver.happened) {
          // What the driver says of a shader is not needed where the shader compiles.
          const mayBeRight = call === "getCompilationInfo" && fault !== "lose";
          const allowed = fault === "hang" ? ["stopped"] : CODES[fault];
          expect([...allowed, ...(mayBeRight ? [right] : [])], where).toContainEqual(came);
        } else {
          expect(came, where).toEqual(right);
        }
        if (fault === "lose") {
          world.device.destroy();
          worlds.delete(ahead);
          world = await worldOf(ahead);
          await run(world);
        } else {
          expect(liveBytes(world), where).toBe(live);
        }
        world.driver.arm();
        expect({ result: await run(world) }, `after ${where}`).toEqual(right);
      }
    },
    ALL ? 3_600_000 : 240_000,
  );
});
