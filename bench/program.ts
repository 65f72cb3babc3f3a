/** Starts a program of this repository in a separate process: with tsx, or directly if it has been compiled. */
const [ending, loader] = import.meta.url.endsWith(".ts") ? [".ts", ["--import", "tsx"]] : [".js", []];

/** Node's arguments before a program's path. */
export const NODE_ARGS: readonly string[] = loader;

/** A program's file, which is named without its ending. */
export const programFile = (stem: string): string => `${stem}${ending}`;
