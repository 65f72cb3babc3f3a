/**
 * Interventions of one call: resolved against the model's modules and their shapes, which a dry run finds before anything is
 * computed, and applied by an observer in the passes that they are for.
 */
import { pathPattern, withObserver } from "../../modules/observer.ts";
import type { ActivationDType } from "../../tensor/dtype.ts";
import { InputError, nearest } from "../../tensor/errors.ts";
import { contiguous } from "../../tensor/ops/copy.ts";
import { formatShape, type Shape, sameShape } from "../../tensor/shape.ts";
import { quote, shown } from "../../tensor/shown.ts";
import { type Device, type ObservedKind, type Observer, type SiteKind, Tensor } from "../../tensor/tensor.ts";
import { cutEdges, edited, layoutOf } from "./edit.ts";
import { type Checked, counted, DIMENSIONS, type Edit } from "./intervention.ts";

/** A place that can be edited, and its shape in the prompt's pass and in later steps, if it is computed there. */
interface Site {
  readonly path: string;
  readonly at: SiteKind;
  prompt?: Shape;
  step?: Shape;
}

/** Looked up for pairs of tokens: it has neither rows nor tokens. */
const NOT_ROWS = /relative_attention_bias$/;
const KINDS: readonly ObservedKind[] = ["output", "input", "heads", "edges"];
const keyOf = (at: ObservedKind, path: string) => `${at} ${path}`;

/** Notes every place that runs. */
class SiteFinder implements Observer {
  readonly sites = new Map<string, Site>();
  pass: "prompt" | "step" = "prompt";

  wants(path: string, kind: ObservedKind): boolean {
    return KINDS.includes(kind) && path !== "" && !NOT_ROWS.test(path);
  }

  see(path: string, kind: ObservedKind, x: Tensor<ActivationDType>): undefined {
    if (x.dtype !== "f32") return;
    const key = keyOf(kind, path);
    const site = this.sites.get(key) ?? { path, at: kind as SiteKind };
    site[this.pass] ??= x.shape;
    this.sites.set(key, site);
  }
}

/** The call that interventions are resolved for. */
export interface Call {
  /** Prompts of the batch. */
  readonly rows: number;
  /** Tokens that the language model has read after the prompt's pass: the prompt's, or a decoder's. */
  readonly length: number;
  /** Passes of the call, at most. */
  readonly passes: number;
  /**
   * Runs the prompt's pass and, if there is more than one, a step, calling `onStep` between them. It is run dry: see
   * Device.dryRun.
   */
  run(onStep: () => void): void;
}

/** A checked intervention at one place. */
interface Placed {
  readonly checked: Checked;
  readonly site: Site;
}

/** The interventions of a call. */
export class Plan {
  readonly #device: Device;
  readonly #call: Call;
  readonly #placed = new Map<string, Placed[]>();
  /** Whether what happens to a row may depend on other rows. */
  readonly couplesRows: boolean;

  /**
   * To be constructed with exclusive use of the device.
   *
   * @throws InputError INTERVENTION_PATH, INTERVENTION_STEP, INTERVENTION_INDEX, INTERVENTION_VALUE
   */
  constructor(device: Device, interventions: readonly Checked[], call: Call) {
    this.#device = device;
    this.#call = call;
    const sites = this.#find();
    for (const checked of interventions) {
      this.#checkSteps(checked);
      for (const site of matching(checked, sites)) {
        this.#check(checked, site);
        const key = keyOf(site.at, site.path);
        this.#placed.set(key, [...(this.#placed.get(key) ?? []), { checked, site }]);
      }
    }
    this.couplesRows = interventions.some(({ does }) => typeof does === "function" || does.op === "mean");
  }

