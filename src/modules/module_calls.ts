/**
 * Which module each launch belongs to. Methods of the modules of a model are wrapped while something runs, as PyTorch's
 * forward hooks do it, and only then: models are written without, and pay nothing. Nothing else changes: unlike observers
 * (observer.ts), which take fused launches apart, this sees what runs.
 */

import type { Device } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** One call of a method, on the host, which records launches; times are in milliseconds of `performance.now()`. */
export interface ModuleCall {
  readonly path: string;
  readonly start: number;
  readonly ms: number;
}

/**
 * Runs `fn` while `device.site` is the path of the innermost module whose method is running.
 *
 * @param onCall is told of each call when it ends
 */
export async function withModuleSites<T>(
  model: Module,
  device: Device,
  onCall: (call: ModuleCall) => void,
  fn: () => T | Promise<T>,
): Promise<T> {
  const modules = modulesOf(model);
  for (const module of modules) {
    for (const [name, method] of methodsOf(module)) {
      const watched = (...given: unknown[]) => {
        const before = device.site;
        if (before === module.path) return method.apply(module, given);
        device.site = module.path;
        const start = performance.now();
        try {
          return method.apply(module, given);
        } finally {
          device.site = before;
          onCall({ path: module.path, start, ms: performance.now() - start });
        }
      };
      Object.defineProperty(module, name, { value: watched, configurable: true });
    }
  }
  try {
    return await fn();
  } finally {
    for (const module of modules) for (const [name] of methodsOf(module)) Reflect.deleteProperty(module, name);
  }
}

/** A module and all below it, in arrays and plain objects too, each once. */
export function modulesOf(model: Module): readonly Module[] {
  const found = new Set<Module>();
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    if (value instanceof Module) {
      if (found.has(value)) return;
      found.add(value);
    } else if (!Array.isArray(value) && Object.getPrototypeOf(value) !== Object.prototype) return;
    for (const below of Object.values(value)) visit(below);
  };
  visit(model);
  return [...found];
}

type Method = (...given: unknown[]) => unknown;

/** The methods of a module's own class and of those it extends, but those of `Module` itself. */
function methodsOf(module: Module): Map<string, Method> {
  const methods = new Map<string, Method>();
  for (
    let prototype = Object.getPrototypeOf(module);
    prototype !== Module.prototype;
    prototype = Object.getPrototypeOf(prototype)
  ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (name !== "constructor" && typeof value === "function" && !methods.has(name)) methods.set(name, value);
    }
  }
  return methods;
}
