/** Shared by set-up: paths, messages, and running commands. */

import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Not the installed package, which has no lock. */
export const IN_REPOSITORY = fs.existsSync(join(ROOT, "package-lock.json"));

/** An expected failure: shown as its message, without a stack. */
export class SetupError extends Error {}

/** Ctrl-C or SIGTERM while a child was running. */
export class Interrupted extends Error {}

export const say = (text) => process.stderr.write(`setup: ${text}\n`);

export const readJson = (path) => JSON.parse(fs.readFileSync(path, "utf8"));

/** The child that Ctrl-C must wait for. */
let running;
let interrupted;

/**
 * Runs a command to its end: `{ code, signal, output, stdout }`, `output` being stdout and stderr together. With `shield` a
 * Ctrl-C does not reach it, because an interrupted apt-get leaves a broken system.
 */
export function run(command, args, { cwd = ROOT, env = process.env, shield = false, timeout = 0 } = {}) {
  return new Promise((resolve, reject) => {
    let output = "";
    let stdout = "";
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], detached: shield, timeout });
    running = { child, shield, command };
    child.stdout.on("data", (data) => {
      stdout += data;
      output += data;
    });
    child.stderr.on("data", (data) => {
      output += data;
    });
    child.on("error", (error) => {
      output += error.message;
      finish(127, null);
    });
    child.on("close", finish);
    function finish(code, signal) {
      running = undefined;
      if (interrupted) reject(new Interrupted());
      else resolve({ code, signal, output, stdout });
    }
  });
}

/** npm by its own path when it has started this, as it need not be on PATH. */
export function runNpm(args) {
  const npm = process.env.npm_execpath;
  if (npm?.endsWith("npm-cli.js")) return run(process.execPath, [npm, ...args]);
  if (process.platform === "win32") return run("cmd.exe", ["/d", "/s", "/c", `npm ${args.join(" ")}`]);
  return run("npm", args);
}

export function onSignal(signal) {
  interrupted = signal;
  process.exitCode = signal === "SIGINT" ? 130 : 143;
  if (!running) process.exit();
  if (running.shield) say(`stopping as soon as ${running.command} has finished`);
  else running.child.kill(signal);
}
