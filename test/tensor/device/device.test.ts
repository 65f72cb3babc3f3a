import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Device, Launch } from "../../../src/tensor/device/device.ts";
import type { DeviceOptions } from "../../../src/tensor/device/open_device.ts";
import { KERNELS } from "../../../src/tensor/kernels.gen.ts";
import { activation } from "../../../src/tensor/ops/activation.ts";
import { add } from "../../../src/tensor/ops/add.ts";
import { contiguous, copy } from "../../../src/tensor/ops/copy.ts";
import { layerNorm } from "../../../src/tensor/ops/layer_norm.ts";
import { linear } from "../../../src/tensor/ops/linear.ts";
import { rmsNorm } from "../../../src/tensor/ops/rms_norm.ts";
import { softmax } from "../../../src/tensor/ops/softmax.ts";
import { Tensor } from "../../../src/tensor/tensor.ts";
import { Weight } from "../../../src/tensor/weight.ts";
import { driverDevice, testDevice } from "../../device.ts";
import { FaultyDriver } from "../../faults.ts";

const device = await testDevice();
const MiB = 2 ** 20;

/** The record the kernels are read from; a test may add one of its own and takes it out again. */
const kernels = KERNELS as Record<string, string>;

afterEach(() => vi.unstubAllEnvs());

describe("a launch that is wrong is refused at once, by name", () => {
  const x = device.tensor([1, 2, 3, 4], [4]);
  const bindings = { x, weight: device.empty([4]), y: device.empty([4]) };
  const good: Launch = { kernel: "rms_norm", bindings, params: { rows: 1, D: 4, eps: 0 }, workgroups: 1 };
  const { weight: _, ...withoutWeight } = bindings;

  test.each<[string, Partial<Launch>, string, string]>([
    [
      "missing binding",
      { bindings: withoutWeight },
      "BINDINGS",
      "kernels/rows/rms_norm.wgsl: binding weight is missing",
    ],
    ["unknown binding", { bindings: { ...bindings, bias: x } }, "BINDINGS", "has no binding bias"],
    ["alias", { bindings: { ...bindings, y: x } }, "ALIAS", "kernels/rows/rms_norm.wgsl: y and x share memory"],
    ["missing param", { params: { rows: 1, D: 4 } }, "PARAMS", "param eps is missing"],
    ["unknown param", { params: { ...good.params, width: 4 } }, "PARAMS", "has no param width"],
    ["fraction", { params: { ...good.params, D: 1.5 } }, "PARAMS", "param D = 1.5 is not a u32"],
    ["negative", { params: { ...good.params, D: -1 } }, "PARAMS", "param D = -1 is not a u32"],
    ["too large", { params: { ...good.params, D: 2 ** 32 } }, "PARAMS", "param D = 4294967296 is not a u32"],
    ["NaN", { params: { ...good.params, D: Number.NaN } }, "PARAMS", "param D = NaN is not a u32"],
    ["unknown kernel", { kernel: "rms_nrom" }, "NO_KERNEL", "kernels/rms_nrom.wgsl does not exist"],
    ["unknown slot", { uses: { weight: "weight_f32" } }, "NO_SLOT", 'has no line "// @use weight = …"'],
    ["unknown override", { overrides: { TILE: 4 } }, "OVERRIDE", "kernels/rows/rms_norm.wgsl has no override TILE"],
    ["fraction of a workgroup", { workgroups: 0.5 }, "GRID", "0.5 is not a number of workgroups"],
    ["too many workgroups", { workgroups: 2 ** 33 }, "GRID", "8589934592 workgroups are too many"],
    ["too wide a grid", { workgroups: [65_536, 1, 1] }, "GRID", "a grid of [65536, 1, 1] exceeds 65535"],
  ])("%s", (_name, change, code, message) => {
    expect(() => device.launch({ ...good, ...change })).toThrow(
      expect.objectContaining({ name: "KernelError", code, message: expect.stringContaining(message) }),
    );
  });

  test("views of one storage are an alias, two inputs of one storage are not", () => {
    const both = device.empty([8]);
    const [first, second] = [both.narrow(0, 0, 4), both.narrow(0, 4, 4)];
    expect(() => device.launch({ ...good, bindings: { ...bindings, x: first, y: second } })).toThrow("share memory");
    expect(() => device.launch({ ...good, bindings: { ...bindings, x: first, weight: second } })).not.toThrow();
  });

  test("disposed tensors and tensors of another device", async () => {
    const gone = device.tensor([1, 2, 3, 4], [4]);
    gone.dispose();
    const disposed = expect.objectContaining({ name: "DeviceError", code: "DISPOSED" });
    expect(() => device.launch({ ...good, bindings: { ...bindings, x: gone } })).toThrow(disposed);
    expect(() => device.write(gone, Float32Array.of(1, 2, 3, 4))).toThrow(disposed);
    await expect(gone.read()).rejects.toThrow(disposed);
    const other = await driverDevice({});
    const foreign = other.empty([4]);
    expect(() => device.launch({ ...good, bindings: { ...bindings, x: foreign } })).toThrow("x is on another device");
    other.destroy();
  });

  test("no workgroups are no launch, and the device works on", async () => {
    const before = device.counts.launches;
    device.launch({ ...good, workgroups: 0 });
    expect(device.counts.launches).toBe(before);
    expect([...(await contiguous(x).read())]).toEqual([1, 2, 3, 4]);
  });
});

