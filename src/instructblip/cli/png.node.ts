/** PNG files of drawings that are SVG. */
import sharp, { type Sharp } from "sharp";
import { say, type Terminal } from "./terminal.node.ts";

/** Draws an SVG over an image of its size, or by itself in twice its size. */
export async function pngOf(svg: string, under?: Sharp): Promise<Uint8Array> {
  const drawing = Buffer.from(svg);
  return (under ? under.composite([{ input: drawing }]) : sharp(drawing, { density: 144 })).png().toBuffer();
}

/** Warns where text cannot be drawn: without fonts all characters are the same box. @param instead what has the text */
export async function warnWithoutFont(terminal: Terminal, instead: string): Promise<void> {
  const widthOf = async (text: string) => (await sharp({ text: { text, font: "sans-serif 40" } }).metadata()).width;
  const [narrow, wide] = await Promise.all([widthOf("iiii"), widthOf("WWWW")]);
  if (narrow !== wide) return;
  say(terminal, `warning: there is no font on this machine, so the labels cannot be read; ${instead} has them`);
}
