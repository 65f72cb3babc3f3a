/** Writes files of PyTorch's zip format as torch.save does, and damaged ones: pickles by opcodes, archives by their records. */
import { crc32 } from "node:zlib";
import type { DType } from "../../../src/tensor/dtype.ts";
import { DTYPES } from "../../../src/tensor/dtype.ts";

export const STORAGE_OF: Partial<Record<DType, string>> = {
  f64: "DoubleStorage",
  f32: "FloatStorage",
  f16: "HalfStorage",
  bf16: "BFloat16Storage",
  i64: "LongStorage",
  i32: "IntStorage",
  i16: "ShortStorage",
  i8: "CharStorage",
  u8: "ByteStorage",
  bool: "BoolStorage",
};

const utf8 = (text: string) => Buffer.from(text, "utf8");

/** Opcodes of a pickle of protocol 2. */
export const op = {
  begin: Buffer.from([0x80, 2]),
  stop: Buffer.from("."),
  mark: Buffer.from("("),
  tuple: Buffer.from("t"),
  emptyTuple: Buffer.from(")"),
  emptyDict: Buffer.from("}"),
  emptyList: Buffer.from("]"),
  setItems: Buffer.from("u"),
  reduce: Buffer.from("R"),
  persistent: Buffer.from("Q"),
  no: Buffer.from([0x89]),
  text(text: string): Buffer {
    const bytes = utf8(text);
    const head = Buffer.from([0x58, 0, 0, 0, 0]);
    head.writeUInt32LE(bytes.length, 1);
    return Buffer.concat([head, bytes]);
  },
  int(value: number): Buffer {
    if (value >= 0 && value < 256) return Buffer.from([0x4b, value]);
    const long = Buffer.alloc(10);
    long[0] = 0x8a;
    long[1] = 8;
    long.writeBigInt64LE(BigInt(value), 2);
    return long;
  },
  global: (module: string, name: string) => utf8(`c${module}\n${name}\n`),
  ints: (values: readonly number[]) => Buffer.concat([op.mark, ...values.map(op.int), op.tuple]),
};

/** A tensor of a file: a view of a storage. */
export interface View {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Default: contiguous. */
  readonly strides?: readonly number[];
  /** Default 0. */
  readonly offset?: number;
  /** Key of the storage. */
  readonly storage: string;
}

/** The opcodes that rebuild a tensor. */
export function tensorPickle({ dtype, shape, strides, offset = 0, storage }: View, numel: number): Buffer {
  const steps = strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  return Buffer.concat([
    ...[op.global("torch._utils", "_rebuild_tensor_v2"), op.mark],
    ...[op.mark, op.text("storage"), op.global("torch", STORAGE_OF[dtype]!), op.text(storage), op.text("cpu")],
    ...[op.int(numel), op.tuple, op.persistent, op.int(offset), op.ints(shape), op.ints(steps), op.no],
    ...[op.global("collections", "OrderedDict"), op.emptyTuple, op.reduce, op.tuple, op.reduce],
  ]);
}

/** The pickle of a dict of opcodes. */
export function dictPickle(values: Readonly<Record<string, Buffer>>): Buffer {
  const items = Object.entries(values).flatMap(([name, value]) => [op.text(name), value]);
  return Buffer.concat([op.begin, op.emptyDict, op.mark, ...items, op.setItems, op.stop]);
}

/** A file with these tensors; storages by key. */
export function pytorchFile(
  tensors: Readonly<Record<string, View>>,
  storages: Readonly<Record<string, Uint8Array>>,
  options: ZipOptions = {},
): Buffer {
  const pickles = Object.entries(tensors).map(([name, view]) => {
    const numel = storages[view.storage].length / DTYPES[view.dtype].bytes;
    return [name, tensorPickle(view, numel)] as const;
  });
  return pytorchZip(dictPickle(Object.fromEntries(pickles)), storages, options);
}

/** A file with this pickle. */
export function pytorchZip(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>>,
  options: ZipOptions = {},
): Buffer {
  const data = Object.entries(storages).map(([key, bytes]) => [`archive/data/${key}`, bytes] as const);
  const others = { "archive/byteorder": utf8("little"), "archive/version": utf8("3\n") };
  return zip({ "archive/data.pkl": pickle, ...others, ...Object.fromEntries(data) }, options);
}

export interface ZipOptions {
  /** Sizes and offsets in zip64 fields. */
  wide?: boolean;
  comment?: string;
  /** Without a zip64 end record. */
  narrow?: boolean;
}

/** A zip archive of stored entries, aligned to 64 bytes. */
export function zip(
  entries: Readonly<Record<string, Uint8Array>>,
  { wide = false, comment = "", narrow = false }: ZipOptions = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  const add = (...bytes: Buffer[]) => {
    for (const part of bytes) {
      parts.push(part);
      at += part.length;
    }
  };
  for (const [name, content] of Object.entries(entries)) {
    const begin = at;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50);
    local.writeUInt16LE(0x0808, 6);
    local.writeUInt16LE(utf8(name).length, 26);
    const padding = 4 + ((64 - ((at + 34 + utf8(name).length) % 64)) % 64);
    local.writeUInt16LE(padding, 28);
    const extra = Buffer.alloc(padding, "Z");
    extra.write("FB");
    extra.writeUInt16LE(padding - 4, 2);
    add(local, utf8(name), extra, Buffer.from(content));

    const wideField = Buffer.alloc(wide ? 28 : 0);
    if (wide) {
      wideField.writeUInt16LE(1);
      wideField.writeUInt16LE(24, 2);
      wideField.writeBigUInt64LE(BigInt(content.length), 4);
      wideField.writeBigUInt64LE(BigInt(content.length), 12);
      wideField.writeBigUInt64LE(BigInt(begin), 20);
    }
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50);
    entry.writeUInt16LE(0x0808, 8);
    entry.writeUInt32LE(crc32(content), 16);
    entry.writeUInt32LE(wide ? 0xffffffff : content.length, 20);
    entry.writeUInt32LE(wide ? 0xffffffff : content.length, 24);
    entry.writeUInt16LE(utf8(name).length, 28);
    entry.writeUInt16LE(wideField.length, 30);
    entry.writeUInt32LE(wide ? 0xffffffff : begin, 42);
    directory.push(entry, utf8(name), wideField);
  }
  const begin = at;
  add(...directory);
  const size = at - begin;
  const count = Object.keys(entries).length;
  if (!narrow) {
    const end64 = Buffer.alloc(56);
    end64.writeUInt32LE(0x06064b50);
    end64.writeBigUInt64LE(44n, 4);
    end64.writeBigUInt64LE(BigInt(count), 24);
    end64.writeBigUInt64LE(BigInt(count), 32);
    end64.writeBigUInt64LE(BigInt(size), 40);
    end64.writeBigUInt64LE(BigInt(begin), 48);
    const locator = Buffer.alloc(20);
    locator.writeUInt32LE(0x07064b50);
    locator.writeBigUInt64LE(BigInt(at), 8);
    locator.writeUInt32LE(1, 16);
    add(end64, locator);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(wide ? 0xffff : count, 8);
  end.writeUInt16LE(wide ? 0xffff : count, 10);
  end.writeUInt32LE(wide ? 0xffffffff : size, 12);
  end.writeUInt32LE(wide ? 0xffffffff : begin, 16);
  end.writeUInt16LE(comment.length, 20);
  add(end, Buffer.from(comment, "latin1"));
  return Buffer.concat(parts);
}
