/**
 * A machine for Python pickles that runs nothing: it builds plain values, and each global that a pickle names is looked up in a fixed
 * list of the caller's. Opcodes of protocol 2, and those of later protocols that plain values need; every other is refused.
 *
 * Source: CPython, Lib/pickletools.py; torch, _weights_only_unpickler.py, which takes the same approach.
 */
import { quote } from "../shown.ts";
import type { Refuse } from "./tensor_file.ts";

/** A value of a pickle. Lists are arrays; objects are what the caller's globals return. */
export type PickleValue = null | boolean | number | bigint | string | Uint8Array | PickleValue[] | object;

export class Tuple {
  readonly items: readonly PickleValue[];

  constructor(items: readonly PickleValue[]) {
    this.items = items;
  }
}

/** A dict or an OrderedDict; both keep the order of insertion. */
export class Dict {
  #entries: Map<PickleValue, PickleValue> | undefined; // most are empty: hooks of tensors

  get entries(): ReadonlyMap<PickleValue, PickleValue> {
    return this.#entries ?? NONE;
  }

  set(key: PickleValue, value: PickleValue): void {
    this.#entries ??= new Map();
    this.#entries.set(key, value);
  }
}
const NONE: ReadonlyMap<PickleValue, PickleValue> = new Map();

/** A global that the caller knows. */
export interface Global {
  /** `module.name` */
  readonly name: string;
  /** What a call of it returns; absent if it cannot be called. */
  readonly call?: (args: readonly PickleValue[], refuse: Refuse) => PickleValue;
}

export interface PickleHost {
  /** The global `module.name`, or undefined: the pickle is refused. */
  find(name: string): Global | undefined;
  /** The object of a persistent id. */
  persistent(id: PickleValue, refuse: Refuse): PickleValue;
}

/** Bounds of what a pickle makes the machine allocate. */
export interface PickleLimits {
  /** Depth of the stack, and values with a memory of their own. */
  values: number;
  /** Values that the pickle refers to again. */
  memo: number;
}

/** The bytes end before the pickle does. */
export class PickleEnd extends Error {}

const REFUSED = "save the weights alone in Python: torch.save(model.state_dict(), …), or model.save_pretrained(…)";

/**
 * Reads the pickle that begins at `bytes[begin]`.
 *
 * @returns its value, and where it ends
 * @throws PickleEnd; what `refuse` throws: PICKLE_GLOBAL for a global that the caller does not know, BAD_PICKLE, HEADER_TOO_LARGE
 */
export function unpickle(
  bytes: Uint8Array,
  begin: number,
  host: PickleHost,
  limits: PickleLimits,
  refuse: Refuse,
): { value: PickleValue; end: number } {
  const machine = new Machine(bytes, begin, host, limits, refuse);
  const value = machine.run();
  return { value, end: machine.at };
}

