/** `--shape`: which cases there are at one's own sizes. */
import { expect, test } from "vitest";
import { FORMS_HELP, OWN, ownShapes } from "../../bench/own_shapes.ts";
import { CASES } from "../../src/tensor/cases/support/all.ts";
import { caseName } from "../../src/tensor/cases/support/group.ts";
import { QUICK_SHAPES } from "../../src/tensor/cases/support/shapes.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();

function namesOf(...texts: string[]): string[] {
  const shapes = ownShapes(texts, QUICK_SHAPES);
  const groups = Object.values(CASES).flatMap((of) => of(shapes, device.caps));
  return groups
    .filter(({ shape }) => shape.startsWith(OWN))
    .map((group) => caseName({ ...group, variant: group.planned }));
}

test("sizes choose the ops: those that take just these", () => {
  const kernels = (...texts: string[]) => new Set(namesOf(...texts).map((name) => name.split(" ")[0]));
  expect(kernels("M=9,K=64,N=32")).toEqual(new Set(["linear"]));
  expect(kernels("T=1,S=9,H=2,d=8")).toEqual(new Set(["attention"]));
  for (const op of ["layer_norm", "softmax", "activation", "argmax", "add"]) expect(kernels("R=3,D=67")).toContain(op);
  expect(kernels("N=64,K=32,to=int4")).toEqual(new Set(["quantize"]));
  expect(kernels("T=5,V=67,D=32")).toEqual(new Set(["embedding"]));
  expect(kernels("T=5,H=2,d=8,C=16")).toContain("rope_append");
  expect(kernels("image=28,patch=14,D=32")).toContain("patch_embedding");
  expect(kernels("M=9,K=64,N=32", "T=5,V=67,D=32")).toEqual(new Set(["embedding", "linear"]));
});

test("what is not said has its default, what is said stands in the name", () => {
  const [one] = namesOf("M=1,K=64,N=32");
  expect(one).toMatch(/^linear \w+ own M1 K64 N32 f16$/);
  expect(namesOf("M=8,K=64,N=32,dtype=int8,epilogue=gelu")[0]).toMatch(/own M8 K64 N32 int8, gelu$/);
  expect(namesOf("T=4,S=9,H=2,d=8,cached,f16,mask=padded")[0]).toMatch(/own cached f16 padded T4 S9 H2 d8$/);
});

test("a case at one's own sizes is right", async () => {
  const shapes = ownShapes(["M=3,K=67,N=5,dtype=f32"], QUICK_SHAPES);
  const [group] = CASES.linear(shapes, device.caps);
  const share = await device.scope(async () => {
    const opened = await group.open(device);
    const { share } = await opened.check(await opened.run(group.planned).read());
    opened.dispose?.();
    return share;
  });
  expect(share).toBeGreaterThan(0);
  expect(share).toBeLessThan(1);
});

test.each([
  ["M=1,K=2", "no op has these sizes"],
  ["M=1,K=2,N=3,R=4", "no op has these sizes"],
  ["M=1,K=2,N=3,dtpye=f16", "no op has a size dtpye; did you mean dtype?"],
  ["M=1,K=2,N=0", "N must be a whole number from 1 to 99999999"],
  ["M=1,K=2,N=1e9", "N must be"],
  ["M=1,K=2,N", "N must be"],
  ["M=1,M=2,K=3,N=4", "M is given twice"],
  ["M=1,K=2,N=3,dtype=f64", "dtype is one of f16, f32, bf16, int8, int4"],
  ["T=1,S=1,H=1,d=4,cached=no", "cached takes no value"],
  ["", '"" is not NAME=SIZE'],
])("%j is refused", (text, why) => {
  expect(() => ownShapes([text], QUICK_SHAPES)).toThrow(`--shape ${JSON.stringify(text)}: ${why}`);
  expect(() => ownShapes([text], QUICK_SHAPES)).toThrow(FORMS_HELP);
});
