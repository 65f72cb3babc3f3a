/** Compute pipelines of a device, each kernel compiled once. */
import { KernelError } from "../errors.ts";
import type { Kernel } from "../tensor.ts";
import { assemble, fileOf, PARAMS_BINDING, type Wgsl } from "../wgsl.ts";
import type { Call } from "./call.ts";
import { type Driver, ERRORS } from "./driver.ts";
import { COMPUTE_STAGE } from "./gpu.ts";

export interface Pipeline {
  readonly wgsl: Wgsl;
  readonly handle: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly layoutId: number;
}

export class Pipelines {
  readonly #driver: Driver;
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #layouts = new Map<string, { id: number; layout: GPUBindGroupLayout }>();
  #nextLayout = 0;

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  clear(): void {
    this.#pipelines.clear();
    this.#layouts.clear();
  }

  async prepare(kernels: Iterable<Kernel>): Promise<void> {
    const call = this.#driver.call;
    await Promise.all(
      [...kernels].map(async (kernel) => {
        const key = pipelineKey(kernel);
        if (this.#pipelines.has(key)) return;
        const { wgsl, descriptor, layout, layoutId } = this.#describe(kernel, key);
        const what = `compiling ${fileOf(kernel.kernel)}`;
        const promise = this.#driver.asked(() => this.#driver.handle.createComputePipelineAsync(descriptor));
        const handle = await this.#driver.wait(call, { what, promise }, "PIPELINE");
        this.#pipelines.set(key, { wgsl, handle, layout, layoutId });
      }),
    );
    await this.#driver.throwFailure(call);
  }

  get(launch: Kernel): Pipeline {
    const key = pipelineKey(launch);
    const cached = this.#pipelines.get(key);
    if (cached) return cached;
    const { wgsl, descriptor, layout, layoutId } = this.#describe(launch, key);
    const what = `compiling ${fileOf(launch.kernel)}`;
    const forget = () => void this.#pipelines.delete(key);
    const handle = this.#driver.guard(
      what,
      ERRORS,
      () => this.#driver.handle.createComputePipeline(descriptor),
      forget,
    );
    const pipeline = { wgsl, handle, layout, layoutId };
    this.#pipelines.set(key, pipeline);
    return pipeline;
  }

  #describe(launch: Kernel, key: string) {
    const wgsl = assemble(launch.kernel, launch.uses);
    for (const feature of wgsl.features) {
      if (!this.#driver.handle.features.has(feature)) {
        throw new KernelError(
          "FEATURE",
          `${fileOf(launch.kernel)} needs the feature ${feature}, which this adapter lacks`,
        );
      }
    }
    for (const name of Object.keys(launch.overrides ?? {})) {
      if (!wgsl.overrides.has(name))
        throw new KernelError("OVERRIDE", `${fileOf(launch.kernel)} has no override ${name}`);
    }
    const what = `compiling ${fileOf(launch.kernel)}`;
    const module = this.#driver.guard(what, ERRORS, () =>
      this.#driver.handle.createShaderModule({ code: wgsl.code, label: wgsl.label }),
    );
    const forget = () => void this.#pipelines.delete(key);
    const { call } = this.#driver;
    call.check(this.#compileErrors(call, module, wgsl, forget));
    const signature = wgsl.bindings.map((b) => (b.writable ? "w" : "r")).join("") + (wgsl.params.length ? "p" : "");
    let entry = this.#layouts.get(signature);
    if (!entry) {
      const entries = [
        ...wgsl.bindings.map(({ binding, writable }): GPUBindGroupLayoutEntry => {
          const type = writable ? "storage" : "read-only-storage";
          return { binding, visibility: COMPUTE_STAGE, buffer: { type } };
        }),
        // Without a dynamic offset: setting one bind group that includes the params is fastest.
        ...(wgsl.params.length
          ? [{ binding: PARAMS_BINDING, visibility: COMPUTE_STAGE, buffer: { type: "uniform" } } as const]
          : []),
      ];
      const forget = () => void this.#layouts.delete(signature);
      const layout = this.#driver.guard(
        what,
        ERRORS,
        () => this.#driver.handle.createBindGroupLayout({ entries }),
        forget,
      );
      entry = { id: this.#nextLayout++, layout };
      this.#layouts.set(signature, entry);
    }
    const { layout } = entry;
    const descriptor: GPUComputePipelineDescriptor = {
      label: wgsl.label,
      layout: this.#driver.guard(what, ERRORS, () =>
        this.#driver.handle.createPipelineLayout({ bindGroupLayouts: [layout] }),
      ),
      compute: { module, entryPoint: "main", constants: launch.overrides ?? {} },
    };
    return { wgsl, descriptor, layout: entry.layout, layoutId: entry.id };
  }

  /** If a shader does not compile, calls `forget` and reports that error in place of those it causes. */
  async #compileErrors(call: Call, module: GPUShaderModule, wgsl: Wgsl, forget: () => void): Promise<void> {
    const info = await module.getCompilationInfo();
    const first = info.messages.find((message) => message.type === "error");
    if (!first) return;
    forget();
    call.failure = new KernelError(
      "SHADER_COMPILE",
      `${wgsl.locate(first.lineNum)}:${first.linePos}: ${first.message}`,
    );
  }
}

export function pipelineKey({ kernel, uses, overrides }: Kernel): string {
  let key = kernel;
  for (const name in uses) key += `|${name}=${uses[name]}`;
  for (const name in overrides) key += `|${name}:${overrides[name]}`;
  return key;
}
