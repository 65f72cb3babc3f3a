/** Sheets of maps as files, PNG or SVG. */
import { extname } from "node:path";
import sharp from "sharp";
import { InputError } from "../../../tensor/errors.ts";
import { pngOf, warnWithoutFont } from "../png.node.ts";
import { writeOut } from "../requests/out_file.node.ts";
import type { Run } from "../session.node.ts";
import { drawSheet, type Sheet, type SheetContent, sheetSvg } from "./attention_sheet.ts";

/** A sheet, and what is put into the file's name before its extension. */
export interface NamedSheet {
  readonly name: string;
  readonly content: SheetContent;
}

/** @throws InputError OUT for a name that does not say the format */
export function checkSheetName(out: string): void {
  if (![".png", ".svg"].includes(extname(out).toLowerCase())) {
    throw new InputError("OUT", `--out ${out}: the name must end in .png or .svg`);
  }
}

/** Writes sheets. @returns the names of their files */
export async function writeSheets(out: string, sheets: readonly NamedSheet[], { terminal }: Run): Promise<string[]> {
  if (extname(out).toLowerCase() === ".png") await warnWithoutFont(terminal, "--out sheet.svg");
  const files: string[] = [];
  for (const { name, content } of sheets) {
    const file = name === "" ? out : out.slice(0, -extname(out).length) + name + extname(out);
    await writeSheet(file, drawSheet(content));
    files.push(file);
  }
  return files;
}

async function writeSheet(file: string, sheet: Sheet): Promise<void> {
  const { width, height, data } = sheet.canvas;
  const canvas = sharp(data, { raw: { width, height, channels: 3 } });
  const svg = extname(file).toLowerCase() === ".svg";
  const content = svg
    ? Buffer.from(sheetSvg(sheet, `data:image/png;base64,${(await canvas.png().toBuffer()).toString("base64")}`))
    : await pngOf(sheetSvg(sheet), canvas);
  await writeOut("--out", file, content);
}
