/** A load that fails at any point leaks nothing on a shared device; nor does a disposed model. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { AutoModelForImageTextToText, Checkpoint } from "../../src/index.node.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import { NodeFolder } from "../../src/tensor/files/source.node.ts";
import { type ByteSource, MemorySource } from "../../src/tensor/files/source.ts";
import { otherDevice, testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { ALL } from "../rounds.ts";

/** A checkpoint folder whose weights are `bytes`. */
class ChangedFolder extends NodeFolder {
  readonly #bytes: Uint8Array;

  constructor(path: string, bytes: Uint8Array) {
    super(path);
    this.#bytes = bytes;
  }

  override open(file: string): ReturnType<NodeFolder["open"]> {
    if (file !== "model.safetensors") return super.open(file);
    const source: ByteSource = new MemorySource(file, this.#bytes);
    return Promise.resolve(source as Awaited<ReturnType<NodeFolder["open"]>>);
  }
}

const load = (device: Device, name: string, bytes: Uint8Array) =>
  AutoModelForImageTextToText.from_pretrained(new ChangedFolder(goldenFolder(name), bytes), {
    device,
    compile: false,
  });

// Biases everywhere; norms without parameters; T5's tables; LLaMA's rotary table.
const NAMES = ["bias_variants", "opt_bare", "t5_odd_f16", "plain_f32"];

/** Of the tensors and buffers of a model every third, or with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`) each. */
const STEP = ALL ? 1 : 3;

test.each(NAMES)(`%s without ${ALL ? "any one" : "any third"} of its tensors`, { timeout: 60_000 }, async (name) => {
  const device = await testDevice();
  const bytes = await readFile(join(goldenFolder(name), "model.safetensors"));
  const names = [...(await Checkpoint.open(new MemorySource(name, bytes))).tensors.keys()];
  (await load(device, name, bytes)).dispose();
  const { live } = device.memory.use;
  for (const [i, tensor] of names.entries()) {
    if (i % STEP) continue;
    const changed = new Uint8Array(bytes);
    changed[bytes.indexOf(`"${tensor}":`) + tensor.length] = 0x5f; // the name's last letter
    const model = await load(device, name, changed).catch((error) => {
      expect(error, tensor).toMatchObject({ code: "MISSING_TENSORS" });
      return undefined;
    });
    model?.dispose(); // there are tables that a file may leave out
    expect(device.memory.use.live, tensor).toBe(live);
  }
});

test.each(NAMES)(
  `%s with no memory for ${ALL ? "any one" : "any third"} of its buffers`,
  { timeout: 60_000 },
  async (name) => {
    const device = await otherDevice({ max_binding: 8192 }); // so that matrices are several
    const bytes = await readFile(join(goldenFolder(name), "model.safetensors"));
    const allocate = vi.spyOn(device.memory, "allocate");
    (await load(device, name, bytes)).dispose();
    expect(device.memory.use.live).toBe(0);
    const count = allocate.mock.calls.length;
    expect(count).toBeGreaterThan(30);
    const original = allocate.getMockImplementation() ?? Object.getPrototypeOf(device.memory).allocate;
    for (let at = 0; at < count; at += STEP) {
      let calls = 0;
      allocate.mockImplementation((...args: Parameters<typeof device.memory.allocate>) => {
        if (calls++ === at) throw new Error("no memory");
        return original.apply(device.memory, args);
      });
      await expect(load(device, name, bytes), `${at}`).rejects.toThrow("no memory");
      expect(device.memory.use.live, `${at}`).toBe(0);
    }
    allocate.mockRestore();
    device.destroy();
  },
);

test("what a small file lacks is listed without allocating what its config says", async () => {
  const device = await testDevice();
  const allocate = vi.spyOn(device.memory, "allocate");
  for (const [name, text] of [
    ["opt_bare", { hidden_size: 2 ** 20, num_attention_heads: 2 ** 10, num_hidden_layers: 1000 }],
    ["plain_f32", { head_dim: 2 ** 20, num_hidden_layers: 1000 }],
  ] as const) {
    const folder = new NodeFolder(goldenFolder(name));
    const config = JSON.parse(await folder.text("config.json"));
    config.text_config = { ...config.text_config, ...text };
    const bytes = await readFile(join(goldenFolder(name), "model.safetensors"));
    const changed = new Uint8Array(bytes);
    changed[bytes.indexOf('"query_tokens":') + 5] = 0x5f;
    const lacking = Object.assign(new ChangedFolder(goldenFolder(name), changed), {
      text: async () => JSON.stringify(config),
    });
    const loading = AutoModelForImageTextToText.from_pretrained(lacking, { device, compile: false });
    await expect(loading).rejects.toMatchObject({
      code: "MISSING_TENSORS",
      message: expect.stringMatching(/lacks \d{4,} tensors: query_tokens, .* and \d+ more/s),
    });
  }
  const most = Math.max(...allocate.mock.calls.map(([bytes]) => bytes));
  allocate.mockRestore();
  expect(most).toBeLessThan(500_000); // as the files are
});
