/** `--shard auto`: the shard of this process by the variables of the engine that started it. */
import { quote } from "../../../tensor/shown.ts";
import type { Shard } from "../../evaluation/shards.ts";

type Environment = Readonly<Record<string, string | undefined>>;
type ReadText = (path: string) => string;

/** The place of a process among those that an engine started: `i` from 0, and `n` where the engine tells it. */
interface Place {
  readonly i: number;
  readonly n: number | undefined;
}

interface Engine {
  readonly name: string;
  /** The variable by which it is recognized. */
  readonly variable: string;
  /** Other variables that must be set, or it is not this engine. */
  readonly also?: readonly string[];
  /** @param total given by the user, undefined if it is the engine's to tell @throws Error */
  readonly place: (env: Environment, readText: ReadText, total: number | undefined) => Place;
}

/** The engines whose variables are read. A process started by srun is counted in its job step, not in an array. */
export const ENGINES: readonly Engine[] = [
  {
    name: "Slurm job array",
    variable: "SLURM_ARRAY_TASK_ID",
    place: (env, _, total) => {
      const id = numberOf(env, "SLURM_ARRAY_TASK_ID");
      // Of a part of an array that is submitted again, the variables describe the part: the user's total is of the whole.
      if (total !== undefined) {
        const max = env.SLURM_ARRAY_TASK_MAX ? numberOf(env, "SLURM_ARRAY_TASK_MAX") : id;
        if (max < total) return { i: id, n: total };
        throw new Error(`auto: the array goes to ${max}, of ${total} shards from 0 to ${total - 1}; write i/n.`);
      }
      const [low, high, step, n] = ["MIN", "MAX", "STEP", "COUNT"].map((end) =>
        numberOf(env, `SLURM_ARRAY_TASK_${end}`),
      );
      const i = (id - low!) / step!;
      const isRange = Number.isSafeInteger(i) && low! + (n! - 1) * step! === high;
      if (isRange && low! <= 1) return { i, n };
      const what = isRange ? `the array begins at ${low}` : `the array has ${n} tasks from ${low} to ${high}`;
      throw new Error(`${what}, so it may be a part of one; of an array 0-7 write auto/8.`);
    },
  },
  {
    name: "Slurm job step",
    variable: "SLURM_STEP_NUM_TASKS",
    place: (env) => ({ i: numberOf(env, "SLURM_PROCID"), n: numberOf(env, "SLURM_STEP_NUM_TASKS") }),
  },
  {
    name: "Kubernetes Indexed Job",
    variable: "JOB_COMPLETION_INDEX",
    place: (env) => ({ i: numberOf(env, "JOB_COMPLETION_INDEX"), n: undefined }),
  },
  { name: "HTCondor", variable: "_CONDOR_JOB_AD", place: (env, readText) => jobAd(env._CONDOR_JOB_AD!, readText) },
  {
    name: "Ray Train or torchrun",
    variable: "RANK",
    also: ["WORLD_SIZE"],
    place: (env) => ({ i: numberOf(env, "RANK"), n: numberOf(env, "WORLD_SIZE") }),
  },
];

/**
 * The shard by the environment. Engines within engines are refused, unless all but one started a single process, or they
 * agree.
 *
 * @param readText reads the file that a variable names
 * @param total how many shards there are; undefined: as the engine tells
 * @throws Error none or several engines, a total that is not the engine's, a variable that is missing or no whole number
 */
export function autoShard(env: Environment, readText: ReadText, total?: number): Shard {
  const isSet = (name: string) => (env[name] ?? "") !== "";
  const found = ENGINES.filter(({ variable, also = [] }) => [variable, ...also].every(isSet));
  if (found.length === 0) {
    for (const { name, variable, also = [] } of ENGINES) {
      const missing = also.find((other) => !isSet(other));
      if (isSet(variable) && missing !== undefined) {
        throw new Error(`auto: ${variable} is set (${name}), but ${missing} is not set; write i/n.`);
      }
    }
    const names = ENGINES.map(({ variable }) => variable).join(", ");
    throw new Error(`auto: none of ${names} is set; outside of Slurm, Kubernetes, HTCondor and Ray write i/n.`);
  }
  const places = found.map((engine) => ({ engine, place: engine.place(env, readText, total) }));
  const divided = places.filter(({ place }) => place.n !== 1);
  const [first, ...others] = (divided.length > 0 ? divided : places).map(({ engine, place }) => ({
    engine,
    shard: shardOf(engine, place, total),
  }));
  const { i, n } = first!.shard;
  const other = others.find(({ shard }) => shard.i !== i || shard.n !== n);
  if (!other) return { i, n };
  const texts = [first!, other].map(
    ({ engine, shard }) => `${shard.i}/${shard.n} by ${engine.variable} (${engine.name})`,
  );
  throw new Error(`auto: this process is ${texts.join(", and ")}; write i/n.`);
}

function shardOf({ name, variable }: Engine, { i, n: told }: Place, total: number | undefined): Shard {
  const n = total ?? told;
  if (n === undefined) throw new Error(`auto: ${variable} is set, but a ${name} does not tell how many; write auto/n.`);
  if (told !== undefined && told !== n) {
    throw new Error(`auto: by ${variable} (${name}) this is one of ${told}, not of ${n}; write auto or i/n.`);
  }
  if (i < n) return { i, n };
  throw new Error(`auto: by ${variable} (${name}) this is number ${i} from 0, of ${n}.`);
}

/** A variable that is a whole number of at least 0. */
function numberOf(env: Environment, name: string): number {
  const text = env[name] ?? "";
  if (text === "") throw new Error(`auto: ${name} is not set; write i/n.`);
  return whole(text, name);
}

function whole(text: string, name: string): number {
  const number = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new Error(`auto: ${name} is ${quote(text)}, not a whole number; write i/n.`);
}

/** HTCondor tells a job its place in a file of `Name = value` lines. */
function jobAd(path: string, readText: ReadText): Place {
  let text: string;
  try {
    text = readText(path);
  } catch {
    throw new Error(`auto: _CONDOR_JOB_AD is ${quote(path)}, which cannot be read; write i/n.`);
  }
  const read = (name: string) => new RegExp(`^${name} = (.*)$`, "im").exec(text)?.[1]?.trim();
  const [id, n] = [read("ProcId"), read("TotalSubmitProcs")];
  if (id === undefined) throw new Error(`auto: ${quote(path)} has no ProcId; write i/n.`);
  return { i: whole(id, "ProcId"), n: n === undefined ? undefined : whole(n, "TotalSubmitProcs") };
}
