/**
 * Laws that hold for any file: what is written is read back, and a damaged header is refused or means exactly what an
 * independent JSON parser says it means.
 */
import fc from "fast-check";
import { expect, it } from "vitest";
import { DTYPES, type DType } from "../../../src/tensor/dtype.ts";
import { WeightError } from "../../../src/tensor/errors.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { serializeSafetensors } from "../../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { type Json, OtherNumber, parseStrictJson } from "../../../src/tensor/files/strict_json.ts";
import { character } from "../../character.ts";
import { build, entry } from "./corpus/files.ts";

// biome-ignore lint/suspicious/noControlCharactersInRegex: names may not hold them
const CONTROL = /[\x00-\x1f\x7f-\x9f]/;
const name = fc
  .string({ unit: character, minLength: 1, maxLength: 20 })
  .filter((s) => !CONTROL.test(s) && s !== "__metadata__");
const tensor = fc
  .record({
    name,
    dtype: fc.constantFrom(...(Object.keys(DTYPES) as DType[])),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
    seed: fc.nat(),
  })
  .map(({ seed, ...rest }) => {
    const size = rest.shape.reduce((a, b) => a * b, DTYPES[rest.dtype].bytes);
    return { ...rest, data: Uint8Array.from({ length: size }, (_, i) => (seed + 7 * i) % 256) };
  });
const tensors = fc.uniqueArray(tensor, { selector: (t) => t.name, maxLength: 8 });

it("reads back what it wrote, whole and streamed", { timeout: 30_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      tensors,
      fc.option(fc.dictionary(fc.string({ unit: character }), fc.string({ unit: character })), { nil: undefined }),
      fc.integer({ min: 8, max: 200 }),
      async (entries, metadata, chunkBytes) => {
        const bytes = await serializeSafetensors(entries, metadata);
        const checkpoint = await Checkpoint.open(new MemorySource("m", bytes));
        expect(checkpoint.tensors.size).toBe(entries.length);
        expect([...checkpoint.metadata]).toEqual(Object.entries(metadata ?? {}));
        for (const { name, dtype, shape, data } of entries) {
          expect(checkpoint.tensors.get(name)).toMatchObject({ dtype, shape });
          expect(await checkpoint.read(name)).toEqual(data);
        }
        const streamed = new Map(entries.map(({ name, data }) => [name, new Uint8Array(data.length)]));
        for await (const { name, byteOffset, bytes } of checkpoint.stream(streamed.keys(), { chunkBytes })) {
          streamed.get(name)!.set(bytes, byteOffset);
        }
        for (const { name, data } of entries) expect(streamed.get(name)).toEqual(data);
      },
    ),
    { numRuns: 500 },
  );
});

const CODES = new Set(
  (
    "NOT_SAFETENSORS HEADER_TOO_SMALL HEADER_TOO_LARGE HEADER_LENGTH BAD_UTF8 BAD_JSON BAD_HEADER_TYPE DUPLICATE_KEY " +
    "BAD_METADATA BAD_NAME BAD_ENTRY BAD_DTYPE RANK BAD_INT OVERFLOW OFFSETS SIZE_MISMATCH HOLE OVERLAP TRUNCATED TRAILING_DATA"
  ).split(" "),
);

const SEED_FILE = build(
  `{"__metadata__":{"format":"pt"},${entry("a.weight", "F32", [2, 3], [0, 24])},${entry("a.bias", "F16", [3], [24, 30])},${entry("e", "U8", [0], [30, 30])},${entry("s", "I16", [], [30, 32])}}   `,
  32,
);

interface PlainEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Some bytes replaced, inserted or removed, mostly by characters that headers are made of. */
const mutation = fc.record({
  at: fc.nat({ max: SEED_FILE.length - 1 }),
  remove: fc.nat({ max: 3 }),
  insert: fc.oneof(
    fc.string({ unit: fc.constantFrom(...'0123456789-.eE"\\{}[],: \n\u0000tuad_F16U8I3'), maxLength: 3 }),
    fc.constantFrom("null", "true", '"dtype"', '"U8"', "[0,0]", '"\\u0061"', "__metadata__", "1e3", "9007199254740993"),
  ),
});

