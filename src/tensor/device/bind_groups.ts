/** Bind groups, each created once for the buffers and params it binds, and the params, in slots of one uniform buffer. */
import { DeviceError, KernelError } from "../errors.ts";
import type { Device, Launch } from "../tensor.ts";
import { fileOf, PARAMS_BINDING, type Wgsl } from "../wgsl.ts";
import type { Driver } from "./driver.ts";
import { BUFFER_USAGE } from "./gpu.ts";
import type { Storage } from "./memory.ts";
import type { Pipeline } from "./pipelines.ts";

/** A launch as it is encoded. */
export interface Dispatch {
  readonly pipeline: Pipeline;
  readonly group: Group;
  readonly grid: readonly [number, number, number];
  /** What it was made of, and `Device.site` then, for a profile. */
  readonly launch: Launch;
  readonly site: string;
}

/** A bind group, and what it binds. */
interface Group {
  readonly handle: GPUBindGroup;
  readonly storages: readonly GPUBindGroupEntry[];
  readonly params: ParamsSlot | undefined;
}

/** One set of params in a uniform buffer. */
interface ParamsSlot {
  readonly index: number;
  readonly words: Uint32Array<ArrayBuffer>;
}

const PARAMS_SLOT = 256; // WebGPU's largest minUniformBufferOffsetAlignment
const PARAMS_SLOTS = 1024;
/** Bind groups that are cached: many times those of a forward pass. A driver takes some kilobytes for each. */
const MOST_GROUPS = 2048;

export class BindGroups {
  readonly #driver: Driver;
  readonly #flush: () => void;
  readonly #counts: Device["counts"];
  readonly #groups = new Map<string, Group>();
  /** Keys of the bind groups on a persistent storage, so that disposing one cache leaves the others' groups alone. */
  #groupsOn = new WeakMap<Storage, string[]>();
  readonly #params: GPUBuffer;
  readonly #paramsSlots = new Map<string, ParamsSlot>();

  /** @param flush submits recorded launches, before the params that they use are overwritten */
  constructor(driver: Driver, counts: Device["counts"], flush: () => void) {
    this.#driver = driver;
    this.#counts = counts;
    this.#flush = flush;
    this.#params = this.#paramsOf(PARAMS_SLOTS);
  }

