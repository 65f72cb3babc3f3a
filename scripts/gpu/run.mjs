/**
 * Runs the steps in a bundle of `npm run gpu:bundle`, each in its own process with its own time limit. A step that runs out
 * of time is ended, and its results so far are kept and shown; a failed step does not stop the others.
 */
import { spawn, spawnSync } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const RESULTS = join(HERE, "results");
const APP = join(HERE, "app");
const PYTHON = process.env.PYTHON || "python3";
const TIMES = Number(process.env.TIMES || 1);

const HELP = `usage: ./run.sh [STEP …]

Writes results/: a .json or .jsonl and a .log of each step, and run.json. At most 8 minutes; a step alone: ./run.sh doctor
A step that runs out of time keeps what it has measured. Exit code 1: a step failed, doctor or bench found wrong numbers, or
doctor ran out of time before it had checked what this adapter uses.

  doctor   every kernel against f64, a model's answers against PyTorch's         doctor.json
  bench    this machine's limits, then every kernel at the shapes of Vicuna-7B   bench.jsonl
  peers    the same operations by other WebGPU engines                           peers.jsonl
  torch    the same products and attentions by PyTorch, if $PYTHON has it        torch.json

Environment: PYTHON (python3) is the Python to look for torch in. TIMES (1) multiplies the time of each step: a driver that
compiles slowly may need 2. VK_DRIVER_FILES is the driver's JSON file, if no GPU is found without.
`;

const result = (name) => join(RESULTS, name);
const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));
const program = (path, ...args) => [process.execPath, join(APP, path), ...args];

/**
 * `seconds` add up to less than 8 minutes. Exit code 0: right; 1 of doctor and bench: something is wrong. Of several commands each
 * runs after the one before has ended well. `table` prints the rows of a step that has run out of time.
 */