describe("what the GPU finds wrong is thrown by the next await", () => {
  let own: Device;
  beforeEach(async () => {
    own = await driverDevice({});
  });
  afterEach(() => {
    own.destroy();
    delete kernels.broken;
    delete kernels["lib/broken"];
  });

  const HEAD = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1)\n";
  const run = () => {
    const y = own.empty([4]);
    own.launch({ kernel: "broken", bindings: { y }, workgroups: 1 });
    return y;
  };

  test("a kernel that does not compile: its file, line and column", async () => {
    kernels.broken = `// A test.\n${HEAD}fn main() {\n  y[0] = row_max;\n}\n`;
    run();
    await expect(own.sync()).rejects.toMatchObject({ name: "KernelError", code: "SHADER_COMPILE" });
    run();
    await expect(own.sync()).rejects.toThrow(/^kernels\/broken\.wgsl:5:10: .*row_max/); // it stays broken
    const two = own.tensor([1], [1]);
    expect([...(await add(two, two).read())]).toEqual([2]); // the device does not
  });

  test("a library part that does not compile: the part's own line", async () => {
    kernels.broken = `// @use broken\n${HEAD}fn main() {\n  y[0] = one();\n}\n`;
    kernels["lib/broken"] = "// A part.\nfn one() -> f32 {\n  return 1u;\n}\n";
    run();
    await expect(own.sync()).rejects.toThrow(/^kernels\/lib\/broken\.wgsl:3:/);
  });

  test("prepare finds it too", async () => {
    kernels.broken = `${HEAD}fn main() { y[0] = ; }\n`;
    await expect(own.prepare([{ kernel: "broken" }])).rejects.toThrow(/^kernels\/broken\.wgsl:3:/);
  });

  test("a workgroup larger than the device allows", async () => {
    const y = own.empty([4]);
    const x = own.empty([4]);
    own.launch({
      kernel: "softmax",
      overrides: { WG: 65_536 },
      bindings: { x, y },
      params: { rows: 1, S: 4 },
      workgroups: 1,
    });
    await expect(y.read()).rejects.toMatchObject({ name: "KernelError", code: "GPU_VALIDATION" });
  });

  test("reading more than a storage holds", async () => {
    const { storage } = own.empty([4]);
    await expect(new Tensor(own, "f32", [MiB], storage).read()).rejects.toMatchObject({ code: "GPU_VALIDATION" });
  });

  test("the loss of the device", async () => {
    const x = own.tensor([1], [1]);
    own.handle.destroy(); // behind our back
    await expect(x.read()).rejects.toMatchObject({ name: "DeviceError", code: "DEVICE_LOST" });
    await expect(own.sync()).rejects.toMatchObject({ code: "DEVICE_LOST" });
  });
});