  /** The bind group of a launch on `device`. @throws KernelError PARAMS, BINDINGS, ALIAS; DeviceError DISPOSED, OTHER_DEVICE */
  of(pipeline: Pipeline, launch: Launch, device: Device): Group {
    const params = this.#paramsSlot(pipeline.wgsl, launch);
    const { bindings } = pipeline.wgsl;
    const given = Object.keys(launch.bindings).length;
    let key = `${pipeline.layoutId},${params?.index ?? ""}`;
    for (const { name, writable } of bindings) {
      const tensor = launch.bindings[name];
      if (!tensor) throw new KernelError("BINDINGS", `${fileOf(launch.kernel)}: binding ${name} is missing`);
      if (!tensor.storage.alive) throw new DeviceError("DISPOSED", `${launch.kernel}: ${name} has been disposed`);
      if (tensor.device !== device)
        throw new DeviceError("OTHER_DEVICE", `${launch.kernel}: ${name} is on another device`);
      if (writable) {
        for (const other of bindings) {
          if (other.name !== name && launch.bindings[other.name]?.storage === tensor.storage) {
            throw new KernelError("ALIAS", `${fileOf(launch.kernel)}: ${name} and ${other.name} share memory`);
          }
        }
      }
      key += `,${tensor.storage.id}:${tensor.storage.bytes}`;
    }
    if (given !== bindings.length) {
      const extra = Object.keys(launch.bindings).filter((name) => !bindings.some((b) => b.name === name));
      throw new KernelError("BINDINGS", `${fileOf(launch.kernel)} has no binding ${extra.join(", ")}`);
    }
    let group = this.#groups.get(key);
    if (!group) {
      const storages = bindings.map(({ name, binding }) => {
        const { buffer, bytes } = launch.bindings[name]!.storage;
        return { binding, resource: { buffer, size: bytes } };
      });
      group = this.#bind(pipeline, storages, params, this.#params);
      if (this.#groups.size >= MOST_GROUPS) this.forget();
      this.#groups.set(key, group);
      for (const { name } of bindings) {
        const { storage } = launch.bindings[name]!;
        if (!storage.persistent) continue;
        const keys = this.#groupsOn.get(storage);
        if (keys) keys.push(key);
        else this.#groupsOn.set(storage, [key]);
      }
    }
    return group;
  }

  #bind(pipeline: Pipeline, storages: Group["storages"], params: ParamsSlot | undefined, buffer: GPUBuffer): Group {
    const resource = params && { buffer, offset: params.index * PARAMS_SLOT, size: PARAMS_SLOT };
    const entries = resource ? [...storages, { binding: PARAMS_BINDING, resource }] : [...storages];
    this.#counts.bindGroups++;
    const { layout, wgsl } = pipeline;
    const handle = this.#driver.guard(`binding ${wgsl.label}`, [], () =>
      this.#driver.handle.createBindGroup({ label: wgsl.label, layout, entries }),
    );
    return { handle, storages, params };
  }

  /** Drops the groups on a storage, or all. */
  forget(storage?: Storage): void {
    if (storage !== undefined) {
      for (const key of this.#groupsOn.get(storage) ?? []) this.#groups.delete(key);
      return;
    }
    this.#groups.clear();
    this.#groupsOn = new WeakMap();
  }

  /** Drops groups and params. */
  clear(): void {
    this.#paramsSlots.clear();
    this.forget();
  }

  /** A uniform buffer for `slots` sets of params. */
  #paramsOf(slots: number): GPUBuffer {
    const usage = BUFFER_USAGE.UNIFORM | BUFFER_USAGE.COPY_DST;
    return this.#driver.createBuffer({ label: "params", size: PARAMS_SLOT * slots, usage });
  }

  #writeParams(buffer: GPUBuffer, { index, words }: ParamsSlot): void {
    const write = () => this.#driver.handle.queue.writeBuffer(buffer, index * PARAMS_SLOT, words);
    this.#driver.inOrder(() => this.#driver.guard("an upload", [], write));
  }

  /** Writes the params to the uniform buffer, each distinct set once. */
  #paramsSlot(wgsl: Wgsl, launch: Launch): ParamsSlot | undefined {
    const given = launch.params ?? {};
    if (wgsl.params.length === 0) return undefined;
    for (const name of Object.keys(given)) {
      if (!wgsl.params.some((field) => field.name === name)) {
        throw new KernelError("PARAMS", `${fileOf(launch.kernel)} has no param ${name}`);
      }
    }
    let key = "";
    wgsl.params.forEach(({ name, type }, i) => {
      const value = given[name];
      if (value === undefined) throw new KernelError("PARAMS", `${fileOf(launch.kernel)}: param ${name} is missing`);
      if (type === "f32") {
        paramFloats[i] = value;
      } else {
        const low = type === "u32" ? 0 : -(2 ** 31);
        if (!Number.isInteger(value) || value < low || value >= low + 2 ** 32) {
          throw new KernelError("PARAMS", `${fileOf(launch.kernel)}: param ${name} = ${value} is not a ${type}`);
        }
        paramWords[i] = value;
      }
      key += `${paramWords[i]},`;
    });
    let slot = this.#paramsSlots.get(key);
    if (slot === undefined) {
      if (this.#paramsSlots.size === PARAMS_SLOTS) {
        this.#flush(); // recorded launches still use the old contents
        this.clear();
      }
      slot = { index: this.#paramsSlots.size, words: paramWords.slice(0, wgsl.params.length) };
      this.#writeParams(this.#params, slot);
      this.#paramsSlots.set(key, slot);
    }
    return slot;
  }

  /** Gives captured launches a params buffer of their own: slots of the shared one are reused. */
  pin(launches: Dispatch[]): GPUBuffer | undefined {
    const slots = new Map<ParamsSlot, ParamsSlot>();
    for (const { params } of launches.map((launch) => launch.group)) {
      if (params && !slots.has(params)) slots.set(params, { ...params, index: slots.size });
    }
    if (slots.size === 0) return undefined;
    const buffer = this.#paramsOf(slots.size);
    for (const slot of slots.values()) this.#writeParams(buffer, slot);
    const groups = new Map<Group, Group>();
    launches.forEach((launch, i) => {
      const { pipeline, group } = launch;
      if (!group.params) return;
      const pinned = groups.get(group) ?? this.#bind(pipeline, group.storages, slots.get(group.params), buffer);
      groups.set(group, pinned);
      launches[i] = { ...launch, group: pinned };
    });
    return buffer;
  }
}

/** Encodes launches, setting pipeline and bind group only where they change. */
export function encode(pass: GPUComputePassEncoder, launches: readonly Dispatch[]): void {
  let current: Pipeline | undefined;
  let bound: Group | undefined;
  for (const { pipeline, group, grid } of launches) {
    if (pipeline !== current) pass.setPipeline(pipeline.handle);
    if (group !== bound) pass.setBindGroup(0, group.handle);
    current = pipeline;
    bound = group;
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
  }
  pass.end();
}

const paramWords = new Uint32Array(PARAMS_SLOT / 4);
const paramFloats = new Float32Array(paramWords.buffer);