const STEPS = {
  doctor: {
    seconds: 170,
    commands: [program("src/instructblip/cli/main.js", "doctor", "--json", result("doctor.json"))],
  },
  // What is used here, the most important first; then, in the time that is left, all variants side by side.
  bench: {
    seconds: 140,
    commands: [
      ["--planned", "--filter", "^(linear|attention|model)"],
      ["--planned", "--filter", "^(?!linear|attention|model)"],
      [],
    ].map((args) => program("bench/main.js", ...args, "--rounds", "3", "--json", result("bench.jsonl"))),
    table: program("bench/main.js", "--table", result("bench.jsonl")),
  },
  peers: {
    seconds: 100,
    commands: [
      program("bench/peers/main.js", "--engines", "ours,jax,tfjs", "--rounds", "3", "--json", result("peers.jsonl")),
    ],
    table: program("bench/peers/main.js", "--table", result("peers.jsonl")),
  },
  torch: { seconds: 45, commands: [[PYTHON, join(HERE, "torch_times.py"), result("torch.json")]], needs: whyNoTorch },
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

/** What an adapter that is not found may lack. */
const NO_GPU = `no GPU was found. Its driver must have a Vulkan part, and a container must pass it on (NVIDIA:
    NVIDIA_DRIVER_CAPABILITIES=all). Name the driver's file: VK_DRIVER_FILES=/etc/vulkan/icd.d/nvidia_icd.json ./run.sh`;

/** Runs a step; stdout and stderr go to its log, and stdout here too, and of a step that failed what it said last. */
async function runStep(name, { seconds, commands, table, needs }) {
  const why = needs?.();
  if (why !== undefined) return { step: name, skipped: why };
  const started = performance.now();
  const log = createWriteStream(result(`${name}.log`));
  const print = (data) => {
    process.stdout.write(data);
    log.write(data);
  };
  let outcome;
  for (const command of commands) {
    const left = seconds - (performance.now() - started) / 1000;
    outcome = await run(command, left, print, log);
    if (outcome.timedOut || outcome.exit !== 0) break;
  }
  const { complaint, ...ended } = outcome;
  if (ended.timedOut && table && existsSync(table.at(-1))) {
    print(spawnSync(table[0], table.slice(1), { cwd: HERE, env: ENV, encoding: "utf8" }).stdout);
  } else if (ended.exit && !ended.timedOut) {
    process.stdout.write(`${complaint.split("\n").filter(Boolean).slice(-6).join("\n")}\n`);
  }
  log.end();
  const noAdapter = !ended.timedOut && /no WebGPU adapter/.test(complaint);
  const took = Math.round((performance.now() - started) / 100) / 10;
  return { step: name, seconds: took, ...ended, ...(noAdapter && { noAdapter }) };
}

/** Runs a program for so many seconds at most. `complaint`: the end of its stderr. */
function run([file, ...args], seconds, print, log) {
  return new Promise((resolve) => {
    const child = spawn(file, args, { cwd: HERE, env: ENV, stdio: ["ignore", "pipe", "pipe"] });
    let timedOut = false;
    let complaint = "";
    const ends = [
      setTimeout(() => {
        timedOut = true;
        child.kill("SIGTERM");
      }, seconds * 1000),
      setTimeout(() => child.kill("SIGKILL"), seconds * 1000 + 5000),
    ];
    child.stdout.on("data", print);
    child.stderr.on("data", (data) => {
      log.write(data);
      complaint = (complaint + data).slice(-2000);
    });
    const done = (outcome) => {
      for (const end of ends) clearTimeout(end);
      resolve({ ...outcome, ...(timedOut && { timedOut }), complaint });
    };
    child.on("error", (error) => done({ exit: null, error: error.message }));
    child.on("close", (exit, signal) => done({ exit, ...(signal && { signal }) }));
  });
}

const said = ({ step, skipped, exit, timedOut, error, seconds }) => {
  if (skipped) return `skipped: ${skipped}`;
  if (error) return `did not start: ${error}`;
  if (timedOut) {
    const kept = [`${step}.json`, `${step}.jsonl`].find((name) => existsSync(result(name)));
    return `ended, out of time after ${seconds} s; ${kept ? `results/${kept} has what was done` : "no result was there yet"}`;
  }
  return `exit code ${exit} after ${seconds} s${exit === 0 ? "" : `; see results/${step}.log`}`;
};

/** The report of doctor, if it has written one in this run. */
function doctorReport() {
  try {
    return readJson(result("doctor.json"));
  } catch {
    return undefined;
  }
}

/** Out of time is no failure, but of doctor, unless all that the adapter uses is right. */
function failed({ step, skipped, exit, timedOut }, report) {
  if (skipped !== undefined || exit === 0) return false;
  if (step !== "doctor") return !timedOut;
  return !(timedOut && report?.usedChecked && report.checks.every(({ wrong }) => wrong.length === 0));
}

const args = process.argv.slice(2);
const unknown = args.filter((name) => !Object.hasOwn(STEPS, name) && !["-h", "--help"].includes(name));
if (args.includes("--help") || args.includes("-h")) process.stdout.write(HELP);
else if (unknown.length > 0) {
  process.stderr.write(`run: there is no step ${unknown.join(", ")}\n\n${HELP}`);
  process.exitCode = 2;
} else if (!(TIMES > 0 && TIMES <= 100)) {
  process.stderr.write(`run: TIMES must be a number up to 100, got ${process.env.TIMES}\n`);
  process.exitCode = 2;
} else {
  mkdirSync(RESULTS, { recursive: true });
  const names = args.length > 0 ? args : Object.keys(STEPS);
  for (const name of names)
    for (const end of ["json", "jsonl", "log"]) rmSync(result(`${name}.${end}`), { force: true });
  const bundle = readJson(join(HERE, "bundle.json"));
  const steps = [];
  let report;
  for (const name of names) {
    const step = { ...STEPS[name], seconds: STEPS[name].seconds * TIMES };
    process.stdout.write(`\n== ${name}: at most ${Math.round(step.seconds)} s\n`);
    const noAdapter = name !== "torch" && steps.some(({ noAdapter }) => noAdapter);
    const outcome = noAdapter ? { step: name, skipped: "there is no adapter" } : await runStep(name, step);
    steps.push(outcome);
    process.stdout.write(`== ${name}: ${said(outcome)}\n`);
    if (name === "doctor") report = doctorReport();
    if (outcome.noAdapter || (name === "doctor" && report?.adapter.software)) process.stdout.write(`== ${NO_GPU}\n`);
    const { description, software } = report?.adapter ?? {};
    const facts = {
      ...bundle,
      date: new Date().toISOString(),
      ...(report && { adapter: { description, software } }),
      steps,
    };
    writeFileSync(result("run.json"), `${JSON.stringify(facts, null, 2)}\n`);
  }
  process.stdout.write(`\n${RESULTS} is what to send\n`);
  process.exitCode = steps.some((step) => failed(step, report)) ? 1 : 0;
}
