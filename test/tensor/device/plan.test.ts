import { afterEach, expect, test, vi } from "vitest";
import { type Caps, capsOf, type SubgroupMatrix } from "../../../src/tensor/device/caps.ts";
import {
  itemsPerThread,
  namesTunedPlan,
  type Op,
  type PlanOverride,
  parseOverride,
  plan,
  planNorm,
  planRow,
  rowLaunch,
  runnableVariants,
  sizeClass,
  sizeClasses,
  splitRows,
  subgroupMatricesOf,
  type TunedPlan,
  VARIANTS,
} from "../../../src/tensor/device/plan.ts";

const GPU: Caps = {
  vendor: "nvidia",
  architecture: "hopper",
  description: "a GPU",
  isSoftware: false,
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  subgroupSizeControl: false,
  subgroupMatrices: [],
  f16: true,
  timestamps: true,
  maxBindingBytes: 2 ** 31,
  maxBufferBytes: 2 ** 32,
  maxInvocations: 1024,
  maxWorkgroupStorageBytes: 49_152,
  maxWorkgroupsPerDimension: 65_535,
};
const SOFTWARE: Caps = { ...GPU, isSoftware: true, subgroupMinSize: 8, subgroupMaxSize: 8 };
const ADAPTERS: Record<string, Caps> = {
  GPU,
  SOFTWARE,
  "a GPU of varying subgroups": { ...GPU, subgroupMinSize: 8 },
  "a GPU of none": { ...GPU, subgroups: false },
  "software of varying subgroups": { ...SOFTWARE, subgroupMinSize: 4 },
  "software of none": { ...SOFTWARE, subgroups: false },
};
const OPS = Object.keys(VARIANTS) as Op[];

afterEach(() => vi.unstubAllEnvs());

test.each(Object.keys(ADAPTERS))("%s: every op has a variant, and one that runs there", (name) => {
  const caps = ADAPTERS[name];
  for (const op of OPS) {
    const variant = plan(op, caps, {});
    expect(VARIANTS[op]).toContain(variant);
    if (variant.includes("subgroup")) expect(caps.subgroups).toBe(true);
    if (variant === "subgroup") expect(caps.subgroupMinSize).toBe(caps.subgroupMaxSize);
    expect(runnableVariants(op, caps)).toContain(variant);
  }
});

test("a variant that an op does not have is refused, wherever it comes from", () => {
  for (const op of OPS) {
    expect(() => plan(op, GPU, { [op]: "fusd" })).toThrow(`${op} has no variant "fusd"`);
    expect(() => plan(op, GPU, { [op]: "constructor" })).toThrow("has no variant");
  }
});

test("rows go to a workgroup on a GPU, to a subgroup on software that has them fixed, else to an invocation", () => {
  expect(plan("row", GPU, {})).toBe("workgroup_subgroups");
  expect(plan("row", { ...GPU, subgroups: false }, {})).toBe("workgroup");
  expect(plan("row", SOFTWARE, {})).toBe("subgroup");
  expect(plan("row", { ...SOFTWARE, subgroups: false }, {})).toBe("invocation");
});

test("long rows of exponentials are too much for one invocation, and for nobody else", () => {
  const invocation = { row: "invocation" } as const;
  expect(planRow("softmax", SOFTWARE, [3, 4096], invocation)).toBe("invocation");
  expect(planRow("softmax", SOFTWARE, [3, 4097], invocation)).toBe("workgroup");
  expect(planRow("softmax", SOFTWARE, [3, 4097], { row: "subgroup" })).toBe("subgroup");
  expect(planRow("rms_norm", SOFTWARE, [3, 5121], invocation)).toBe("invocation");
});

test("a variant of rows that nobody has written is refused, not run as another", () => {
  expect(() => rowLaunch("mine" as "subgroup", GPU, [17, 12])).toThrow('no kernel of rows has the variant "mine"');
});

test("a row's threads load four numbers at a time where it is whole fours, on a GPU four times before they wait", () => {
  const invocation = rowLaunch("invocation", SOFTWARE, [17, 12]);
  expect(invocation).toEqual({
    uses: { row: "row_invocation", numbers: "numbers_vec4" },
    overrides: { WG: 8, LOADS: 1 },
    workgroups: 3,
  });
  expect(rowLaunch("subgroup", SOFTWARE, [17, 13])).toEqual({
    uses: { row: "row_subgroup", numbers: "numbers_scalar" },
    overrides: { WG: 8, LOADS: 1 },
    workgroups: 17,
  });
  expect(rowLaunch("workgroup_subgroups", GPU, [17, 4096])).toEqual({
    uses: { row: "row_workgroup", reduce: "reduce_subgroups", numbers: "numbers_vec4" },
    overrides: { WG: 256, LOADS: 4 },
    workgroups: 17,
  });
});

