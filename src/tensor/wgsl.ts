/**
 * Assembles a kernel from its parts and reads its interface (bindings, Params, overrides, features) from the text, so that
 * the shader is the only place where these are written. It parses the form that docs/kernels.md prescribes, not all of WGSL.
 */

import { SUBGROUP_MATRIX } from "./device/caps.ts";
import { KernelError, nearest } from "./errors.ts";
import { KERNELS } from "./kernels.gen.ts";
import { quote } from "./shown.ts";
import { lacks, readSlot } from "./slots.ts";

/** A storage binding of group 0. */
export interface Binding {
  readonly name: string;
  readonly binding: number;
  readonly writable: boolean;
}

/** A field of the Params struct: scalars only, so field i is at byte 4·i. */
export interface ParamField {
  readonly name: string;
  readonly type: "u32" | "i32" | "f32";
}

/** The binding of Params in group 0 of every kernel: after the eight storage buffers that WebGPU's default limits allow. */
export const PARAMS_BINDING = 8;

/** A kernel's whole text and its interface. */
export interface Wgsl {
  /** `layer_norm`, or `matmul_tile(weight_f16)` with its chosen library parts. */
  readonly label: string;
  readonly code: string;
  readonly bindings: readonly Binding[];
  readonly params: readonly ParamField[];
  readonly overrides: ReadonlySet<string>;
  readonly features: readonly GPUFeatureName[];
  /** Its slots and the parts that fill them: `{ weight: "weight_f16" }`. */
  readonly slots: Uses;
  /** Maps a line of `code` back to `kernels/FILE.wgsl:LINE`. */
  locate(line: number): string;
}

