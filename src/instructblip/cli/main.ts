#!/usr/bin/env node
/**
 * The command line `instructblip`: connects the process (arguments, signals, stdout, exit code) to cli/program.node.ts. Run
 * in the repository by `npm run -s instructblip -- …`, installed by `npx instructblip …`.
 */
import { describeError, EXIT, Interrupted } from "./format.ts";
import { runCommandLine } from "./program.node.ts";
import { processTerminal, say, sayStack } from "./terminal.node.ts";

const interruption = new AbortController();
const terminal = processTerminal((reason) => interruption.abort(reason));

for (const [signal, exitCode] of [
  ["SIGINT", EXIT.sigint],
  ["SIGTERM", EXIT.sigterm],
] as const) {
  process.on(signal, () => {
    if (interruption.signal.aborted) process.exit(exitCode);
    if (terminal.errIsTerminal) say(terminal, "\nstopping (once more to stop at once)");
    interruption.abort(new Interrupted(exitCode));
  });
}

// An uncaught error is an internal one, and is reported as such.
process.on("uncaughtException", (error) => {
  const { message, exitCode } = describeError(error);
  if (message) say(terminal, message);
  sayStack(terminal, error);
  process.exit(exitCode);
});

// Explicit exit: a driver's threads, or a lost device, must not keep the process alive.
process.exit(await runCommandLine(process.argv.slice(2), { terminal, signal: interruption.signal }));