test("products and attention take subgroups on software that has them fixed, shared memory on a GPU", () => {
  const choices = (caps: Caps) =>
    (["linear", "matvec", "attention"] as const).map((op) => plan(op, caps, {}, { T: 64, S: 64 }));
  expect(choices(GPU)).toEqual(["tile", "workgroup_subgroups", "flash"]);
  expect(choices({ ...GPU, subgroupMinSize: 4, subgroupMaxSize: 128 })).toEqual(choices(GPU));
  expect(choices({ ...GPU, subgroups: false })).toEqual(["tile", "workgroup", "flash"]);
  expect(choices(SOFTWARE)).toEqual(["subgroup", "subgroup", "subgroup"]);
  expect(choices({ ...SOFTWARE, subgroups: false })).toEqual(["register", "register", "composed"]);
});

test("a norm of few rows is computed by the product that follows on a GPU, where its kernel can", () => {
  const choice = (caps: Caps, M = 1, K = 4096, override: PlanOverride = {}) => planNorm(caps, [M, K], override);
  expect([choice(GPU), choice(GPU, 8), choice({ ...GPU, subgroups: false })]).toEqual(["fused", "fused", "fused"]);
  expect([choice(GPU, 9), choice(GPU, 1, 4094), choice(SOFTWARE)]).toEqual(["composed", "composed", "composed"]);
  const overridden = [{ norm: "composed" }, { matvec: "register" }] as const;
  for (const override of overridden) expect(choice(GPU, 1, 4096, override)).toBe("composed");
  expect(choice(SOFTWARE, 1, 4096, { norm: "fused", matvec: "workgroup" })).toBe("fused");
});

test("images become tokens in one launch on a GPU, and step by step on software", () => {
  expect(plan("patch_embedding", GPU, {})).toBe("fused");
  expect(plan("patch_embedding", { ...GPU, subgroups: false }, {})).toBe("fused");
  expect(plan("patch_embedding", SOFTWARE, {})).toBe("composed");
});

test("products take f32 matrices of subgroups where a GPU lists them, and no others", () => {
  const f32 = { componentType: "f32", resultComponentType: "f32", M: 8, N: 8, K: 8 };
  const f16 = { ...f32, componentType: "f16" };
  const choice = (caps: Caps, ...subgroupMatrices: SubgroupMatrix[]) => {
    const variant = plan("linear", { ...caps, subgroupMatrices }, {}, { M: 65 });
    expect(runnableVariants("linear", { ...caps, subgroupMatrices })).toContain(variant);
    return variant;
  };
  expect(choice(GPU, f16, f32)).toBe("subgroup_matrix");
  expect(choice(GPU, f16, { ...f16, resultComponentType: "f16" }, { ...f32, M: 16 })).toBe("tile");
  expect(choice({ ...GPU, subgroups: false }, f32)).toBe("tile");
  expect(choice(SOFTWARE, f32)).toBe("subgroup");
  expect(plan("matvec", { ...GPU, subgroupMatrices: [f32] }, {}, { M: 8 })).toBe("workgroup_subgroups");
  expect(runnableVariants("linear", GPU)).not.toContain("subgroup_matrix");
});

test("products with f16 inputs take matrices with f32 sums, the largest of those a GPU lists, else tiles", () => {
  const f16 = (M: number, N: number, K: number) => ({ componentType: "f16", resultComponentType: "f32", M, N, K });
  const choice = (caps: Caps, ...subgroupMatrices: SubgroupMatrix[]) => {
    const listed = { ...caps, subgroupMatrices };
    const variant = plan("linear_f16", listed, {}, { M: 65 });
    expect(runnableVariants("linear_f16", listed)).toContain(variant);
    return variant === "f16_subgroup_matrix" ? subgroupMatricesOf("f16", listed) : variant;
  };
  const narrow = { ...f16(16, 16, 16), resultComponentType: "f16" };
  expect(choice(GPU, narrow, f16(8, 8, 8), f16(16, 16, 16), f16(8, 16, 16))).toBe("16x16x16");
  expect(choice(GPU, f16(8, 8, 8), f16(8, 16, 16))).toBe("8x16x16");
  expect(choice(GPU, f16(16, 8, 16), f16(8, 8, 8))).toBe("8x8x8");
  for (const other of [narrow, f16(16, 8, 16), { ...f16(8, 8, 8), componentType: "f32" }])
    expect(choice(GPU, other)).toBe("f16_tile");
  for (const lacking of [{ f16: false }, { subgroups: false }])
    expect(choice({ ...GPU, ...lacking }, f16(16, 16, 16))).toBe("f16_tile");
  expect(choice(SOFTWARE)).toBe("f16_tile");
  // Two multiply-adds of f32 at a time.
  const rdna = { ...GPU, subgroupSizeControl: true, subgroupMinSize: 32, subgroupMaxSize: 64 };
  expect([choice(rdna), choice(rdna, f16(16, 16, 16))]).toEqual(["f32", "16x16x16"]);
});

