/** `--shape M=32,K=4096,N=4096`: cases at one's own sizes, in place of those of the model. Pure. */
import { UsageError } from "../scripts/script.ts";
import type { Shapes } from "../src/tensor/cases/support/shapes.ts";
import { FEW_ROWS } from "../src/tensor/device/plan.ts";
import { nearest } from "../src/tensor/errors.ts";

/** The first word of the shapes' names. */
export const OWN = "own";

type List = Exclude<keyof Shapes, "layers" | "memory">;

interface Form {
  readonly sizes: readonly string[];
  /** Sizes that may be left out. */
  readonly more?: readonly string[];
  /** What may be said besides sizes: the values, the first of which is the default; [] if it is true or left out. */
  readonly options?: Readonly<Record<string, readonly string[]>>;
  readonly lists: (sizes: Readonly<Record<string, number>>) => readonly List[];
}

const WEIGHTS = ["f16", "f32", "bf16", "int8", "int4"] as const;

/** Each by the sizes that it needs. */
const FORMS: readonly Form[] = [
  {
    sizes: ["M", "K", "N"],
    options: { dtype: WEIGHTS, epilogue: ["none", "gelu", "residual", "gated"] },
    lists: ({ M }) => [M <= FEW_ROWS ? "matvec" : "matmul"],
  },
  {
    sizes: ["T", "S", "H", "d"],
    more: ["Hkv"],
    options: { cached: [], f16: [], biased: [], mask: ["", "padded", "none seen"] },
    lists: () => ["attention"],
  },
  {
    sizes: ["R", "D"],
    lists: () => ["layer_norm", "rms_norm", "softmax", "elementwise", "gated", "residual", "logits", "tokens"],
  },
  { sizes: ["T", "H", "d", "C"], lists: () => ["heads"] },
  { sizes: ["T", "V", "D"], options: { dtype: WEIGHTS }, lists: () => ["tables"] },
  {
    sizes: ["N", "K"],
    options: { from: ["f16", "f32", "bf16"], to: ["int8", "int4"] },
    lists: () => ["quantized"],
  },
  { sizes: ["image", "patch", "D"], lists: () => ["images"] },
];

/** The lines of `--help`. */
export const FORMS_HELP = FORMS.map(({ sizes, more = [], options = {} }) =>
  [...sizes, ...more.map((name) => `[${name}]`), ...Object.keys(options).map((name) => `[${name}]`)].join(","),
).join("  ");

/**
 * `base` with the shapes of these texts only.
 *
 * @throws UsageError for a text that no op understands
 */
export function ownShapes(texts: readonly string[], base: Shapes): Shapes {
  const lists = new Map<List, object[]>();
  for (const text of texts) {
    const { form, shape, sizes } = parse(text);
    for (const list of form.lists(sizes)) lists.set(list, [...(lists.get(list) ?? []), shape]);
  }
  const all = [...new Set([...Object.keys(base)])].filter((key) => key !== "layers" && key !== "memory") as List[];
  const own = Object.fromEntries(all.map((list) => [list, lists.get(list) ?? []]));
  return { ...base, ...own } as Shapes;
}

function parse(text: string) {
  const given = new Map<string, string>();
  for (const part of text.split(",")) {
    const [, name, value = "true"] = /^\s*(\w+)(?:=([\w ]+?))?\s*$/.exec(part) ?? [];
    if (name === undefined) throw refusal(text, `"${part}" is not NAME=SIZE`);
    if (given.has(name)) throw refusal(text, `${name} is given twice`);
    given.set(name, value);
  }
  const names = [...given.keys()];
  const known = FORMS.flatMap(({ sizes, more = [], options = {} }) => [...sizes, ...more, ...Object.keys(options)]);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const near = nearest(unknown, known);
    throw refusal(text, `no op has a size ${unknown}${near ? `; did you mean ${near}?` : ""}`);
  }
  const form = FORMS.find(({ sizes, more = [], options = {} }) => {
    const allowed = [...sizes, ...more, ...Object.keys(options)];
    return sizes.every((size) => given.has(size)) && names.every((name) => allowed.includes(name));
  });
  if (!form) throw refusal(text, "no op has these sizes");
  const sizes: Record<string, number> = {};
  for (const name of [...form.sizes, ...(form.more ?? [])]) {
    const value = given.get(name);
    if (value === undefined) continue;
    if (!/^[1-9]\d{0,7}$/.test(value)) throw refusal(text, `${name} must be a whole number from 1 to 99999999`);
    sizes[name] = Number(value);
  }
  const shape: Record<string, unknown> = { ...sizes };
  const words = [OWN];
  for (const [name, values] of Object.entries(form.options ?? {})) {
    const value = given.get(name);
    if (
      values.length === 0 ? value !== undefined && value !== "true" : value !== undefined && !values.includes(value)
    ) {
      throw refusal(
        text,
        values.length ? `${name} is one of ${values.filter(Boolean).join(", ")}` : `${name} takes no value`,
      );
    }
    if (values.length === 0) shape[name] = value === "true";
    else if (value ?? values[0]) shape[name] = value ?? values[0];
    // The names of these cases tell attention's options as no size does.
    if (form.sizes.includes("S") && value !== undefined) words.push(values.length ? value : name);
  }
  return { form, sizes, shape: { name: words.join(" "), ...shape } };
}

function refusal(text: string, why: string): UsageError {
  return new UsageError(`--shape ${JSON.stringify(text)}: ${why}. Sizes that go together: ${FORMS_HELP}`);
}
