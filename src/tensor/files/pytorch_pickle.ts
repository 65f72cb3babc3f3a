/**
 * The state dict in a pickle of torch.save, without running anything: a fixed list of globals rebuilds tensors from storages, and any
 * other is refused by name.
 *
 * Source: torch 2.13, _utils.py (_rebuild_…), serialization.py (persistent_load), _weights_only_unpickler.py.
 */
import type { DType } from "../dtype.ts";
import { DTYPES } from "../dtype.ts";
import { quote } from "../shown.ts";
import { Dict, type Global, type PickleHost, type PickleLimits, type PickleValue, Tuple, unpickle } from "./pickle.ts";
import { MAX_RANK, type Refuse, UNSUPPORTED_DTYPES, type UnsupportedDType } from "./tensor_file.ts";

export type PyTorchDType = DType | UnsupportedDType;

/** A storage: the bytes that tensors are views of. */
export class Storage {
  readonly key: string;
  /** Of its elements; undefined for one of bytes. */
  readonly dtype: PyTorchDType | undefined;
  /** Its size. */
  readonly bytes: number;

  constructor(key: string, dtype: PyTorchDType | undefined, bytes: number) {
    this.key = key;
    this.dtype = dtype;
    this.bytes = bytes;
  }
}

/** A view of a storage: `offset` and `strides` count elements. */
export class StoredTensor {
  readonly storage: Storage;
  readonly dtype: PyTorchDType;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(
    storage: Storage,
    dtype: PyTorchDType,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
  ) {
    this.storage = storage;
    this.dtype = dtype;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/** Storages of torch and torch.cuda, by name. */
const STORAGES: Readonly<Record<string, PyTorchDType | undefined>> = {
  DoubleStorage: "f64",
  FloatStorage: "f32",
  HalfStorage: "f16",
  BFloat16Storage: "bf16",
  LongStorage: "i64",
  IntStorage: "i32",
  ShortStorage: "i16",
  CharStorage: "i8",
  ByteStorage: "u8",
  BoolStorage: "bool",
  ComplexFloatStorage: "C64",
  ComplexDoubleStorage: "C128",
};

/** Dtypes that tensors of untyped storages have (`_rebuild_tensor_v3`), and others, by name. */
const DTYPE_NAMES: Readonly<Record<string, PyTorchDType>> = {
  float64: "f64",
  float32: "f32",
  float16: "f16",
  bfloat16: "bf16",
  int64: "i64",
  int32: "i32",
  int16: "i16",
  int8: "i8",
  uint64: "u64",
  uint32: "u32",
  uint16: "u16",
  uint8: "u8",
  bool: "bool",
  complex64: "C64",
  complex128: "C128",
  float8_e4m3fn: "F8_E4M3",
  float8_e4m3fnuz: "F8_E4M3FNUZ",
  float8_e5m2: "F8_E5M2",
  float8_e5m2fnuz: "F8_E5M2FNUZ",
  float8_e8m0fnu: "F8_E8M0",
};

/** A storage's class or a dtype. */
class TypeGlobal implements Global {
  readonly name: string;
  readonly dtype: PyTorchDType | undefined;
  readonly isStorage: boolean;

  constructor(name: string, dtype: PyTorchDType | undefined, isStorage: boolean) {
    this.name = name;
    this.dtype = dtype;
    this.isStorage = isStorage;
  }
}

/** Size of an element in bytes. */
export function elementBytes(dtype: PyTorchDType): number {
  return dtype in DTYPES ? DTYPES[dtype as DType].bytes : UNSUPPORTED_DTYPES[dtype as UnsupportedDType] / 8;
}

/** All globals that are known; nothing else is ever looked up. */
const GLOBALS: ReadonlyMap<string, Global> = new Map(
  [
    { name: "collections.OrderedDict", call: orderedDict },
    { name: "torch._utils._rebuild_tensor", call: rebuildTensor },
    { name: "torch._utils._rebuild_tensor_v2", call: rebuildTensorV2 },
    { name: "torch._utils._rebuild_tensor_v3", call: rebuildTensorV3 },
    { name: "torch._utils._rebuild_parameter", call: rebuildParameter },
    { name: "torch._utils._rebuild_parameter_with_state", call: rebuildParameter },
    { name: "torch.Size", call: size },
    { name: "torch.device", call: () => null },
    ...Object.entries(STORAGES).flatMap(([name, dtype]) =>
      ["torch", "torch.cuda"].map((module) => new TypeGlobal(`${module}.${name}`, dtype, true)),
    ),
    new TypeGlobal("torch.storage.UntypedStorage", undefined, true),
    ...Object.entries(DTYPE_NAMES).map(([name, dtype]) => new TypeGlobal(`torch.${name}`, dtype, false)),
  ].map((known: Global) => [known.name, known]),
);

function orderedDict(args: readonly PickleValue[], refuse: Refuse): Dict {
  const dict = new Dict();
  const [pairs = []] = args;
  if (args.length > 1 || !Array.isArray(pairs)) return badCall("OrderedDict", refuse);
  for (const pair of pairs) {
    // as Python 2 wrote them
    const items = pair instanceof Tuple ? pair.items : Array.isArray(pair) ? pair : [];
    if (items.length !== 2) return badCall("OrderedDict", refuse);
    dict.set(items[0]!, items[1]!);
  }
  return dict;
}

function size([dims]: readonly PickleValue[], refuse: Refuse): Tuple {
  if (dims instanceof Tuple) return dims;
  return Array.isArray(dims) ? new Tuple([...dims]) : badCall("Size", refuse);
}

/** storage, storage_offset, size, stride */
function rebuildTensor(args: readonly PickleValue[], refuse: Refuse): StoredTensor {
  return args.length === 4 ? view(args, undefined, refuse) : badCall("_rebuild_tensor", refuse);
}

/** …, requires_grad, backward_hooks, metadata = None */
function rebuildTensorV2(args: readonly PickleValue[], refuse: Refuse): StoredTensor {
  if (args.length < 6 || args.length > 7) return badCall("_rebuild_tensor_v2", refuse);
  checkMetadata(args[6], refuse);
  return view(args, undefined, refuse);
}

/** …, requires_grad, backward_hooks, dtype, metadata = None */
function rebuildTensorV3(args: readonly PickleValue[], refuse: Refuse): StoredTensor {
  const dtype = args[6];
  if (args.length < 7 || args.length > 8 || !(dtype instanceof TypeGlobal) || dtype.isStorage) {
    return badCall("_rebuild_tensor_v3", refuse);
  }
  checkMetadata(args[7], refuse);
  return view(args, dtype.dtype, refuse);
}

/** data, requires_grad, backward_hooks, and the state of Python's object, which is not used */
function rebuildParameter([data]: readonly PickleValue[], refuse: Refuse): StoredTensor {
  return data instanceof StoredTensor ? data : badCall("_rebuild_parameter", refuse);
}

/** The bits that make a view a conjugate or a negative one. */
function checkMetadata(metadata: PickleValue | undefined, refuse: Refuse): void {
  if (metadata === undefined || metadata === null) return;
  if (metadata instanceof Dict && [...metadata.entries.values()].every((bit) => bit === false)) return;
  refuse(
    "BAD_PICKLE",
    "a tensor that is the conjugate or the negative of what is stored",
    "save tensor.resolve_conj().resolve_neg()",
  );
}

function view(args: readonly PickleValue[], given: PyTorchDType | undefined, refuse: Refuse): StoredTensor {
  const [storage, offset, shape, strides] = args;
  const dtype = given ?? (storage instanceof Storage ? storage.dtype : undefined);
  const [dims, steps] = [countsOf(shape), countsOf(strides)];
  if (
    !(storage instanceof Storage) ||
    dtype === undefined ||
    !isCount(offset) ||
    !dims ||
    !steps ||
    dims.length !== steps.length
  ) {
    return refuse("BAD_PICKLE", "a tensor without a storage, an offset, a size and strides");
  }
  if (dims.length > MAX_RANK) return refuse("RANK", `a tensor of ${dims.length} dimensions; the limit is ${MAX_RANK}`);
  return new StoredTensor(storage, dtype, offset, dims, steps);
}

function isCount(value: PickleValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** Longest list of sizes that is looked at; those beyond the limit of dimensions are refused by their number. */
const MAX_ITEMS = 64;

function countsOf(value: PickleValue | undefined): number[] | undefined {
  const items = value instanceof Tuple ? value.items : Array.isArray(value) ? value : undefined;
  return items && items.length <= MAX_ITEMS && items.every(isCount) ? [...items] : undefined;
}

function badCall(name: string, refuse: Refuse): never {
  return refuse("BAD_PICKLE", `a call of ${name} with other arguments than it has`);
}

/** @param storages collects all that the pickle names, by key */
const hostOf = (storages: Map<string, Storage>): PickleHost => ({
  find: (name) => GLOBALS.get(name),

  /** ("storage", class, key, location, number of elements), in old files with a sixth: a view of another storage, or None */
  persistent(id, refuse) {
    const items = id instanceof Tuple ? id.items : [];
    const [kind, type, key, , count, viewed = null] = items;
    const isKnown = kind === "storage" && type instanceof TypeGlobal && type.isStorage;
    if (!isKnown || typeof key !== "string" || !isCount(count) || items.length > 6) {
      return refuse("BAD_PICKLE", `a persistent id of ${typeof kind === "string" ? quote(kind) : "an unknown kind"}`);
    }
    if (viewed !== null) return refuse("BAD_PICKLE", "a storage that is a view of another, as of PyTorch before 0.4");
    const bytes = count * (type.dtype ? elementBytes(type.dtype) : 1);
    if (!Number.isSafeInteger(bytes)) return refuse("OVERFLOW", `a storage of ${count} elements`);
    if ((storages.get(key)?.bytes ?? bytes) !== bytes) {
      return refuse("BAD_PICKLE", `the storage ${quote(key)} has two sizes`);
    }
    const storage = new Storage(key, type.dtype, bytes);
    storages.set(key, storage);
    return storage;
  },
});

/** Where the weights are in what training saves beside them: of LAVIS, Lightning, DeepSpeed. */
const WRAPPERS = ["model", "state_dict", "module"];

export interface StateDict {
  /** All storages by key, those of what is beside the state dict too. */
  readonly storages: ReadonlyMap<string, Storage>;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Keys of what is no tensor, and of tensors beside the state dict. */
  readonly ignored: readonly string[];
}

/**
 * Reads the pickle of a state dict, or of a dict that has one under "model", "state_dict" or "module".
 *
 * @returns it, and where the pickle ends
 * @throws PickleEnd; what `refuse` throws: NO_STATE_DICT, RANK, OVERFLOW and those of {@link unpickle}
 */
export function readStateDict(
  bytes: Uint8Array,
  begin: number,
  limits: PickleLimits,
  refuse: Refuse,
): { state: StateDict; end: number } {
  const storages = new Map<string, Storage>();
  const { value, end } = unpickle(bytes, begin, hostOf(storages), limits, refuse);
  const inner = value instanceof Dict ? WRAPPERS.map((key) => value.entries.get(key)).find(hasTensors) : undefined;
  // What training saves may have tensors beside the state dict, such as a step: the dict of more tensors is meant.
  const isInner = inner && !(hasTensors(value) && tensorsOf(value).length > tensorsOf(inner).length);
  const dict = isInner ? inner : hasTensors(value) ? value : undefined;
  if (!dict) {
    const what =
      value instanceof Dict ? "a dict without tensors" : value instanceof StoredTensor ? "one tensor" : "no dict";
    return refuse("NO_STATE_DICT", `its pickle is ${what}, not a state dict`, REFUSED_HINT);
  }
  const tensors = new Map<string, StoredTensor>();
  const beside = dict === inner && value instanceof Dict ? tensorsOf(value) : [];
  const ignored = beside.map(nameOfKey);
  for (const [key, tensor] of dict.entries) {
    if (typeof key === "string" && tensor instanceof StoredTensor) tensors.set(key, tensor);
    else ignored.push(nameOfKey(key));
  }
  return { state: { storages, tensors, ignored }, end };
}

const REFUSED_HINT = "torch.save(model.state_dict(), …) writes one, also below the key model, state_dict or module";

const nameOfKey = (key: PickleValue): string => (typeof key === "string" ? key : typeof key);

function hasTensors(value: PickleValue | undefined): value is Dict {
  return value instanceof Dict && tensorsOf(value).length > 0;
}

/** Keys of tensors. */
function tensorsOf({ entries }: Dict): PickleValue[] {
  return [...entries.keys()].filter((key) => entries.get(key) instanceof StoredTensor);
}

/** Any other pickle of torch.save. */
export function readPickle(bytes: Uint8Array, begin: number, limits: PickleLimits, refuse: Refuse) {
  return unpickle(bytes, begin, hostOf(new Map()), limits, refuse);
}
