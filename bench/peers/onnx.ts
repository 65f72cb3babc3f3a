/**
 * Writes the ONNX models that ONNX Runtime is measured with: a graph of a few nodes, weights as initializers. A minimal
 * writer of the format, without checks: ONNX Runtime checks a model when it loads it.
 * Source: onnx/onnx.proto, whose field numbers stand in the calls below; Protocol Buffers' encoding of wire types 0, 2 and 5.
 */

/** A tensor's element type, as TensorProto.DataType numbers it. */
const ELEMENTS = { float32: 1, uint8: 2, int32: 6, int64: 7 } as const;
export type Element = keyof typeof ELEMENTS;

export interface Value {
  readonly name: string;
  readonly dims: readonly number[];
  /** f32 if not given. */
  readonly element?: Element;
}

/** A value that the model holds. */
export interface Initializer extends Value {
  /** Row by row, little-endian. */
  readonly data: ArrayBufferView;
}

export interface Node {
  readonly op: string;
  /** Empty for ONNX's own operators. */
  readonly domain?: string;
  /** "" stands for an input that is not given. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Whole numbers in `ints`, so that 1.0 can be told from 1. */
  readonly ints?: Readonly<Record<string, number>>;
  readonly floats?: Readonly<Record<string, number>>;
  readonly lists?: Readonly<Record<string, readonly number[]>>;
}

export interface Graph {
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly initializers?: readonly Initializer[];
  readonly nodes: readonly Node[];
}

/** Operator sets: ONNX's own, and ONNX Runtime's. 20 is the first with Gelu. */
const OPSETS = { "": 20, "com.microsoft": 1 } as const;
/** The version of the format that came with opset 20. */
const IR_VERSION = 9;

/** A graph as the bytes of a .onnx file. */
export function writeModel({ inputs, outputs, initializers = [], nodes }: Graph): Uint8Array {
  const graph = [
    ...nodes.map((node) => message(1, nodeFields(node))),
    text(2, "graph"),
    ...initializers.map((tensor) => message(5, tensorFields(tensor))),
    ...inputs.map((value) => message(11, valueFields(value))),
    ...outputs.map((value) => message(12, valueFields(value))),
  ];
  const opsets = Object.entries(OPSETS).map(([domain, version]) => message(8, [text(1, domain), integer(2, version)]));
  return concat([integer(1, IR_VERSION), message(7, graph), ...opsets]);
}

function nodeFields({ op, domain = "", inputs, outputs, ints = {}, floats = {}, lists = {} }: Node): Uint8Array[] {
  return [
    ...inputs.map((name) => text(1, name)),
    ...outputs.map((name) => text(2, name)),
    text(4, op),
    // AttributeProto: name, the value, and which kind it is (1: f, 2: i, 7: ints).
    ...Object.entries(floats).map(([name, value]) => message(5, [text(1, name), float(2, value), integer(20, 1)])),
    ...Object.entries(ints).map(([name, value]) => message(5, [text(1, name), integer(3, value), integer(20, 2)])),
    ...Object.entries(lists).map(([name, values]) =>
      message(5, [text(1, name), ...values.map((value) => integer(8, value)), integer(20, 7)]),
    ),
    text(7, domain),
  ];
}

function tensorFields({ name, dims, element = "float32", data }: Initializer): Uint8Array[] {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return [...dims.map((dim) => integer(1, dim)), integer(2, ELEMENTS[element]), text(8, name), bytes(9, raw)];
}

function valueFields({ name, dims, element = "float32" }: Value): Uint8Array[] {
  const shape = message(
    2,
    dims.map((dim) => message(1, [integer(1, dim)])),
  );
  return [text(1, name), message(2, [message(1, [integer(1, ELEMENTS[element]), shape])])];
}

// ---------------------------------------------------------------- Protocol Buffers

function integer(field: number, value: number): Uint8Array {
  return concat([varint(field * 8), varint(value)]);
}

function float(field: number, value: number): Uint8Array {
  const four = new DataView(new ArrayBuffer(4));
  four.setFloat32(0, value, true);
  return concat([varint(field * 8 + 5), new Uint8Array(four.buffer)]);
}

function bytes(field: number, value: Uint8Array): Uint8Array {
  return concat([varint(field * 8 + 2), varint(value.length), value]);
}

function text(field: number, value: string): Uint8Array {
  return bytes(field, new TextEncoder().encode(value));
}

function message(field: number, fields: readonly Uint8Array[]): Uint8Array {
  return bytes(field, concat(fields));
}

/** Seven bits a byte, the lowest first; the highest bit says that more follow. Negative: as its 64-bit two's complement. */
function varint(value: number): Uint8Array {
  const digits: number[] = [];
  for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
    if (rest < 128n) return Uint8Array.of(...digits, Number(rest));
    digits.push(Number(rest & 127n) + 128);
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