test("the caps list an adapter's matrices if the device may use them", () => {
  const listed = { componentType: "f32", resultComponentType: "f32", M: 8, N: 8, K: 8 };
  const info = { vendor: "apple", subgroupMatrixConfigs: [listed] } as unknown as GPUAdapterInfo;
  const matrices = (...features: string[]) =>
    capsOf(info, new Set(features) as GPUSupportedFeatures, {} as GPUSupportedLimits).subgroupMatrices;
  expect(matrices("chromium-experimental-subgroup-matrix")).toEqual([listed]);
  expect(matrices("subgroups")).toEqual([]);
});

test("rows are shared out so that every element has its thread, and few threads work long on a software driver", () => {
  for (const caps of [GPU, SOFTWARE]) {
    for (const [rows, n] of [
      [1, 1],
      [1, 3],
      [7, 64],
      [2048, 32],
      [43_008, 14],
      [3, 1025],
      [1, 160_005],
    ]) {
      const { lanes, chunk_size, chunks_per_row, chunks, items_per_thread, workgroups } = splitRows(rows, n, caps);
      expect(64 % lanes).toBe(0);
      expect(chunk_size * chunks_per_row).toBeGreaterThanOrEqual(n);
      expect(chunks).toBe(rows * chunks_per_row);
      expect(workgroups * items_per_thread * (64 / lanes)).toBeGreaterThanOrEqual(chunks);
      expect((workgroups - 1) * items_per_thread * (64 / lanes)).toBeLessThan(chunks);
    }
  }
  expect(splitRows(2048, 32, GPU)).toMatchObject({
    lanes: 32,
    chunks_per_row: 1,
    items_per_thread: 1,
    workgroups: 1024,
  });
  expect(splitRows(2048, 32, SOFTWARE)).toMatchObject({
    lanes: 8,
    chunks_per_row: 1,
    items_per_thread: 16,
    workgroups: 16,
  });
  expect(splitRows(1, 160_005, SOFTWARE)).toMatchObject({ chunks_per_row: 157, items_per_thread: 1, workgroups: 20 });
  expect(splitRows(0, 5, SOFTWARE).workgroups).toBe(0);
  expect(splitRows(5, 0, SOFTWARE).workgroups).toBe(0);
  expect(itemsPerThread(1_000_000, GPU)).toBe(1);
  expect([1, 512, 513, 20_000, 200_000, 1e6].map((elements) => itemsPerThread(elements, SOFTWARE))).toEqual([
    1, 1, 2, 32, 97, 128,
  ]);
});

test("one query's keys are split on a GPU", () => {
  const choice = (caps: Caps, T: number, S: number) => plan("attention", caps, {}, { T, S });
  expect([choice(GPU, 1, 2048), choice(GPU, 1, 128), choice(GPU, 2, 2048)]).toEqual([
    "split_subgroups",
    "split_subgroups",
    "flash",
  ]);
  expect(choice({ ...GPU, subgroups: false }, 1, 2048)).toBe("split");
  expect(choice(SOFTWARE, 1, 2048)).toBe("subgroup");
  expect(plan("attention", GPU, { attention: "flash" }, { T: 1, S: 2048 })).toBe("flash");
});

test("rows of logits take subgroups of any size on a GPU, and none on software", () => {
  const choice = (caps: Caps) => plan("logits", caps, {});
  expect(choice({ ...GPU, subgroupMinSize: 4, subgroupMaxSize: 128 })).toBe("workgroup_subgroups");
  expect([choice({ ...GPU, subgroups: false }), choice(SOFTWARE)]).toEqual(["workgroup", "workgroup"]);
});

test("an override wins, for its op alone", () => {
  for (const op of OPS) {
    for (const variant of VARIANTS[op]) {
      expect(plan(op, GPU, { [op]: variant })).toBe(variant);
      expect(plan(op, SOFTWARE, { [op]: variant })).toBe(variant);
    }
  }
  expect(plan("row", GPU, { attention: "composed" })).toBe("workgroup_subgroups");
});