  /** Runs pass `step` of the call with the interventions that apply in it. */
  during<T>(step: number, fn: () => T): T {
    const applies = ({ checked }: Placed) => isAt(checked.steps, step);
    const now = new Map([...this.#placed].map(([key, all]) => [key, all.filter(applies)] as const));
    for (const [key, all] of now) if (all.length === 0) now.delete(key);
    if (now.size === 0) return fn();
    const observer: Observer = {
      wants: (path, kind) => now.has(keyOf(kind, path)),
      see: (path, kind, x) => {
        const all = now.get(keyOf(kind, path))!;
        if (kind === "edges") return this.#cut(all, x.shape, step);
        return all.reduce((y, one) => this.#apply(one, y, step), x as Tensor);
      },
      reaches: (part) => [...now.values()].some(([first]) => `${first!.site.path}.`.startsWith(`${part}.`)),
    };
    // Before others, which then see what the model goes on with.
    return withObserver(this.#device, observer, fn, { first: true });
  }

  #find(): ReadonlyMap<string, Site> {
    const finder = new SiteFinder();
    const before = this.#device.observers;
    this.#device.observers = [finder];
    try {
      this.#device.dryRun(() => {
        this.#call.run(() => {
          finder.pass = "step";
        });
      });
    } finally {
      this.#device.observers = before;
    }
    return finder.sites;
  }

  #checkSteps({ name, steps }: Checked): void {
    const { passes } = this.#call;
    const beyond = typeof steps === "string" ? undefined : steps.find((n) => n >= passes);
    if (beyond === undefined) return;
    const last = passes === 1 ? "step 0 alone" : `the steps 0 to ${passes - 1}`;
    throw new InputError("INTERVENTION_STEP", `${name}: there is no step ${beyond}; this call has ${last}`);
  }

  #check({ name, steps, does }: Checked, site: Site): void {
    const { rows, length, passes } = this.#call;
    const shapes = [isAt(steps, 0) ? site.prompt : undefined, later(steps) ? site.step : undefined];
    for (const shape of shapes) {
      if (!shape || typeof does === "function") continue;
      const [R, T, H, C] = layoutOf(shape, site.at);
      const where = `${name}: ${site.path} (${formatShape(shape)})`;
      if (R % rows !== 0) {
        throw new InputError("INTERVENTION_INDEX", `${where} has no rows of the batch, of which there are ${rows}`);
      }
      const most = { row: rows, head: H, channel: C };
      for (const key of ["row", "head", "channel"] as const) {
        const wrong = does.index[key]?.find((i) => i >= most[key]);
        if (wrong === undefined) continue;
        throw new InputError("INTERVENTION_INDEX", `${where} has ${counted(most[key], key)}, no ${key} ${wrong}`);
      }
      checkValue(where, does, [rows, T, H, C]);
    }
    if (typeof does === "function") return;
    // Where a sequence grows step by step, its tokens are counted on.
    const first = site.prompt && layoutOf(site.prompt, site.at)[1];
    const start = first === undefined ? 0 : this.#start(site.path, first, 0);
    const isComputed = (token: number) =>
      (first !== undefined && isAt(steps, 0) && token >= start && token < start + first) ||
      (site.step !== undefined && token >= length && token < length + passes - 1 && isAt(steps, token - length + 1));
    const { token, from = token, to } = does.index;
    const wrong = from?.find((token) => !isComputed(token));
    if (wrong === undefined) {
      const keys = this.#keys(site, steps);
      const beyond = to?.find((token) => token >= keys);
      if (beyond === undefined) return;
      throw new InputError(
        "INTERVENTION_INDEX",
        `${name}: ${site.path} attends to tokens 0 to ${keys - 1} in these steps, not to ${beyond}`,
      );
    }
    const inPrompt = first === undefined ? "none" : `${start} to ${start + first - 1}`;
    const inSteps = site.step === undefined ? "" : `, in step n token ${length - 1} + n`;
    throw new InputError(
      "INTERVENTION_INDEX",
      `${name}: ${site.path} does not compute token ${wrong} in these steps; in step 0 it computes ${inPrompt}${inSteps}`,
    );
  }

  /** The token with which T tokens of a pass begin: the language model's are the last of those read so far. */
  #start(path: string, T: number, step: number): number {
    return path.startsWith("language_model.") ? Math.max(0, this.#call.length + step - T) : 0;
  }

  /** How many tokens an attention attends to at most: of a sequence that grows, in the last of the steps. */
  #keys({ at, prompt, step }: Site, steps: Checked["steps"]): number {
    if (at !== "edges") return 0;
    const [first, second] = [prompt, step].map((shape) => shape?.[3] ?? 0) as [number, number];
    const { passes } = this.#call;
    const last = steps === "prompt" ? 0 : steps === "all" ? passes - 1 : Math.max(...steps);
    if (last === 0 || !step) return first;
    return second > first ? second + last - 1 : second;
  }

  /** The edges that are left of an attention, of shape [R, H, T, S]; undefined: all. */
  #cut(all: readonly Placed[], shape: Shape, step: number): Tensor | undefined {
    const { rows } = this.#call;
    const start = this.#start(all[0]!.site.path, shape[2]!, step);
    let edges: Tensor | undefined; // this observer is the first
    let cuts: Edit["index"][] = [];
    const cut = () => {
      edges = cutEdges(this.#device, edges, cuts, shape, { rows, start });
      cuts = [];
    };
    for (const one of all) {
      const { does } = one.checked;
      if (typeof does !== "function") {
        cuts.push(does.index);
        continue;
      }
      cut();
      const ones = () => this.#device.tensor([1], [1, 1, 1, 1]).expand(shape);
      edges = this.#apply(one, contiguous(edges ?? ones()), step);
    }
    cut();
    return edges;
  }

  #apply({ checked: { name, does }, site }: Placed, x: Tensor, step: number): Tensor {
    const usual = step === 0 ? site.prompt : site.step;
    if (x.rank !== usual?.length) return x; // the pooled class token, which goes through the image encoder's norm again
    const { at, path } = site;
    const start = this.#start(path, layoutOf(x.shape, at)[1], step);
    if (typeof does !== "function") return edited(x, does, { at, rows: this.#call.rows, start });
    const y: unknown = does(x, { module: path, at, step, start });
    if (y === undefined) return x;
    if (y instanceof Tensor && y.dtype === "f32" && sameShape(y.shape, x.shape)) return y;
    const got = y instanceof Tensor ? `${y.dtype}${formatShape(y.shape)}` : shown(y);
    throw new InputError(
      "INTERVENTION_VALUE",
      `${name}: apply must return a tensor f32${formatShape(x.shape)} for ${path}, or nothing, got ${got}`,
    );
  }
}

