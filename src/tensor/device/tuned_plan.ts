/**
 * The file that `npm run bench -- --tune` writes and INSTRUCTBLIP_PLAN=tuned reads: for every adapter it was run on, the
 * fastest variant for each op and class of sizes. Pure: text to choices and back. tuned_plan.node.ts finds the file, plan.ts
 * uses the choices.
 */
import { InputError } from "../errors.ts";
import { type Json, parseStrictJson } from "../files/strict_json.ts";
import { quote } from "../shown.ts";
import { type Op, sizeClasses, type TunedPlan, VARIANTS } from "./plan.ts";

/** The choices for an adapter. */
export interface TunedAdapter {
  /** ISO 8601. */
  readonly date: string;
  readonly choices: TunedPlan;
}

/** By `adapterKey`. */
export type TunedFile = ReadonlyMap<string, TunedAdapter>;

const VERSION = 1;
const LIMITS = { members: 1000, values: 100_000 };

/**
 * Adapter, driver and the version of npm `webgpu` (Dawn), in one line: if any of them changes, the fastest variant may, too.
 */
export function adapterKey(
  {
    vendor,
    architecture,
    device,
    description,
  }: Pick<GPUAdapterInfo, "vendor" | "architecture" | "device" | "description">,
  webgpu: string,
): string {
  return [...[vendor, architecture, device, description].filter(Boolean), `webgpu ${webgpu}`].join(" | ");
}

/** Reads a file's text. @throws InputError PLAN_FILE with the file's name and the entry that is wrong */
export function parseTunedFile(name: string, text: string): TunedFile {
  const fail = (message: string): never => {
    const hint = "delete it; `npm run bench -- --tune`, in the repository, writes it anew";
    throw new InputError("PLAN_FILE", `${name}: ${message}`, { hint });
  };
  const membersOf = (value: Json | undefined, where: string) =>
    value instanceof Map ? value : fail(`${where} must be an object`);
  const stringOf = (value: Json | undefined, where: string) =>
    typeof value === "string" ? value : fail(`${where} must be a string`);

  const file = membersOf(
    parseStrictJson(text, LIMITS, (_code, message) => fail(message)),
    "the file",
  );
  if (file.get("version") !== VERSION) fail(`version must be ${VERSION}`);
  const adapters = new Map<string, TunedAdapter>();
  for (const [key, value] of membersOf(file.get("adapters"), "adapters")) {
    const adapter = membersOf(value, `adapter ${quote(key)}`);
    const choices: Record<string, Record<string, string>> = {};
    for (const [op, classes] of membersOf(adapter.get("choices"), `choices of ${quote(key)}`)) {
      if (!Object.hasOwn(VARIANTS, op)) fail(`there is no op ${quote(op)}`);
      choices[op] = {};
      for (const [sizes, variant] of membersOf(classes, `choices of ${op}`)) {
        if (!sizeClasses(op as Op).includes(sizes)) fail(`${op} has no sizes ${quote(sizes)}`);
        const chosen = stringOf(variant, `${op} ${sizes}`);
        if (!(VARIANTS[op as Op] as readonly string[]).includes(chosen)) fail(`${op} has no variant ${quote(chosen)}`);
        choices[op][sizes] = chosen;
      }
    }
    adapters.set(key, { date: stringOf(adapter.get("date"), `date of ${quote(key)}`), choices });
  }
  return adapters;
}

/** The text of a file. */
export function formatTunedFile(file: TunedFile): string {
  return `${JSON.stringify({ version: VERSION, adapters: Object.fromEntries(file) }, null, 2)}\n`;
}

/**
 * `file` with `fresh` choices for an adapter; older choices stay where there are no fresh ones, and so do those of other
 * adapters.
 */
export function withTuned(file: TunedFile, key: string, { date, choices }: TunedAdapter): TunedFile {
  const merged: Record<string, Readonly<Record<string, string>>> = { ...file.get(key)?.choices };
  for (const [op, classes] of Object.entries(choices)) merged[op] = { ...merged[op], ...classes };
  return new Map([...file, [key, { date, choices: merged as TunedPlan }]]);
}