/** Values in an argument of a call that are not counted: a tensor's sizes are a few. */
const FREE = 64;
/** Longest name of a global. */
const MAX_LINE = 1024;
const latin1 = new TextDecoder("latin1");
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Machine {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #host: PickleHost;
  readonly #limits: PickleLimits;
  readonly #refuse: Refuse;
  readonly #stack: PickleValue[] = [];
  /** Depths of the stack at its marks. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #made = 0;

  constructor(bytes: Uint8Array, begin: number, host: PickleHost, limits: PickleLimits, refuse: Refuse) {
    this.at = begin;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#host = host;
    this.#limits = limits;
    this.#refuse = refuse;
  }

  run(): PickleValue {
    for (;;) {
      const op = this.#u8();
      if (op === 0x2e) return this.#pop(); // STOP
      const run = OPCODES.get(op);
      if (!run)
        return this.#bad(`the opcode 0x${op.toString(16).padStart(2, "0")}, which weights do not need`, REFUSED);
      run(this);
      if (this.#stack.length > this.#limits.values || this.#marks.length > this.#limits.values) this.#tooLarge();
    }
  }

  // --- opcodes ---

  protocol(): void {
    const version = this.#u8();
    if (version < 2 || version > 5) this.#bad(`protocol ${version}; 2 to 5 are read`);
  }

  push(value: PickleValue): void {
    this.#stack.push(value);
  }

  /** Pushes a value with a memory of its own. */
  make<T extends PickleValue>(value: T): T {
    this.#count(1);
    this.#stack.push(value);
    return value;
  }

  mark(): void {
    this.#marks.push(this.#stack.length);
  }

  tuple(length?: number): void {
    this.make(new Tuple(length === undefined ? this.#toMark() : this.#take(length)));
  }

  put(index: number): void {
    if (this.#memo.size >= this.#limits.memo) this.#tooLarge();
    this.#memo.set(index, this.#top());
  }

  memoize(): void {
    this.put(this.#memo.size);
  }

  get(index: number): void {
    const value = this.#memo.get(index);
    this.push(value === undefined ? this.#bad(`nothing is kept under ${index}`) : value);
  }

  append(items: readonly PickleValue[]): void {
    const list = this.#top();
    if (!Array.isArray(list)) this.#bad("items are appended to what is no list");
    for (const item of items) list.push(item);
  }

  setItems(items: readonly PickleValue[]): void {
    const dict = this.#top();
    if (!(dict instanceof Dict)) this.#bad("items are set in what is no dict", REFUSED);
    if (items.length % 2) this.#bad("a key without a value");
    for (let i = 0; i < items.length; i += 2) dict.set(items[i]!, items[i + 1]!);
  }

  /** The state of an object: that of an OrderedDict, such as `_metadata` of a state dict, is not used. */
  build(): void {
    this.#pop();
    if (!(this.#top() instanceof Dict)) this.#bad("the state of what is no dict", REFUSED);
  }

  global(name: string): void {
    this.push(
      this.#host.find(name) ??
        this.#refuse(
          "PICKLE_GLOBAL",
          `its pickle asks for ${quote(name)}, which weights do not need; nothing was run`,
          REFUSED,
        ),
    );
  }

  /** A global by the names in the text, as GLOBAL and INST have them. */
  lines(): string {
    return `${this.#line()}.${this.#line()}`;
  }

  stackGlobal(): void {
    const [module, name] = this.#take(2);
    if (typeof module !== "string" || typeof name !== "string") this.#bad("a global whose name is no text");
    this.global(`${module}.${name}`);
  }

  reduce(): void {
    const [callee, args] = this.#take(2);
    if (!(args instanceof Tuple)) this.#bad("a call whose arguments are no tuple");
    const { name, call } = (callee ?? {}) as Partial<Global>;
    if (typeof call !== "function") {
      const what = typeof name === "string" ? `${quote(name)}, which is no function` : "what is no function";
      this.#bad(`a call of ${what}`, REFUSED);
    }
    // A call may copy its arguments, which a short pickle can name again and again.
    for (const item of args.items) {
      const { length } = item instanceof Tuple ? item.items : Array.isArray(item) ? item : "";
      if (length > FREE) this.#count(length);
    }
    this.make(call(args.items, this.#refuse));
  }

  /** An object of a class: no class that weights need is made so. */
  refuseObject(): never {
    const [callee] = this.#take(2);
    const name = (callee as Partial<Global> | null)?.name;
    this.#bad(`an object of ${typeof name === "string" ? quote(name) : "a class"}`, REFUSED);
  }

  persistent(): void {
    this.push(this.#host.persistent(this.#pop(), this.#refuse));
  }

  popMark(): void {
    this.#toMark();
  }

  toMark(): PickleValue[] {
    return this.#toMark();
  }

  take(count: number): PickleValue[] {
    return this.#take(count);
  }

  duplicate(): void {
    this.push(this.#top());
  }

  // --- arguments ---

  u8 = (): number => this.#u8();
  u16 = (): number => this.#view.getUint16(this.#skip(2), true);
  u32 = (): number => this.#view.getUint32(this.#skip(4), true);
  i32 = (): number => this.#view.getInt32(this.#skip(4), true);
  f64 = (): number => this.#view.getFloat64(this.#skip(8), false);

  /** A length or an offset of 8 bytes. */
  u64(): number {
    const value = Number(this.#view.getBigUint64(this.#skip(8), true));
    return Number.isSafeInteger(value) ? value : this.#bad("a length above 2^53");
  }

  /** A little-endian integer in two's complement. */
  long(length: number): number | bigint {
    if (length > 255) this.#bad(`an integer of ${length} bytes`);
    const begin = this.#skip(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[begin + i]!);
    const signed = BigInt.asIntN(8 * length, value);
    const number = Number(signed);
    return Number.isSafeInteger(number) ? number : signed;
  }

  text(length: number): string {
    const begin = this.#skip(length);
    const bytes = this.#bytes.subarray(begin, begin + length);
    try {
      return utf8.decode(bytes);
    } catch {
      return this.#bad("a text that is not valid UTF-8"); // or half of a surrogate pair, which Python writes
    }
  }

  /** A string of Python 2. */
  latin1(length: number): string {
    const begin = this.#skip(length);
    return latin1.decode(this.#bytes.subarray(begin, begin + length));
  }

  bytes(length: number): Uint8Array {
    const begin = this.#skip(length);
    return this.#bytes.slice(begin, begin + length);
  }

  #u8(): number {
    return this.#bytes[this.#skip(1)]!;
  }

  /** Passes `length` bytes. @returns where they begin */
  #skip(length: number): number {
    const begin = this.at;
    if (length > this.#bytes.length - begin) throw new PickleEnd();
    this.at += length;
    return begin;
  }

  #line(): string {
    const begin = this.at;
    const end = this.#bytes.indexOf(0x0a, begin);
    if (end < 0 && this.#bytes.length - begin <= MAX_LINE) throw new PickleEnd();
    if (end < 0 || end - begin > MAX_LINE) return this.#bad(`the name of a global with more than ${MAX_LINE} bytes`);
    this.at = end + 1;
    return latin1.decode(this.#bytes.subarray(begin, end));
  }

  // --- the stack ---

  /** Values below the last mark are not reached but by popping the mark. */
  get #floor(): number {
    return this.#marks.at(-1) ?? 0;
  }

  #top(): PickleValue {
    return this.#stack.length > this.#floor ? this.#stack.at(-1)! : this.#bad("too few values");
  }

  #pop(): PickleValue {
    return this.#stack.length > this.#floor ? this.#stack.pop()! : this.#bad("too few values");
  }

  #take(count: number): PickleValue[] {
    const from = this.#stack.length - count;
    return from >= this.#floor ? this.#stack.splice(from) : this.#bad("too few values");
  }

  #toMark(): PickleValue[] {
    const from = this.#marks.pop();
    return from === undefined ? this.#bad("too few marks") : this.#stack.splice(from);
  }

  #bad(message: string, hint?: string): never {
    return this.#refuse("BAD_PICKLE", `its pickle, at byte ${this.at}: ${message}`, hint);
  }

  /** Counts values that were made or copied. */
  #count(values: number): void {
    this.#made += values;
    if (this.#made > this.#limits.values) this.#tooLarge();
  }

  #tooLarge(): never {
    return this.#refuse(
      "HEADER_TOO_LARGE",
      "its pickle makes more values than the most tensors need",
      "maxTensors raises the limit",
    );
  }
}

const OPCODES: ReadonlyMap<number, (machine: Machine) => void> = new Map([
  [0x80, (m) => m.protocol()], // PROTO
  [0x95, (m) => void m.u64()], // FRAME
  [0x28, (m) => m.mark()], // MARK
  [0x30, (m) => void m.take(1)], // POP
  [0x31, (m) => m.popMark()], // POP_MARK
  [0x32, (m) => m.duplicate()], // DUP
  [0x4e, (m) => m.push(null)], // NONE
  [0x88, (m) => m.push(true)], // NEWTRUE
  [0x89, (m) => m.push(false)], // NEWFALSE
  [0x4b, (m) => m.push(m.u8())], // BININT1
  [0x4d, (m) => m.push(m.u16())], // BININT2
  [0x4a, (m) => m.push(m.i32())], // BININT
  [0x8a, (m) => m.push(m.long(m.u8()))], // LONG1
  [0x8b, (m) => m.push(m.long(m.u32()))], // LONG4
  [0x47, (m) => m.push(m.f64())], // BINFLOAT
  [0x58, (m) => m.push(m.text(m.u32()))], // BINUNICODE
  [0x8c, (m) => m.push(m.text(m.u8()))], // SHORT_BINUNICODE
  [0x8d, (m) => m.push(m.text(m.u64()))], // BINUNICODE8
  [0x54, (m) => m.push(m.latin1(m.u32()))], // BINSTRING
  [0x55, (m) => m.push(m.latin1(m.u8()))], // SHORT_BINSTRING
  [0x42, (m) => void m.make(m.bytes(m.u32()))], // BINBYTES
  [0x43, (m) => void m.make(m.bytes(m.u8()))], // SHORT_BINBYTES
  [0x29, (m) => m.tuple(0)], // EMPTY_TUPLE
  [0x85, (m) => m.tuple(1)], // TUPLE1
  [0x86, (m) => m.tuple(2)], // TUPLE2
  [0x87, (m) => m.tuple(3)], // TUPLE3
  [0x74, (m) => m.tuple()], // TUPLE
  [0x5d, (m) => void m.make([])], // EMPTY_LIST
  [0x61, (m) => m.append(m.take(1))], // APPEND
  [0x65, (m) => m.append(m.toMark())], // APPENDS
  [0x7d, (m) => void m.make(new Dict())], // EMPTY_DICT
  [0x73, (m) => m.setItems(m.take(2))], // SETITEM
  [0x75, (m) => m.setItems(m.toMark())], // SETITEMS
  [0x71, (m) => m.put(m.u8())], // BINPUT
  [0x72, (m) => m.put(m.u32())], // LONG_BINPUT
  [0x94, (m) => m.memoize()], // MEMOIZE
  [0x68, (m) => m.get(m.u8())], // BINGET
  [0x6a, (m) => m.get(m.u32())], // LONG_BINGET
  [0x63, (m) => m.global(m.lines())], // GLOBAL
  [0x69, (m) => m.global(m.lines())], // INST: refused, as classes are; its name is in the error
  [0x93, (m) => m.stackGlobal()], // STACK_GLOBAL
  [0x52, (m) => m.reduce()], // REDUCE
  [0x81, (m) => m.refuseObject()], // NEWOBJ
  [0x62, (m) => m.build()], // BUILD
  [0x51, (m) => m.persistent()], // BINPERSID
]);
