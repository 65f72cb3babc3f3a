/**
 * The header of an AVIF: its size, and the same file without orientation, which Pillow does not apply.
 *
 * Sources: ISO/IEC 14496-12 (boxes), 23008-12 (`meta`, `iprp`, `ispe`, `irot`, `imir`), AV1 Image File Format.
 */
import { InputError } from "../../tensor/errors.ts";

interface Box {
  readonly type: string;
  /** Of its type, in bytes. */
  readonly at: number;
  /** Of what is in it. */
  readonly start: number;
  readonly end: number;
}

/** The boxes in a part of the file. Each step advances, and a damaged box ends the list. */
function boxes(bytes: Uint8Array, start: number, end: number): Box[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: Box[] = [];
  for (let at = start; at + 8 <= end; ) {
    let size = view.getUint32(at);
    let header = 8;
    if (size === 1 && at + 16 <= end) {
      size = Number(view.getBigUint64(at + 8));
      header = 16;
    } else if (size === 0) size = end - at; // up to the end
    if (size < header || at + size > end) break;
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    found.push({ type, at: at + 4, start: at + header, end: at + size });
    at += size;
  }
  return found;
}

/** The properties of the images in the file: size, orientation and others. */
function properties(bytes: Uint8Array): Box[] {
  const meta = boxes(bytes, 0, bytes.length).find(({ type }) => type === "meta");
  const iprp = meta && boxes(bytes, meta.start + 4, meta.end).find(({ type }) => type === "iprp");
  const ipco = iprp && boxes(bytes, iprp.start, iprp.end).find(({ type }) => type === "ipco");
  return ipco ? boxes(bytes, ipco.start, ipco.end) : [];
}

/**
 * The size of the largest image in the file, as stored: the others are its thumbnails, tiles and alpha.
 *
 * @throws InputError IMAGE_TRUNCATED, IMAGE_CORRUPT
 */
export function readAvifSize(bytes: Uint8Array, name: string): { width: number; height: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sizes = properties(bytes)
    .filter(({ type, start, end }) => type === "ispe" && end >= start + 12)
    .map(({ start }) => ({ width: view.getUint32(start + 4), height: view.getUint32(start + 8) }));
  if (sizes.length === 0) {
    if (avifEndsEarly(bytes)) throw new InputError("IMAGE_TRUNCATED", `${name}: the file ends inside its header`);
    throw new InputError("IMAGE_CORRUPT", `${name}: the AVIF has no image size`);
  }
  return sizes.reduce((most, size) => (size.width * size.height > most.width * most.height ? size : most));
}

/**
 * The same AVIF marked as a still image, which the first frame of an animated one is, and with rotations and mirroring
 * replaced by a rotation of 0 degrees, unless `upright`.
 */
export function stillAvif(bytes: Uint8Array, upright: boolean): Uint8Array {
  const stored = bytes.slice();
  stored.set(new TextEncoder().encode("avif"), 8);
  if (upright) return stored;
  for (const { type, at, start, end } of properties(bytes)) {
    if ((type !== "irot" && type !== "imir") || end !== start + 1) continue;
    stored.set(new TextEncoder().encode("irot"), at);
    stored[start] = 0;
  }
  return stored;
}

/** Whether an AVIF that could not be decoded is truncated. */
export function avifEndsEarly(bytes: Uint8Array): boolean {
  const top = boxes(bytes, 0, bytes.length);
  return (top.at(-1)?.end ?? 0) < bytes.length || !top.some(({ type }) => type === "mdat");
}
