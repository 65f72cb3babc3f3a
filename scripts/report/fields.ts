/** Checks of a JSON object's fields. Pure. */
import { shown } from "../../src/tensor/shown.ts";

/** What a value must be, in words, and whether it is. */
export type Check = readonly [what: string, holds: (value: unknown) => boolean];

export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

export const text: Check = ["a string", (value) => typeof value === "string"];
export const flag: Check = ["true or false", (value) => typeof value === "boolean"];
export const number: Check = ["a number", (value) => typeof value === "number" && Number.isFinite(value)];
export const count: Check = ["a number from 0", (value) => number[1](value) && (value as number) >= 0];
export const orNull = ([what, holds]: Check): Check => [`${what} or null`, (value) => value === null || holds(value)];
export const optional = ([what, holds]: Check): Check => [what, (value) => value === undefined || holds(value)];
export const oneOf = (...known: readonly string[]): Check => [
  known.map((each) => `"${each}"`).join(" or "),
  (value) => known.includes(value as string),
];
export const listOf = ([what, holds]: Check): Check => [
  `a list, each ${what}`,
  (value) => Array.isArray(value) && value.every(holds),
];
export const pair = ([what, holds]: Check): Check => [
  `two, each ${what}`,
  (value) => Array.isArray(value) && value.length === 2 && value.every(holds),
];
export const object = (fields: Readonly<Record<string, Check>>): Check => [
  `an object with ${Object.keys(fields).join(", ")}`,
  (value) => isRecord(value) && Object.entries(fields).every(([name, [, holds]]) => holds(value[name])),
];

/** @throws Error `where`, the field, what it must be and what it is */
export function checkFields(where: string, value: unknown, fields: Readonly<Record<string, Check>>): void {
  if (!isRecord(value)) throw new Error(`${where}: must be an object, got ${shown(value)}`);
  for (const [name, [what, holds]] of Object.entries(fields)) {
    if (holds(value[name])) continue;
    const got = value[name] === undefined ? "there is none" : `got ${shown(value[name])}`;
    throw new Error(`${where}: ${name} must be ${what}, ${got}`);
  }
}