/** Whether steps include one after the prompt's. */
const later = (steps: Checked["steps"]) => (typeof steps === "string" ? steps === "all" : steps.some((n) => n > 0));
const runsIn = (steps: Checked["steps"], { prompt, step }: Site) =>
  (prompt !== undefined && isAt(steps, 0)) || (step !== undefined && later(steps));

function isAt(steps: Checked["steps"], step: number): boolean {
  return typeof steps === "string" ? steps === "all" || step === 0 : steps.includes(step);
}

/** The places that an intervention names and that run in its steps. @throws InputError INTERVENTION_PATH, INTERVENTION_STEP */
function matching(checked: Checked, sites: ReadonlyMap<string, Site>): readonly Site[] {
  const { name, module, at, steps } = checked;
  const pattern = pathPattern(module);
  const named = [...sites.values()].filter(({ path }) => pattern.test(path));
  const found = named.filter((site) => site.at === at);
  if (found.length === 0) {
    const ats = [...new Set(named.map((site) => `"at": "${site.at}"`))];
    if (ats.length > 0) {
      throw new InputError("INTERVENTION_PATH", `${name}: ${quote(module)} has no "at": "${at}"`, {
        hint: `it has ${ats.join(", ")}`,
      });
    }
    const paths = [...sites.values()].filter((site) => site.at === at).map(({ path }) => path);
    const meant = nearest(module, paths);
    throw new InputError("INTERVENTION_PATH", `${name}: no module matches ${quote(module)} at ${at}`, {
      hint: meant ? `did you mean ${meant}?` : "`instructblip trace --all` prints the paths",
    });
  }
  const running = found.filter((site) => runsIn(steps, site));
  if (running.length > 0) return running;
  throw new InputError("INTERVENTION_STEP", `${name}: ${quote(module)} does not run in the steps ${shown(steps)}`, {
    hint: found.some(({ prompt }) => prompt) ? "it runs in step 0, the prompt's pass" : undefined,
  });
}

/** @param layout prompts, tokens, heads, channels */
function checkValue(where: string, { value, index }: Edit, layout: readonly number[]): void {
  if (!value) return;
  const selected = DIMENSIONS.map((key, d) => index[key]?.length ?? layout[d]!);
  const wrong = DIMENSIONS.findIndex((_, d) => value.shape[d] !== 1 && value.shape[d] !== selected[d]);
  if (wrong < 0) return;
  const key = DIMENSIONS[wrong];
  throw new InputError(
    "INTERVENTION_VALUE",
    `${where}: the value has ${value.shape[wrong]} ${key}s, ${selected[wrong]} ${selected[wrong] === 1 ? "is" : "are"} selected`,
    { hint: key === "token" ? 'a step has one token; "steps": "prompt" edits the prompt\'s pass alone' : undefined },
  );
}