const isPart = (path: string) => /^lib\/|\/parts\//.test(path);
const stemOf = (path: string) => path.replace(/^.*\//, "");

/** Names of all kernels, or of all parts. */
export function stems(part: boolean): string[] {
  return Object.keys(KERNELS)
    .filter((path) => isPart(path) === part)
    .map(stemOf);
}

/** The path of a kernel or a part in kernels/, by its name; a likely path if there is none. */
function pathOf(stem: string, part: boolean): string {
  const found = Object.keys(KERNELS).find((path) => stemOf(path) === stem && isPart(path) === part);
  return found ?? (part ? `lib/${stem}` : stem);
}

const fileAt = (path: string) => `kernels/${path}.wgsl`;

/** A kernel's file, for messages: `kernels/rows/layer_norm.wgsl`. */
export function fileOf(kernel: string): string {
  return fileAt(pathOf(kernel, false));
}

/** The text of a kernel or part. */
function textOf(stem: string, part: boolean): string {
  const path = pathOf(stem, part);
  const text = KERNELS[path];
  if (text !== undefined) return text;
  const near = nearest(stem, stems(part));
  throw new KernelError("NO_KERNEL", `${fileAt(path)} does not exist`, { hint: near && `did you mean ${near}?` });
}

/** The parts that fill slots: `{ weight: "weight_f16" }`. */
export type Uses = Readonly<Record<string, string>>;

const ENABLE_FEATURES: Readonly<Record<string, GPUFeatureName>> = {
  f16: "shader-f16",
  subgroups: "subgroups",
  subgroup_size_control: "subgroup-size-control" as GPUFeatureName,
  chromium_experimental_subgroup_matrix: SUBGROUP_MATRIX,
};

/** `// @use PART`, or `// @use SLOT = PART`. */
const USE = /^\/\/ @use (\w+)(?: = (\w+))?$/gm;

/** The `// @use` lines of a text: a part by its name, or a slot with its default. */
function usesIn(text: string): { readonly name: string; readonly fallback: string | undefined }[] {
  return [...text.matchAll(USE)].map(([, name, fallback]) => ({ name: name!, fallback }));
}

/**
 * Assembles kernel `name`: its text followed by its parts, and its interface.
 *
 * A kernel is in the folder of its family; parts that only that family uses are in its parts/, others in lib/. A kernel uses
 * a part by a line `// @use math`; a line `// @use weight = weight_f32` names a slot with its default, which `uses` may fill
 * with another part that defines what the default states in its lines `// @slot weight: …` (see slots.ts). Parts follow the
 * kernel's own text, so the kernel's line numbers stay true. A part's `enable` directive, which WGSL requires before
 * anything else, is moved to the front of the first line.
 *
 * @throws KernelError NO_KERNEL, NO_SLOT; SLOT if a part lacks a definition that its slot requires; BINDINGS, PARAMS,
 *   FEATURE
 */
export function assemble(name: string, uses: Uses = {}): Wgsl {
  const files: { file: string; text: string }[] = [];
  const chosen: string[] = [];
  const slots = new Map<string, { part: string; fallback: string }>();
  const visit = (stem: string, part: boolean) => {
    const file = pathOf(stem, part);
    if (files.some((f) => f.file === file)) return;
    const text = textOf(stem, part);
    files.push({ file, text: text.endsWith("\n") ? text : text + "\n" });
    for (const { name: slot, fallback } of usesIn(text)) {
      const part = fallback === undefined ? slot : (uses[slot] ?? fallback);
      if (fallback !== undefined) {
        slots.set(slot, { part, fallback });
        if (part !== fallback) chosen.push(part);
      }
      visit(part, true);
    }
  };
  visit(name, false);
  for (const slot of Object.keys(uses)) {
    if (slots.has(slot)) continue;
    const near = nearest(slot, slots.keys());
    throw new KernelError("NO_SLOT", `${fileOf(name)} has no line "// @use ${slot} = …"`, {
      hint: near && `did you mean ${near}?`,
    });
  }
  for (const [slot, { part, fallback }] of slots) checkSlot(name, slot, part, fallback);
  const code = enablesFirst(files.map((f) => f.text));
  const label = chosen.length ? `${name}(${chosen.join(", ")})` : name;
  return {
    label,
    code,
    bindings: readBindings(name, code),
    params: readParams(name, code),
    overrides: new Set([...code.matchAll(/^override (\w+)/gm)].map(([, name]) => name!)),
    features: [...code.matchAll(/^enable ([\w, ]+);/gm)]
      .flatMap(([, words]) => words!.split(/,\s*/))
      .map((word) => {
        const feature = ENABLE_FEATURES[word];
        if (!feature) throw new KernelError("FEATURE", `${fileOf(name)}: unknown feature "${word}"`);
        return feature;
      }),
    slots: Object.fromEntries([...slots].map(([slot, { part }]) => [slot, part])),
    locate(line) {
      let first = 1;
      for (const { file, text } of files) {
        const lines = text.split("\n").length - 1;
        if (line < first + lines) return `kernels/${file}.wgsl:${line - first + 1}`;
        first += lines;
      }
      return fileOf(name);
    },
  };
}

/** Checks a part, with the parts that it uses, against the contract of its slot. */
function checkSlot(kernel: string, slot: string, part: string, fallback: string): void {
  const texts = new Map<string, string>();
  const visit = (stem: string) => {
    if (texts.has(stem)) return;
    const text = textOf(stem, true);
    texts.set(stem, text);
    for (const { name, fallback } of usesIn(text)) visit(fallback ?? name);
  };
  visit(part);
  const [stated, file] = [fileAt(pathOf(fallback, true)), fileAt(pathOf(part, true))];
  const where = `slot ${quote(slot)} of ${fileOf(kernel)}`;
  const asked = readSlot(textOf(fallback, true), slot);
  if (!asked) throw new KernelError("SLOT", `${stated}, the default of ${where}, has no line "// @slot ${slot}: …"`);
  const missing = lacks([...texts.values()].join("\n"), asked);
  if (missing.length > 0) {
    throw new KernelError("SLOT", `${file} does not fill ${where}: ${missing.join("; ")}`, {
      hint: `${stated} states its contract`,
    });
  }
}

function enablesFirst([kernel, ...parts]: readonly string[]): string {
  const features = new Set<string>();
  const rest = parts.map((text) =>
    text.replace(/^enable ([\w, ]+);/gm, (_, words: string) => {
      for (const word of words.split(/,\s*/)) features.add(word);
      return "";
    }),
  );
  const first = features.size > 0 ? `enable ${[...features].join(", ")}; ` : "";
  return first + [kernel, ...rest].join("");
}

function readBindings(name: string, code: string): Binding[] {
  const pattern = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)/g;
  const bindings = [...code.matchAll(pattern)].map(([, binding, access, name]) => ({
    name: name!,
    binding: Number(binding),
    writable: access === "read_write",
  }));
  bindings.sort((a, b) => a.binding - b.binding);
  if (bindings.some((b, i) => b.binding !== i)) {
    throw new KernelError("BINDINGS", `${fileOf(name)}: bindings of group 0 must be numbered 0, 1, 2, …`);
  }
  return bindings;
}

function readParams(name: string, code: string): ParamField[] {
  const body = /struct Params \{([^}]*)\}/.exec(code)?.[1];
  if (body === undefined) return [];
  const fields: ParamField[] = [];
  for (const line of body.replace(/\/\/.*$/gm, "").split(",")) {
    const field = line.trim();
    if (!field) continue;
    const [, key, type] = /^(\w+)\s*:\s*(u32|i32|f32)$/.exec(field) ?? [];
    if (!key) throw new KernelError("PARAMS", `${fileOf(name)}: Params may hold u32, i32 and f32 only: "${field}"`);
    fields.push({ name: key, type: type as ParamField["type"] });
  }
  return fields;
}
