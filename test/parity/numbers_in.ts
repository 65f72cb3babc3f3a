/** Reads all f32 tensors of an output object. */
import { Tensor } from "../../src/tensor/tensor.ts";

export interface Numbers {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Every f32 inside an output class by its dotted name, layers and steps by number. */
export async function numbersIn(
  value: unknown,
  name: string,
  found = new Map<string, Numbers>(),
): Promise<Map<string, Numbers>> {
  if (value instanceof Tensor) found.set(name, { shape: value.shape, data: (await value.read()) as Float32Array });
  else if (value !== null && typeof value === "object") {
    if ("data" in value && "shape" in value) found.set(name, value as Numbers);
    else for (const [key, inner] of Object.entries(value)) await numbersIn(inner, `${name}.${key}`, found);
  }
  return found;
}