test("an adapter runs what it has subgroups for: none, some, or some of a size that is known", () => {
  const row = (caps: Caps) => runnableVariants("row", caps);
  expect(row(GPU)).toEqual(VARIANTS.row);
  expect(row({ ...GPU, subgroupMinSize: 8 })).toEqual(["workgroup", "workgroup_subgroups", "invocation"]);
  expect(row({ ...GPU, subgroups: false })).toEqual(["workgroup", "invocation"]);
});

test("every size has a class, and classes end where a variant may change", () => {
  const classes = (op: Op, sizes: Parameters<typeof sizeClass>[1][]) => sizes.map((size) => sizeClass(op, size));
  expect(classes("matvec", [{ M: 1 }, { M: 2 }, { M: 8 }])).toEqual(["M <= 1", "M > 1", "M > 1"]);
  expect(classes("linear", [{ M: 9 }, { M: 32 }, { M: 33 }, { M: 128 }, { M: 129 }])).toEqual([
    ...["M <= 32", "M <= 32", "M <= 128", "M <= 128", "M > 128"],
  ]);
  expect(classes("row", [{ M: 1 }, { M: 64 }, { M: 65 }])).toEqual(["M <= 1", "M <= 64", "M > 64"]);
  expect(
    classes("attention", [
      { T: 1, S: 128 },
      { T: 1, S: 513 },
      { T: 2, S: 129 },
    ]),
  ).toEqual([...["T = 1, S <= 128", "T = 1, S > 512", "T > 1, S <= 512"]]);
  for (const op of OPS) {
    for (const size of [0, 1, 2, 31, 100, 300, 1e6]) {
      for (const T of [1, 7]) expect(sizeClasses(op)).toContain(sizeClass(op, { M: size, T, S: size }));
    }
    expect(new Set(sizeClasses(op)).size).toBe(sizeClasses(op).length);
  }
});

test("a tuned choice holds for its op and class alone, behind an override, and only where it can run", () => {
  const tuned: TunedPlan = { matvec: { "M <= 1": "register" }, row: { "M > 64": "subgroup" } };
  const choice = (caps: Caps, op: Op, M: number, override = {}) => plan(op, { ...caps, tuned }, override, { M });
  expect([1, 2].map((M) => choice(GPU, "matvec", M))).toEqual(["register", "workgroup_subgroups"]);
  expect([64, 65].map((M) => choice(GPU, "row", M))).toEqual(["workgroup_subgroups", "subgroup"]);
  expect(choice(GPU, "linear", 65)).toBe("tile");
  expect(choice(GPU, "matvec", 1, { matvec: "workgroup" })).toBe("workgroup");
  expect(choice({ ...GPU, subgroupMinSize: 8 }, "row", 65)).toBe("workgroup_subgroups");
  expect(choice({ ...GPU, subgroups: false }, "row", 65)).toBe("workgroup");
});

test("INSTRUCTBLIP_PLAN=tuned or @FILE forces nothing itself", async () => {
  expect(["tuned", "@plan.json", "", "row=workgroup"].map(namesTunedPlan)).toEqual([true, true, false, false]);
  vi.stubEnv("INSTRUCTBLIP_PLAN", "@a=b,c.json");
  vi.resetModules();
  const fresh = await import("../../../src/tensor/device/plan.ts");
  expect(fresh.plan("row", SOFTWARE)).toBe("subgroup");
});

test("INSTRUCTBLIP_PLAN is read", async () => {
  vi.stubEnv("INSTRUCTBLIP_PLAN", "row=invocation");
  vi.resetModules(); // it is read once
  const fresh = await import("../../../src/tensor/device/plan.ts");
  expect(fresh.plan("row", GPU)).toBe("invocation");
});

test("INSTRUCTBLIP_PLAN is checked", () => {
  expect(parseOverride("")).toEqual({});
  expect(parseOverride("row=workgroup, attention = composed")).toEqual({ row: "workgroup", attention: "composed" });
  expect(() => parseOverride("rows=workgroup")).toThrow('INSTRUCTBLIP_PLAN: there is no op "rows"');
  expect(() => parseOverride("row=workgrup")).toThrow(/row has no variant "workgrup"\n +hint: workgroup/);
  expect(() => parseOverride("row")).toThrow('row has no variant ""');
  expect(() => parseOverride("toString=at")).toThrow('there is no op "toString"');
});