test("after destroy everything says DISPOSED; destroying twice is harmless", async () => {
  const own = await driverDevice({});
  const x = own.tensor([1, 2], [2]);
  activation(x, "relu");
  own.destroy();
  own.destroy();
  const disposed = expect.objectContaining({ name: "DeviceError", code: "DISPOSED" });
  expect(() => own.empty([1])).toThrow(disposed);
  expect(() => own.tensor([1], [1])).toThrow(disposed);
  expect(() => own.persistent([1])).toThrow(disposed);
  expect(() => own.write(x, Float32Array.of(1, 2))).toThrow(disposed);
  expect(() => activation(x, "relu")).toThrow(disposed);
  await expect(x.read()).rejects.toThrow(disposed);
  await expect(own.sync()).rejects.toThrow(disposed);
  await expect(own.prepare([{ kernel: "copy" }])).rejects.toThrow(disposed);
  await expect(own.profile(() => {})).rejects.toThrow();
});

describe("a failure is its own call's, and is over then", () => {
  let own: Device;
  let driver: FaultyDriver;
  beforeEach(async () => {
    own = await driverDevice({});
    driver = new FaultyDriver(own.handle);
  });
  afterEach(() => own.destroy());

  const answers = async () => [...(await add(own.tensor([1], [1]), own.tensor([2], [1])).read())];

  test("of exclusive work, of others on the device, and of none", async () => {
    driver.arm({ call: "submit", k: 0, fault: "refuse" });
    const failing = own.exclusive(answers);
    const next = own.exclusive(answers);
    await expect(failing).rejects.toMatchObject({ code: "GPU_VALIDATION" });
    expect(await next).toEqual([3]);
    expect(await answers()).toEqual([3]);
  });

  test("a buffer that the GPU had no memory for is never lent again", async () => {
    driver.arm({ call: "createBuffer", k: 0, fault: "refuse" });
    await expect(own.scope(answers)).rejects.toMatchObject({ name: "DeviceError", code: "GPU_OOM" });
    for (let i = 0; i < 3; i++) expect(await own.scope(answers)).toEqual([3]);
    expect(own.memory.use.live).toBe(0);
  });

  test("what a load is refused is not the failure of an answer under way", async () => {
    const loading = own.call();
    let begun = () => {};
    const loaded = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const answer = own.exclusive(async () => {
      const before = await answers();
      await loaded;
      return [...before, ...(await answers())];
    });
    driver.arm({ call: "createBuffer", k: 0, fault: "refuse" });
    own.within(loading, () => own.persistent([64]));
    const refused = own.within(loading, () => own.sync());
    begun();
    await expect(refused).rejects.toMatchObject({ code: "GPU_OOM" });
    expect(await answer).toEqual([3, 3]);
  });

  test("a replay of what works on a disposed tensor says so, and harms nobody", async () => {
    const weight = own.persistent([4]);
    const captured = own.capture(() => add(weight, weight));
    weight.dispose();
    expect(() => captured.replay()).toThrow(expect.objectContaining({ name: "DeviceError", code: "DISPOSED" }));
    captured.dispose();
    expect(await answers()).toEqual([3]);
  });
});

