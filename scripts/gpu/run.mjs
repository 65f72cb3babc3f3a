/**
 * Runs the steps in a bundle of `npm run gpu:bundle`, each in its own process with its own time limit. A step that runs out
 * of time is ended and its results so far are kept; a failed step does not stop the others.
 */
import { spawn, spawnSync } from "node:child_process";
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(HERE, "results");
const APP = join(HERE, "app");
const PYTHON = process.env.PYTHON || "python3";

const HELP = `usage: ./run.sh [STEP …]

Writes results/: a .json or .jsonl and a .log of each step, and run.json. At most 8 minutes; a step alone: ./run.sh doctor

  doctor   every kernel against f64, a model's answers against PyTorch's         doctor.json
  bench    this machine's limits, then every kernel at the shapes of Vicuna-7B   bench.jsonl
  peers    the same operations by other WebGPU engines                           peers.jsonl
  torch    the same products and attentions by PyTorch, if $PYTHON has it        torch.json

Environment: PYTHON (python3) is the Python to look for torch in.
`;

const result = (name) => join(RESULTS, name);
const program = (path, ...args) => [process.execPath, join(APP, path), ...args];

/** `seconds` add up to less than 8 minutes. Exit code 0: right; 1 of doctor and bench: something is wrong. */
const STEPS = {
  doctor: { seconds: 170, command: program("src/instructblip/cli/main.js", "doctor", "--json", result("doctor.json")) },
  bench: { seconds: 140, command: program("bench/main.js", "--rounds", "3", "--json", result("bench.jsonl")) },
  peers: {
    seconds: 100,
    command: program(
      "bench/peers/main.js",
      "--engines",
      "ours,jax,tfjs",
      "--rounds",
      "3",
      "--json",
      result("peers.jsonl"),
    ),
  },
  torch: { seconds: 45, command: [PYTHON, join(HERE, "torch_times.py"), result("torch.json")], needs: whyNoTorch },
};

/** With the bundled Vulkan loader, if the system has none. */
const ENV = { ...process.env };
try {
  process.dlopen({ exports: {} }, "libvulkan.so.1");
} catch (error) {
  // Any other complaint is that the loader is no add-on of Node's.
  if (/cannot open shared object/.test(error.message)) {
    ENV.LD_LIBRARY_PATH = [process.env.LD_LIBRARY_PATH, join(HERE, "lib")].filter(Boolean).join(":");
  }
}

/** Why PyTorch cannot be measured; undefined if it can. */
function whyNoTorch() {
  const { status, error } = spawnSync(PYTHON, ["-c", "import torch"], { stdio: "ignore", timeout: 60_000 });
  if (error) return `there is no ${PYTHON}`;
  return status === 0 ? undefined : `${PYTHON} has no torch`;
}

/** Runs a step; stdout and stderr go to its log, and stdout here too. */
function runStep(name, { seconds, command: [file, ...args], needs }) {
  const why = needs?.();
  if (why !== undefined) return { step: name, skipped: why };
  return new Promise((resolve) => {
    const started = performance.now();
    const log = createWriteStream(result(`${name}.log`));
    const child = spawn(file, args, { cwd: HERE, env: ENV, stdio: ["ignore", "pipe", "pipe"] });
    let timedOut = false;
    const ends = [
      setTimeout(() => {
        timedOut = true;
        child.kill("SIGTERM");
      }, seconds * 1000),
      setTimeout(() => child.kill("SIGKILL"), seconds * 1000 + 5000),
    ];
    child.stdout.on("data", (data) => process.stdout.write(data));
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => log.write(data));
    const done = (outcome) => {
      for (const end of ends) clearTimeout(end);
      log.end();
      resolve({ step: name, seconds: Math.round((performance.now() - started) / 100) / 10, ...outcome });
    };
    child.on("error", (error) => done({ exit: null, error: error.message }));
    child.on("close", (exit, signal) => done({ exit, ...(signal && { signal }), ...(timedOut && { timedOut }) }));
  });
}

const said = ({ skipped, exit, timedOut, error, seconds }) => {
  if (skipped) return `skipped: ${skipped}`;
  if (error) return `did not start: ${error}`;
  return `${timedOut ? "ended, out of time" : `exit code ${exit}`} after ${seconds} s`;
};

const args = process.argv.slice(2);
const unknown = args.filter((name) => !Object.hasOwn(STEPS, name) && !["-h", "--help"].includes(name));
if (args.includes("--help") || args.includes("-h")) process.stdout.write(HELP);
else if (unknown.length > 0) {
  process.stderr.write(`run: there is no step ${unknown.join(", ")}\n\n${HELP}`);
  process.exitCode = 2;
} else {
  mkdirSync(RESULTS, { recursive: true });
  const bundle = JSON.parse(readFileSync(join(HERE, "bundle.json"), "utf8"));
  const steps = [];
  for (const name of args.length > 0 ? args : Object.keys(STEPS)) {
    process.stdout.write(`\n== ${name}: at most ${STEPS[name].seconds} s\n`);
    const outcome = await runStep(name, STEPS[name]);
    steps.push(outcome);
    process.stdout.write(`== ${name}: ${said(outcome)}\n`);
    writeFileSync(
      result("run.json"),
      `${JSON.stringify({ ...bundle, date: new Date().toISOString(), steps }, null, 2)}\n`,
    );
  }
  process.stdout.write(`\n${RESULTS} is what to send\n`);
  process.exitCode = steps.some(({ skipped, exit }) => skipped === undefined && exit !== 0) ? 1 : 0;
}
