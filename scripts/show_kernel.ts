/** `npm run kernels -- show NAME [slot=part …] [OVERRIDE=VALUE …]`: a kernel's whole text, as it is compiled. */
import { EngineError, InputError, nearest } from "../src/tensor/errors.ts";
import { KERNELS } from "../src/tensor/kernels.gen.ts";
import { quote } from "../src/tensor/shown.ts";
import { assemble, stems, type Wgsl } from "../src/tensor/wgsl.ts";

/** A kernel's name on a command line: `softmax`, or its path as a shell completes it. */
const nameOf = (text: string) => text.replace(/^.*\//, "").replace(/\.wgsl$/, "");

/**
 * @param args NAME, then assignments: of overrides, which are upper-case, and of slots
 * @param texts of kernels/ on disk, even if kernels.gen.ts is stale
 * @returns WGSL, a comment before the lines of each file
 * @throws EngineError for an unknown name, with the nearest one
 */
export function show(args: readonly string[], texts: Readonly<Record<string, string>>): string {
  const kernels = KERNELS as Record<string, string>;
  for (const path of Object.keys(kernels)) delete kernels[path];
  Object.assign(kernels, texts);

  const [name, ...assignments] = args;
  if (name === undefined) throw new InputError("KERNEL", `show which kernel? ${stems(false).join(", ")}`);
  const { slots, overrides: constants } = assemble(nameOf(name));
  const uses: Record<string, string> = {};
  const overrides: Record<string, string> = {};
  for (const assignment of assignments) {
    const [, key, value] = /^(\w+)=(.+)$/.exec(assignment) ?? [];
    if (key === undefined)
      throw new InputError("KERNEL", `${quote(assignment)} is neither slot=part nor OVERRIDE=VALUE`);
    if (/^[A-Z]/.test(key)) overrides[key] = value;
    else if (key in slots) uses[key] = nameOf(value);
    else throw unknown(`${nameOf(name)} has no slot ${key}`, key, [...Object.keys(slots), ...constants]);
  }
  const wgsl = assemble(nameOf(name), uses);
  for (const [key, value] of Object.entries(overrides)) {
    if (!wgsl.overrides.has(key)) throw unknown(`${nameOf(name)} has no override ${key}`, key, wgsl.overrides);
    if (!Number.isFinite(Number(value))) throw new InputError("KERNEL", `${key} must be a number, got ${quote(value)}`);
  }
  return [...summary(wgsl), ...marked(wgsl, overrides)].join("\n");
}

function unknown(message: string, key: string, known: Iterable<string>): InputError {
  const names = [...known];
  const near = names.find((name) => name.toLowerCase() === key.toLowerCase()) ?? nearest(key, names);
  return new InputError("KERNEL", message, {
    hint: near ? `did you mean ${near}?` : `known: ${names.join(", ") || "none"}`,
  });
}

/** The slots and overrides, as comments. */
function summary({ label, slots, overrides }: Wgsl): string[] {
  const parts = stems(true);
  return [
    `// ${label}`,
    ...Object.entries(slots).map(([slot, part]) => {
      const others = parts.filter((other) => other.startsWith(`${slot}_`) && other !== part);
      return `// slot ${slot} = ${part}${others.length ? `; or ${others.join(", ")}` : ""}`;
    }),
    ...(overrides.size > 0 ? [`// overrides ${[...overrides].join(", ")}`] : []),
    "",
  ];
}

/** The lines of the text, overrides set, with a mark where a file begins. */
function marked({ code, locate }: Wgsl, overrides: Readonly<Record<string, string>>): string[] {
  let last = "";
  return code.split("\n").flatMap((line, i, { length }) => {
    if (i === length - 1) return [line];
    const file = locate(i + 1).replace(/:\d+$/, "");
    const mark = file === last ? [] : [...(i > 0 ? [""] : []), `// ==== ${file}`];
    last = file;
    const [, key, type = ""] = /^override (\w+)(: \w+)?/.exec(line) ?? [];
    const isSet = key !== undefined && key in overrides;
    return [...mark, isSet ? line.replace(/^[^;]*/, `override ${key}${type} = ${Number(overrides[key])}`) : line];
  });
}

/** An error's message; the error itself if it is not an EngineError. */
export function messageOf(error: unknown): string {
  if (error instanceof EngineError) return error.message;
  throw error;
}