describe("every wait ends", () => {
  const hung = async (options: DeviceOptions) => {
    const own = await driverDevice(options);
    const driver = new FaultyDriver(own.handle);
    driver.arm({ call: "mapAsync", k: 0, fault: "hang" });
    return own;
  };

  test("after the device's own limit", async () => {
    const own = await hung({ timeout: 0.05 });
    await expect(own.tensor([1], [1]).read()).rejects.toMatchObject({ name: "DeviceError", code: "GPU_TIMEOUT" });
    expect([...(await own.tensor([1], [1]).read())]).toEqual([1]);
    own.destroy();
    await expect(driverDevice({ timeout: 0 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
  });

  test("by a signal, for the GPU and for its turn", async () => {
    const own = await hung({});
    const stop = new AbortController();
    const { signal } = stop;
    const read = () => own.tensor([1], [1]).read();
    const waiting = [own.exclusive(read, { signal }), own.exclusive(read, { signal })];
    const patient = own.exclusive(read);
    setTimeout(() => stop.abort("enough"), 20);
    expect(await Promise.allSettled(waiting)).toEqual(waiting.map(() => ({ status: "rejected", reason: "enough" })));
    expect([...(await patient)]).toEqual([1]);
    own.destroy();
  });

  test("when the device is lost, and nobody else hears of it", async () => {
    const own = await driverDevice({});
    const reads = [1, 2, 3].map((x) => own.tensor([x], [1]).read());
    const done = own.sync();
    own.handle.destroy();
    const late = own.tensor([1], [1]).read(); // an unhandled rejection would fail this file
    for (const wait of [...reads, done, late]) await expect(wait).rejects.toMatchObject({ code: "DEVICE_LOST" });
    expect(() => own.empty([1])).toThrow(expect.objectContaining({ code: "DEVICE_LOST" }));
  });
});

test("buffers kept for reuse are bounded", () => {
  const lengths = Array.from({ length: 60 }, (_, i) => Math.round(MiB * 1.19 ** (i / 4)));
  for (const length of lengths) device.empty([length]).dispose();
  const { pooled } = device.memory.use;
  expect(pooled).toBeLessThanOrEqual(2 * 4 * Math.max(...lengths) * 1.25);
  device.memory.trim();
});

test("an empty last dimension gives nothing, as in PyTorch, or is refused by its shape", async () => {
  const x = device.empty([2, 0]);
  const none = device.empty([0]);
  for (const y of [softmax(x), layerNorm(x, none, none, 1e-6), rmsNorm(x, none, 1e-6)]) {
    expect(y.shape).toEqual([2, 0]);
    expect((await y.read()).length).toBe(0);
  }
  expect(() => new Weight(device, [3, 0], "f32")).toThrow(expect.objectContaining({ code: "SHAPE" }));
  expect(() => softmax(device.empty([]))).toThrow("softmax: a scalar has no last dimension");
});

test("a read that is under way when the device is destroyed throws, rather than wait for ever", async () => {
  const own = await driverDevice({});
  const reading = own.tensor([1], [1]).read();
  own.destroy();
  await expect(reading).rejects.toMatchObject({ code: "DISPOSED" });
});

test("shapes and data that do not belong together", () => {
  expect(() => device.empty([-1])).toThrow("a tensor cannot have the shape [-1]");
  expect(() => device.empty([2.5])).toThrow("a tensor cannot have the shape [2.5]");
  expect(() => device.tensor([1, 2, 3], [2, 2])).toThrow("tensor: 3 numbers do not fill [2, 2]");
  expect(() => device.write(device.empty([4]), new Float32Array(3))).toThrow(
    "write: 3 numbers for a tensor of 4 elements",
  );
  const strided = device.empty([2, 4]).narrow(1, 0, 2);
  expect(() => device.write(strided, new Float32Array(4))).toThrow("write: [2, 2] with strides [4, 1] has gaps");
});

test("write reaches a part of a tensor, and leaves the rest", async () => {
  const x = device.tensor([1, 2, 3, 4, 5, 6], [3, 2]);
  device.write(x.narrow(0, 1, 1), Float32Array.of(8, 9));
  expect([...(await x.read())]).toEqual([1, 2, 8, 9, 5, 6]);
});

test("launches recorded before a write see the old elements, those after it the new ones", async () => {
  const x = device.tensor([1], [1]);
  const before = add(x, x);
  device.write(x, Float32Array.of(10));
  const after = add(x, x);
  device.write(x, Float32Array.of(100));
  expect([(await before.read())[0], (await after.read())[0], (await x.read())[0]]).toEqual([2, 20, 100]);
});

test("more distinct params than the uniform buffer has slots", async () => {
  const n = 2500;
  const [x, y] = [
    device.tensor(
      Float32Array.from({ length: n }, (_, i) => i),
      [n],
    ),
    device.empty([n]),
  ];
  for (let i = 0; i < n; i++) copy(x.narrow(0, i, 1), y.narrow(0, n - 1 - i, 1));
  expect([...(await y.read())]).toEqual([...(await x.read())].reverse());
});

test("read gives each its own copy, however many at once", async () => {
  const xs = Array.from({ length: 20 }, (_, i) => device.tensor([i, i], [2]));
  const results = await Promise.all(xs.map((x) => x.read()));
  expect(results.map(([value]) => value)).toEqual(xs.map((_, i) => i));
  expect(results[0]).toBeInstanceOf(Float32Array);
  expect(await device.tensor(Uint32Array.of(2 ** 32 - 1), [1]).read()).toEqual(Uint32Array.of(2 ** 32 - 1));
});

describe("memory", () => {
  let own: Device;
  beforeEach(async () => {
    own = await driverDevice({ memory_budget: 8 * MiB, max_binding: 4 * MiB });
  });
  afterEach(() => own.destroy());

  test("a scope frees what it does not return", async () => {
    const x = own.tensor([1, -2], [2]);
    const before = own.memory.use.live;
    const y = own.scope(() => add(activation(add(x, x), "relu"), x));
    expect(own.memory.use.live).toBe(before + y.storage.buffer.size);
    expect([...(await y.read())]).toEqual([3, -2]);
    y.dispose();
    expect(own.memory.use.live).toBe(before);
  });

  test("scopes nest, keep what lies in arrays and objects, and free after an error", async () => {
    const kept = own.scope(() => {
      const outer = own.empty([256]);
      const { list } = own.scope(() => {
        own.empty([256]);
        return { list: [own.empty([256]), { deep: own.empty([256]) }] as const };
      });
      return [outer, list[1].deep];
    });
    expect(own.memory.use.live).toBe(2 * 1024);
    for (const tensor of kept) tensor.dispose();
    const fail = () => {
      own.empty([256]);
      throw new Error("as asked");
    };
    expect(() => own.scope(fail)).toThrow("as asked");
    await expect(own.scope(async () => fail())).rejects.toThrow("as asked");
    expect(own.memory.use.live).toBe(0);
  });

  test("a product that cannot be launched fails whoever asks for it, and leaves nothing behind", async () => {
    const x = own.persistent([2048, 4]);
    const weight = Weight.from(own, new Float32Array(1024 * 4), [1024, 4], "f32");
    const { live } = own.memory.use;
    const product = () => {
      own.empty([256]);
      return linear(x, weight); // 8 MiB
    };
    const TOO_LARGE = expect.objectContaining({ name: "DeviceError", code: "LIMIT" });
    // Only as the scope ends, for nobody has asked before.
    const fails = [() => void product(), product];
    for (const fail of fails) {
      expect(() => own.scope(fail)).toThrow(TOO_LARGE);
      await expect(own.scope(async () => fail())).rejects.toEqual(TOO_LARGE);
      expect(own.memory.use.live).toBe(live);
    }
    const outside = linear(x, weight);
    expect(await own.exclusive(async () => [...(await own.tensor([1], [1]).read())])).toEqual([1]); // has not asked
    await expect((async () => outside.read())()).rejects.toEqual(TOO_LARGE);
  });

  test("an async scope lasts until its promise is settled", async () => {
    const y = await own.scope(async () => {
      const x = own.tensor([2], [1]);
      const doubled = add(x, x);
      await doubled.read();
      expect(own.memory.use.live).toBeGreaterThanOrEqual(512);
      return add(doubled, x);
    });
    expect([...(await y.read())]).toEqual([6]);
    expect(own.memory.use.live).toBe(y.storage.buffer.size);
  });

  test("persistent tensors outlive scopes, and begin as zeros", async () => {
    const weight = own.scope(() => ({ hidden: own.persistent([4]) }).hidden.reshape([2, 2]));
    own.scope(() => void own.persistent([4]));
    expect([...(await weight.read())]).toEqual([0, 0, 0, 0]);
    expect(own.memory.use.live).toBe(2 * 16);
  });

  test("keep takes a tensor out of its scope", () => {
    let y: Tensor | undefined;
    own.scope(() => {
      y = own.empty([4]);
      own.memory.keep(y.storage);
    });
    expect(y?.storage.alive).toBe(true);
  });

  test("a loop of the same work makes no new buffers or bind groups", async () => {
    const x = own.tensor(new Float32Array(1000).fill(1), [1000]);
    const step = () => own.scope(() => void add(activation(add(x, x), "relu"), x));
    step();
    const [{ created }, { bindGroups }] = [own.memory.use, { ...own.counts }];
    for (let i = 0; i < 50; i++) step();
    expect(own.memory.use.created).toBe(created);
    expect(own.counts.bindGroups).toBe(bindGroups);
  });

  test("the budget is kept, pooled buffers making room first", () => {
    own.empty([(3 * MiB) / 4]).dispose(); // 3 MiB in the pool
    const weight = own.persistent([MiB]); // 4 MiB
    own.persistent([(3 * MiB) / 4]); // 7 MiB: the pool must go
    expect(own.memory.use).toMatchObject({ pooled: 0, live: 7 * MiB });
    expect(() => own.empty([MiB / 2], "f32", "image features")).toThrow(
      expect.objectContaining({
        name: "DeviceError",
        code: "BUDGET",
        message: expect.stringContaining(
          "image features needs 2.0 MiB, but 7.0 MiB of the budget of 8.0 MiB are in use",
        ),
      }),
    );
    weight.dispose();
    expect(() => own.empty([MiB / 2])).not.toThrow();
  });

  test("one piece larger than a binding is refused", () => {
    const limit = expect.objectContaining({ name: "DeviceError", code: "LIMIT" });
    expect(() => own.empty([MiB + 1])).toThrow(limit);
    expect(() => own.empty([MiB + 1])).toThrow(
      "activation needs 4.0 MiB in one piece; this adapter binds 4.0 MiB at most",
    );
    expect(() => own.empty([2 ** 52])).toThrow(limit);
  });

  test("disposing a weight, or trimming the pool, spares launches that are only recorded", async () => {
    const weight = own.persistent([2]);
    own.write(weight, Float32Array.of(1, 2));
    const y = add(weight, weight);
    weight.dispose();
    expect([...(await y.read())]).toEqual([2, 4]);
    const z = own.scope(() => add(add(y, y), y));
    own.memory.trim();
    expect([...(await z.read())]).toEqual([6, 12]);
  });
});

test("exclusive work runs one after the other, also after a failure", async () => {
  const order: string[] = [];
  const work = (name: string, fail = false) =>
    device.exclusive(async () => {
      order.push(`${name} begins`);
      await device.sync();
      order.push(`${name} ends`);
      if (fail) throw new Error(name);
      return name;
    });
  const all = await Promise.allSettled([work("a"), work("b", true), work("c")]);
  expect(all.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  expect(order).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
});

test("prepare compiles ahead; a launch finds the pipeline", async () => {
  const own = await driverDevice({});
  await own.prepare([{ kernel: "add" }, { kernel: "copy" }, { kernel: "add" }]);
  await own.prepare([{ kernel: "add" }]);
  expect([...(await add(own.tensor([1], [1]), own.tensor([2], [1])).read())]).toEqual([3]);
  own.destroy();
});

test("the default limits are enough", async () => {
  const own = await driverDevice({ default_limits: true });
  expect(own.caps.maxBindingBytes).toBe(128 * MiB);
  expect(own.caps.maxInvocations).toBe(256);
  expect([...(await add(own.tensor([1], [1]), own.tensor([2], [1])).read())]).toEqual([3]);
  own.destroy();
});

test("limits come from the environment, and options win over it", async () => {
  vi.stubEnv("INSTRUCTBLIP_MEMORY_BUDGET", "1MiB");
  vi.stubEnv("INSTRUCTBLIP_MAX_BINDING", "64 KiB");
  const own = await driverDevice({});
  expect(own.caps.maxBindingBytes).toBe(65_536);
  own.destroy();
  const given = await driverDevice({ max_binding: 2 * MiB });
  expect(given.caps.maxBindingBytes).toBe(2 * MiB);
  expect(() => given.empty([MiB / 2])).toThrow("of the budget of 1.0 MiB");
  given.destroy();
  vi.stubEnv("INSTRUCTBLIP_MAX_BINDING", "much");
  await expect(driverDevice({})).rejects.toThrow('INSTRUCTBLIP_MAX_BINDING: "much" is not a size');
});

test("a device says what it is, and that it is no more", async () => {
  const device = await driverDevice({});
  const { description } = device.caps;
  expect(String(device)).toBe(`Device ${description}`);
  device.destroy();
  expect(String(device)).toBe(`Device ${description}, destroyed`);
});
