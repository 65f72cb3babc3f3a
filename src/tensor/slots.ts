/**
 * The contract of a kernel's slot: what a part must define to fill it. The slot's default part states it in lines
 *
 *     // @slot element: Element, width_of(row: u32) -> u32
 *
 * A function is given with its types; parameter names are not compared. Anything else (a binding, constant, alias or struct)
 * is given by its name. A slot may have several such lines.
 */

/** A definition that a part has, or must have: `of` is a function's types, `(u32, u32) -> vec4<f32>`. */
interface Definition {
  readonly name: string;
  readonly of: string | undefined;
}

/** The definitions that a slot requires; undefined if `text`, that of its default part, does not state them. */
export function readSlot(text: string, slot: string): readonly Definition[] | undefined {
  const lines = [...text.matchAll(/^\/\/ @slot (\w+): (.+)$/gm)].filter(([, name]) => name === slot);
  if (lines.length === 0) return undefined;
  return lines.flatMap(([, , list]) => splitList(list!)).map(readDefinition);
}

/** The definitions at the left margin of `text`. */
function definitionsIn(text: string): readonly Definition[] {
  const functions = [...text.matchAll(/^fn (\w+)\(([^)]*)\)(?:\s*->\s*([^{]+))?\s*\{/gm)];
  const others = [...text.matchAll(/^(?:@[^\n]*\) )?(?:var(?:<[^>]*>)?|const|override|alias|struct) (\w+)/gm)];
  return [
    ...functions.map(([, name, parameters, result]) => ({ name: name!, of: typesOf(parameters!, result) })),
    ...others.map(([, name]) => ({ name: name!, of: undefined })),
  ];
}

/** The required definitions that `text` lacks, in words. */
export function lacks(text: string, asked: readonly Definition[]): string[] {
  const defined = new Map(definitionsIn(text).map((definition) => [definition.name, definition]));
  return asked.flatMap(({ name, of }) => {
    const found = defined.get(name);
    if (!found) return [`${name}${of ?? ""} is missing`];
    if (found.of !== of) return [`${name}${of ?? ""} is ${found.of === undefined ? "no function" : found.of}`];
    return [];
  });
}

/** Splits at commas outside of brackets. */
function splitList(list: string): string[] {
  const items: string[] = [];
  let item = "";
  let depth = 0;
  for (const [c] of list.matchAll(/->|./gs)) {
    if ("(<".includes(c)) depth++;
    if (")>".includes(c)) depth--;
    if (c === "," && depth === 0) {
      items.push(item);
      item = "";
    } else item += c;
  }
  return [...items, item].map((item) => item.trim()).filter(Boolean);
}

function readDefinition(item: string): Definition {
  const [, name, parameters, result] = /^(\w+)\((.*)\)(?:\s*->\s*(.+))?$/.exec(item) ?? [];
  return name === undefined ? { name: item, of: undefined } : { name, of: typesOf(parameters!, result) };
}

function typesOf(parameters: string, result: string | undefined): string {
  const types = splitList(parameters).map((parameter) => parameter.replace(/^\w+\s*:\s*/, "").replace(/\s+/g, " "));
  return `(${types.join(", ")})${result === undefined ? "" : ` -> ${result.trim()}`}`;
}
