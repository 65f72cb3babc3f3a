/** Formats by first bytes, and what is no JSONL through a pipe. */
import { expect, it } from "vitest";
import { onlyJsonl } from "../../../src/instructblip/data/format.ts";
import { dataFiles } from "./data_sets.ts";

async function* pipe(...chunks: readonly Uint8Array[]) {
  yield* chunks;
}
const read = async (...chunks: readonly Uint8Array[]) => {
  const passed: Uint8Array[] = [];
  for await (const chunk of onlyJsonl("--requests -", pipe(...chunks), "give the file")) passed.push(chunk);
  return Buffer.concat(passed).toString();
};

it("refuses data of another format by its first bytes", async () => {
  const files = dataFiles();
  const tar = Object.keys(files).find((name) => name.endsWith(".tar"))!;
  for (const [bytes, name] of [
    [files["none.parquet"], "Parquet"],
    [files["file.arrow"], "Arrow"],
    [files[tar], "a tar"],
    [files["paths.json"], "a JSON array"],
    [Buffer.from([0x1f, 0x8b, 8, 0]), "compressed as a whole"],
  ] as const) {
    await expect(read(bytes!), name).rejects.toMatchObject({ code: "BAD_DATA_FILE", hint: "give the file" });
    await expect(read(bytes!)).rejects.toThrow(`--requests -: this is ${name}, not JSON lines`);
  }
});

it("passes JSON lines on, with a line later that is an array", async () => {
  expect(await read(Buffer.from('{"id": 1}\n'), Buffer.from("[]\n"))).toBe('{"id": 1}\n[]\n');
  expect(await read()).toBe("");
});
