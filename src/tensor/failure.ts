/** Errors on their way from one thread to another: they keep class, code, message and hint. */
import {
  ConfigError,
  DeviceError,
  DTypeError,
  EngineError,
  InputError,
  KernelError,
  NumericError,
  ShapeError,
  WeightError,
} from "./errors.ts";

/** An error, posted. */
export interface Failure {
  /** The class: `WeightError`, `InputError`, …, or one of the language's. */
  readonly name: string;
  /** Of an error of this library. */
  readonly code?: string | undefined;
  readonly message: string;
  readonly hint?: string | undefined;
  /** Of a NumericError. */
  readonly module?: string | undefined;
  /** It is the reason of the call's signal, which the page has. */
  readonly aborted?: boolean | undefined;
}

/** @param signal of the call that has failed */
export function failureOf(error: unknown, signal?: AbortSignal): Failure {
  if (signal?.aborted && error === signal.reason) return { name: "AbortError", message: "aborted", aborted: true };
  if (error instanceof EngineError) {
    const { name, code, hint } = error;
    const message = hint === undefined ? error.message : error.message.slice(0, -`\n    hint: ${hint}`.length);
    const module = error instanceof NumericError ? error.module : undefined;
    return { name, code, message, hint, module };
  }
  // Not by instanceof: a DOMException is an error by its name alone.
  const { name, message } = Object(error) as Partial<Error>;
  return {
    name: typeof name === "string" ? name : "Error",
    message: typeof message === "string" ? message : String(error),
  };
}

const CLASSES = { ConfigError, DeviceError, EngineError, InputError, KernelError, WeightError } as const;

export function errorOf({ name, code, message, hint, module }: Failure): Error {
  if (name === "ShapeError") return new ShapeError(message, hint);
  if (name === "DTypeError") return new DTypeError(message, hint);
  if (name === "NumericError") return new NumericError(message, { hint, module });
  if (code !== undefined) return new (CLASSES[name as keyof typeof CLASSES] ?? EngineError)(code, message, { hint });
  return Object.assign(new Error(message), { name });
}
