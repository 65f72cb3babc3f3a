/** Traces in safetensors files: read tensor by tensor, written as they are computed. */
import { closeSync, openSync, readSync } from "node:fs";
import { DTYPES, type DType, widen } from "../../../tensor/dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import { SafetensorsFile } from "../../../tensor/files/safetensors.ts";
import { FileSource, saveSafetensors } from "../../../tensor/files/source.node.ts";
import type { Shape } from "../../../tensor/shape.ts";
import { quote } from "../../../tensor/shown.ts";
import type { LiveTrace } from "../../compare/live_trace.ts";
import type { Numbers } from "../../compare/statistics.ts";
import { readTraceMetadata, type Trace, traceMetadata } from "../../compare/trace.ts";

/** A trace in a file, of `instructblip trace --all` or of scripts/trace_pytorch.py. */
export class FileTrace implements Trace {
  readonly label: string;
  readonly order: readonly string[];
  readonly isOrdered: boolean;
  readonly inputs: ReadonlyMap<string, string>;
  readonly #path: string;
  readonly #file: SafetensorsFile;
  #descriptor: number | undefined;

  private constructor(path: string, label: string, file: SafetensorsFile) {
    this.#path = path;
    this.label = label;
    this.#file = file;
    const { order, isOrdered, inputs } = readTraceMetadata(file.name, file.metadata, [...file.tensors.keys()]);
    this.order = order;
    this.isOrdered = isOrdered;
    this.inputs = inputs;
  }

  /** @param label by default the path: two traces of one name are told apart by their folders
   * @throws WeightError as SafetensorsFile.open; InputError TRACE */
  static async open(path: string, label = shortened(path)): Promise<FileTrace> {
    const file = await SafetensorsFile.open(await FileSource.open(path));
    try {
      return new FileTrace(path, label, file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  shape(name: string): Shape | undefined {
    return this.#file.tensors.get(name)?.shape;
  }

  async read(name: string): Promise<Numbers> {
    return numbersOf(name, this.#dtype(name), await this.#file.read(name));
  }

  /** As read, at once: an observer of a pass cannot wait. */
  readNow(name: string): Numbers {
    const { begin, end } = this.#file.tensors.get(name)!;
    this.#descriptor ??= openSync(this.#path, "r");
    const bytes = new Uint8Array(end - begin);
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(this.#descriptor, bytes, done, bytes.length - done, begin + done);
      if (read === 0) throw new InputError("TRACE", `${this.label}: the file ended early`);
      done += read;
    }
    return numbersOf(name, this.#dtype(name), bytes);
  }

  async close(): Promise<void> {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    await this.#file.close();
  }

  #dtype(name: string): DType {
    const { dtype } = this.#file.tensors.get(name)!;
    if (Object.hasOwn(DTYPES, dtype)) return dtype as DType;
    throw new InputError("TRACE", `${this.label}: ${quote(name)} has the dtype ${dtype}`);
  }
}

/** Little-endian bytes, in memory of their own, as numbers. */
function numbersOf(name: string, dtype: DType, bytes: Uint8Array): Numbers {
  const { buffer, byteOffset, length } = bytes;
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length / 4);
    case "f16":
    case "bf16":
      return widen(bytes, dtype);
    case "f64":
      return new Float64Array(buffer, byteOffset, length / 8);
    case "i32":
      return new Int32Array(buffer, byteOffset, length / 4);
    case "u32":
      return new Uint32Array(buffer, byteOffset, length / 4);
    case "i64":
      return Float64Array.from(new BigInt64Array(buffer, byteOffset, length / 8), Number);
    case "u8":
    case "bool":
      return Uint32Array.from(bytes);
    default:
      throw new InputError("TRACE", `${quote(name)} has the dtype ${dtype}, which a trace cannot have`);
  }
}

/** Writes a trace, all at once or not at all; one tensor at a time is in memory. */
export async function writeTrace(path: string, trace: LiveTrace, isWanted = (_name: string) => true): Promise<void> {
  const order = trace.order.filter(isWanted);
  const sorted = [...order].sort((a, b) =>
    trace.dtype(a) === trace.dtype(b) ? (a < b ? -1 : 1) : trace.dtype(a) < trace.dtype(b) ? -1 : 1,
  );
  trace.expect(sorted); // as they are written
  const kept = new Set(order);
  const inputs = new Map([...trace.inputs].filter(([, source]) => kept.has(source)));
  const entries = order.map((name) => ({
    name,
    dtype: trace.dtype(name),
    shape: trace.shape(name)!,
    data: async function* () {
      const { buffer, byteOffset, byteLength } = await trace.read(name);
      yield new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    },
  }));
  await saveSafetensors(path, entries, traceMetadata({ order, inputs }));
}

/** The end of a long path. */
const shortened = (path: string) => (path.length > 160 ? `…${path.slice(-159)}` : path);