it("refuses a damaged file with a known code, or reads what JSON.parse reads in it", { timeout: 30_000 }, async () => {
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), fc.boolean(), async (mutations, fixLength) => {
      let bytes = Buffer.from(SEED_FILE);
      for (const { at, remove, insert } of mutations) {
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(insert), bytes.subarray(at + remove)]);
      }
      // Half of the files get the length that fits again, or every change of length would end at the same check.
      if (fixLength && bytes.length > 40) bytes.writeBigUInt64LE(BigInt(bytes.length - 40));
      const result = await SafetensorsFile.open(new MemorySource("m", bytes)).catch((e: unknown) => e);
      if (!(result instanceof SafetensorsFile)) {
        expect(result).toBeInstanceOf(WeightError);
        expect(CODES).toContain((result as WeightError).code);
        expect((result as WeightError).message.length).toBeLessThanOrEqual(300);
        return;
      }
      accepted++;
      const length = Number(bytes.readBigUInt64LE());
      const { __metadata__ = {}, ...plain } = JSON.parse(bytes.toString("utf8", 8, 8 + length));
      expect(Object.fromEntries(result.metadata)).toEqual(__metadata__);
      expect([...result.tensors.keys()].sort()).toEqual(Object.keys(plain).sort());
      let at = 8 + length;
      for (const { name, dtype, shape, begin, end } of result.tensors.values()) {
        const theirs = plain[name] as PlainEntry;
        expect({ dtype: dtype.toUpperCase(), shape }).toEqual({ dtype: theirs.dtype, shape: theirs.shape });
        expect([begin, end]).toEqual(theirs.data_offsets.map((offset) => 8 + length + offset));
        expect(begin).toBe(at);
        at = end;
      }
      expect(at).toBe(bytes.length);
    }),
    { numRuns: 5000 },
  );
  // The law would be empty if nothing damaged were ever readable.
  expect(accepted).toBeGreaterThan(50);
});

it("means the same whatever the order of entries and the whitespace", { timeout: 30_000 }, async () => {
  const entries = [entry("a", "U8", [3], [0, 3]), entry("b", "U8", [2], [3, 5]), entry("c", "U8", [0], [5, 5])];
  const reference = await SafetensorsFile.open(new MemorySource("m", build(`{${entries.join()}}`, 5)));
  const space = fc.string({ unit: fc.constantFrom(" ", "\t", "\n", "\r"), maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(
      fc.shuffledSubarray(entries, { minLength: 3 }),
      fc.infiniteStream(space),
      async (order, spaces) => {
        const spaced = `{${order.join()}}`.replace(
          /[:,[\]{}]/g,
          (c) => `${spaces.next().value}${c}${spaces.next().value}`,
        );
        const bytes = build(spaced, 5);
        const file = await SafetensorsFile.open(new MemorySource("m", bytes));
        const shift = bytes.length - 5 - [...reference.tensors.values()][0].begin;
        for (const [name, info] of reference.tensors) {
          expect(file.tensors.get(name)).toEqual({ ...info, begin: info.begin + shift, end: info.end + shift });
        }
      },
    ),
    { numRuns: 300 },
  );
});

/** What JSON.parse would have made of it. */
function plain(value: Json): unknown {
  if (value instanceof OtherNumber) return Number(value.token);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, v]) => [key, plain(v)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

function refuse(code: string): never {
  throw new WeightError(code, code);
}

it("parses any JSON as JSON.parse does, and refuses what JSON.parse refuses", { timeout: 30_000 }, () => {
  const limits = { members: 1000, values: 10_000 };
  fc.assert(
    fc.property(fc.json({ maxDepth: 5 }), (text) => {
      expect(plain(parseStrictJson(text, limits, refuse))).toEqual(JSON.parse(text));
    }),
    { numRuns: 500 },
  );
  const garbage = fc.string({
    unit: fc.constantFrom(...'{}[],:"\\u0019-+.eEntf \n', "true", "null", "\t", "é"),
    maxLength: 12,
  });
  fc.assert(
    fc.property(garbage, (text) => {
      let theirs: unknown;
      let ours: unknown;
      try {
        theirs = { value: JSON.parse(text) };
      } catch {
        theirs = "BAD_JSON";
      }
      try {
        ours = { value: plain(parseStrictJson(text, limits, refuse)) };
      } catch (error) {
        ours = (error as WeightError).code;
      }
      if (ours !== "DUPLICATE_KEY") expect(ours).toEqual(theirs);
    }),
    { numRuns: 5000 },
  );
});
