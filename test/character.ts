import fc from "fast-check";

const SURROGATES = { from: 0xd800, count: 0x800 };

/**
 * Any character but a lone surrogate: the unit "binary" of fast-check's strings, for whose table of all characters a process
 * takes a second.
 */
export const character = fc.integer({ min: 0, max: 0x10ffff - SURROGATES.count }).map(
  (i) => String.fromCodePoint(i < SURROGATES.from ? i : i + SURROGATES.count),
  // So that strings that mean something to JavaScript, "__proto__" say, are among those drawn.
  (text) => {
    if (typeof text !== "string" || [...text].length !== 1) throw new Error("no character");
    const i = text.codePointAt(0)!;
    return i < SURROGATES.from ? i : i - SURROGATES.count;
  },
);
