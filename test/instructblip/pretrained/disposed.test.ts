/** dispose() during answers ends those of this model only. */
import { expect, test } from "vitest";
import {
  type FromPretrainedOptions,
  InstructBlipForConditionalGeneration,
  TextIteratorStreamer,
} from "../../../src/index.node.ts";
import { driverDevice, testDevice } from "../../device.ts";
import { FaultyDriver } from "../../faults.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";

const { pixel_values, qformer_input_ids, input_ids } = await goldenInputs("plain_f32", 1);
const asked = { pixel_values, qformer_input_ids, input_ids, max_new_tokens: 8, eos_token_id: null };

const load = (options: FromPretrainedOptions) =>
  InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("plain_f32"), options);
const disposed = { name: "DeviceError", code: "DISPOSED" };

test.each([
  ["greedy search", {}],
  ["beams", { num_beams: 3 }],
  ["sampling", { do_sample: true, seed: 1 }],
])("%s on a device that others use", async (_, options) => {
  const device = await testDevice();
  const other = await load({ device });
  const right = await other.generate({ ...asked, ...options });
  const { live } = device.memory.use;
  const model = await load({ device });
  const on_token = (step: number) => {
    if (step === 3) model.dispose();
  };
  const answer = model.generate({ ...asked, ...options, on_token });
  const queued = [model.generate(asked), other.generate({ ...asked, ...options })] as const;
  await expect(answer).rejects.toMatchObject(disposed);
  await expect(queued[0]).rejects.toMatchObject(disposed);
  expect(await queued[1]).toEqual(right);
  expect(device.memory.use.live).toBe(live);
  other.dispose();
});

test("a model with its own device, which is destroyed with it", async () => {
  const model = await load({});
  const on_token = (step: number) => {
    if (step === 3) model.dispose();
  };
  await expect(model.generate({ ...asked, on_token })).rejects.toMatchObject(disposed);
  await expect(model.generate(asked)).rejects.toMatchObject(disposed);
});

test("an error that a streamer has thrown does not end the process if generate() is not awaited", async () => {
  const device = await driverDevice({});
  const model = await load({ device });
  const driver = new FaultyDriver(device.handle);
  driver.arm({ call: "mapAsync", k: 3, fault: "lose" });
  const tokenizer = { decodeStream: () => ({ push: (id: number) => `${id} `, finish: () => "" }) };
  const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
  void model.generate({ ...asked, streamer }); // an unhandled rejection would fail this file
  const pieces: string[] = [];
  const listen = async () => {
    for await (const piece of streamer) pieces.push(piece);
  };
  await expect(listen()).rejects.toMatchObject({ code: "DEVICE_LOST" });
  expect(pieces.length).toBe(3);
  device.destroy();
});

test("generate() rejects with the rejection of an async callback, which does not end the process", async () => {
  const model = await load({ device: await testDevice() });
  const own = new Error("own");
  const rejects = async () => {
    throw own;
  };
  const later = async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    throw own;
  };
  const streamer = { put() {}, end() {}, best() {} };
  for (const bad of [rejects, later]) {
    for (const name of ["put", "end"]) {
      await expect(model.generate({ ...asked, streamer: { ...streamer, [name]: bad } })).rejects.toBe(own);
    }
    await expect(model.generate({ ...asked, num_beams: 2, streamer: { ...streamer, best: bad } })).rejects.toBe(own);
    await expect(model.generate({ ...asked, on_token: bad })).rejects.toBe(own);
  }
  const never = { ...streamer, put: () => new Promise<void>(() => {}) };
  const controller = new AbortController();
  const options = {
    streamer: never,
    signal: controller.signal,
    on_token: (step: number) => void (step === 7 && stop()),
  };
  const stop = () => setTimeout(() => controller.abort(own), 20);
  await expect(model.generate({ ...asked, ...options })).rejects.toBe(own);
  expect(await model.generate({ ...asked, streamer: { ...streamer, put: async () => {} } })).toEqual(
    await model.generate(asked),
  );
  model.dispose();
});
