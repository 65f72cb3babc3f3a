/** Names of the library that do not exist beside a worker. Reading one says why, and what to do instead. */
import { InputError } from "../tensor/errors.ts";

const OWN_CALL = "answerCalls({ name }) adds a call of your own, which runs in the worker with the model itself";

const IN_WORKER = "it is made of tensors of the worker's device";
const RUNS = "it runs a function of yours beside the model";
const IS_LOADED = "a worker's models are loaded with all that they need";

const REFUSED = {
  client: { profile: RUNS, traceOutputs: RUNS, measureLimits: "it takes a device" },
  model: {
    device: "it is the worker's",
    model: IN_WORKER,
    query_tokens: IN_WORKER,
    vision_model: IN_WORKER,
    qformer: IN_WORKER,
    language_projection: IN_WORKER,
    language_model: IN_WORKER,
    imageStates: IN_WORKER,
    logitsOfStates: IN_WORKER,
    state_dict: IN_WORKER,
    compile: IS_LOADED,
    to: IS_LOADED,
    eval: IS_LOADED,
  },
  processor: {
    image_processor: "it is the worker's: call the processor",
    video_processor: "it is the worker's: call the processor",
    qformer_tokenizer: "it is the worker's: call the processor",
  },
} as const;

/** Their type. */
export type RefusedName<Kind extends keyof typeof REFUSED> = keyof (typeof REFUSED)[Kind];

/** The names that are refused, of each kind of object. */
export const REFUSED_NAMES: Readonly<Record<keyof typeof REFUSED, readonly string[]>> = {
  client: Object.keys(REFUSED.client),
  model: Object.keys(REFUSED.model),
  processor: Object.keys(REFUSED.processor),
};

/** Adds the names that are refused to an object, which listings of its properties leave out. @returns the object */
export function refuseOthers<T extends object>(object: T, kind: keyof typeof REFUSED): T {
  for (const [name, why] of Object.entries(REFUSED[kind])) {
    if (Object.hasOwn(object, name)) continue;
    Object.defineProperty(object, name, {
      get: () => {
        throw new InputError("WORKER_CLONE", `${name} cannot be had from a worker: ${why}`, { hint: OWN_CALL });
      },
    });
  }
  return object;
}
