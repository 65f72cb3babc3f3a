/** Every environment variable that the engine reads. Options given in code override these. */
import { InputError } from "./errors.ts";
import { quote } from "./shown.ts";

export const ENV = {
  INSTRUCTBLIP_MEMORY_BUDGET: "GPU memory budget of the engine: bytes, or 512MiB, 12GiB (default: unlimited)",
  INSTRUCTBLIP_MAX_BINDING: "largest binding: bytes, or 1MiB; larger weights are split (default: the adapter's limit)",
  INSTRUCTBLIP_DEFAULT_LIMITS: "1 requests WebGPU's default limits instead of the adapter's",
  INSTRUCTBLIP_GPU_TIMEOUT: "timeout of one wait for the GPU, in seconds (default: 600, on a software adapter 3600)",
  INSTRUCTBLIP_PLAN:
    "kernel variants: `tuned` or @FILE, measured by the repository's `npm run bench -- --tune`, or linear=tile,attention=composed",
  INSTRUCTBLIP_DAWN_TOGGLES:
    "Dawn toggles to enable in Node, such as allow_unsafe_apis, for Apple's matrix instructions",
} as const;

/** The value of a variable, or undefined where there is no environment (a browser) or it is empty. */
export function env(name: keyof typeof ENV): string | undefined {
  const value = globalThis.process?.env?.[name];
  return value === "" ? undefined : value;
}

/** `1048576`, `1MiB`, `1.5 GiB` -> bytes. */
export function parseBytes(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?$/i.exec(text.trim());
  if (!match) throw new InputError("ENV", `${name}: ${quote(text)} is not a size; write 1048576, 1MiB or 12GiB`);
  const power = ["b", "kib", "mib", "gib", "tib"].indexOf((match[2] ?? "B").toLowerCase());
  return Math.floor(Number(match[1]) * 1024 ** power);
}

/** A variable that is a number of seconds above 0. @throws InputError ENV */
export function envSeconds(name: keyof typeof ENV): number | undefined {
  const text = env(name);
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (seconds > 0) return seconds;
  throw new InputError("ENV", `${name}: "${text.slice(0, 40)}" is not a number of seconds above 0`);
}
