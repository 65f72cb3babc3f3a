/** `--shard auto`. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { autoShard as autoShardOf, ENGINES } from "../../../src/instructblip/cli/requests/auto_shard.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli } from "./cli.ts";

const autoShard = (env: Readonly<Record<string, string>>, total?: number) =>
  autoShardOf(env, (path) => readFileSync(path, "utf8"), total);

/** The variables of a task of a job array, as Slurm 22.05 sets them. */
const array = (id: number, count: number, [min, max, step]: readonly [number, number, number]) => ({
  SLURM_ARRAY_JOB_ID: "1",
  SLURM_ARRAY_TASK_ID: String(id),
  SLURM_ARRAY_TASK_COUNT: String(count),
  SLURM_ARRAY_TASK_MIN: String(min),
  SLURM_ARRAY_TASK_MAX: String(max),
  SLURM_ARRAY_TASK_STEP: String(step),
  SLURM_PROCID: "0",
});
const step = (i: number, n: number) => ({
  SLURM_STEP_ID: "0",
  SLURM_PROCID: String(i),
  SLURM_STEP_NUM_TASKS: String(n),
});
const jobAd = (lines: string) => {
  const path = join(temporaryFolder(), ".job.ad");
  writeFileSync(path, lines);
  return { _CONDOR_JOB_AD: path };
};

describe("autoShard", () => {
  it("reads every engine's variables", () => {
    expect(autoShard(array(3, 8, [0, 7, 1]))).toEqual({ i: 3, n: 8 });
    expect(autoShard(array(8, 8, [1, 8, 1]))).toEqual({ i: 7, n: 8 });
    expect(autoShard(array(6, 4, [0, 6, 2]))).toEqual({ i: 3, n: 4 });
    expect(autoShard(array(0, 1, [0, 0, 1]))).toEqual({ i: 0, n: 1 });
    expect(autoShard({ SLURM_NTASKS: "4", ...step(2, 4) })).toEqual({ i: 2, n: 4 });
    expect(autoShard({ JOB_COMPLETION_INDEX: "5" }, 6)).toEqual({ i: 5, n: 6 });
    expect(autoShard({ RANK: "1", WORLD_SIZE: "2" })).toEqual({ i: 1, n: 2 });
    const ad = 'Cmd = "a"\nProcId = 2\nTotalSubmitProcs = 3\nMyProcId = 9\n';
    expect(autoShard(jobAd(ad))).toEqual({ i: 2, n: 3 });
    expect(autoShard(jobAd("ProcId = 2\n"), 4)).toEqual({ i: 2, n: 4 });
  });

  it("takes a part of an array for a part only when it is told the whole", () => {
    for (const part of [array(3, 1, [3, 3, 1]), array(3, 2, [2, 3, 1])]) {
      expect(() => autoShard(part)).toThrow(/the array begins at [23], so it may be a part.*auto\/8/);
      expect(autoShard(part, 8)).toEqual({ i: 3, n: 8 });
    }
    // --array=1,3,7 and 0,1,3: Slurm says a step of 1.
    for (const list of [array(3, 3, [1, 7, 1]), array(1, 3, [0, 3, 1])]) {
      expect(() => autoShard(list)).toThrow(/the array has 3 tasks from [01] to [37], so it may be a part/);
    }
  });

  it("refuses, in every task, a total that is not the engine's", () => {
    for (const id of [1, 7, 8]) {
      expect(() => autoShard(array(id, 8, [1, 8, 1]), 8)).toThrow(/the array goes to 8, of 8 shards from 0 to 7/);
    }
    expect(() => autoShard({ SLURM_ARRAY_TASK_ID: "8" }, 8)).toThrow(/the array goes to 8/);
    for (const i of [0, 1]) {
      const rank = { RANK: String(i), WORLD_SIZE: "2" };
      expect(() => autoShard(rank, 4)).toThrow(/by RANK \(Ray Train or torchrun\) this is one of 2, not of 4/);
      expect(autoShard(rank, 2)).toEqual({ i, n: 2 });
      expect(() => autoShard(step(i, 4), 2)).toThrow(/this is one of 4, not of 2/);
    }
    expect(() => autoShard(step(0, 1), 4)).toThrow(/this is one of 1, not of 4/);
    expect(() => autoShard(jobAd("ProcId = 0\nTotalSubmitProcs = 3\n"), 4)).toThrow(/this is one of 3, not of 4/);
  });

  it("refuses none, several, and what is incomplete or no number", () => {
    expect(() => autoShard({})).toThrow(/none of SLURM_ARRAY_TASK_ID, SLURM_STEP_NUM_TASKS, JOB_COMPLETION_INDEX/);
    expect(() => autoShard({ JOB_COMPLETION_INDEX: "", SLURM_PROCID: "0", WORLD_SIZE: "2" })).toThrow(/none of/);
    for (const total of [undefined, 2]) {
      expect(() => autoShard({ RANK: "1" }, total)).toThrow(
        "auto: RANK is set (Ray Train or torchrun), but WORLD_SIZE is",
      );
    }
    expect(autoShard({ JOB_COMPLETION_INDEX: "1", RANK: "0" }, 2)).toEqual({ i: 1, n: 2 });
    expect(() => autoShard({ JOB_COMPLETION_INDEX: "1" })).toThrow(
      /Kubernetes Indexed Job does not tell how many.*auto\/n/,
    );
    expect(() => autoShard(jobAd("ProcId = 2\n"))).toThrow(/HTCondor does not tell how many/);
    expect(() => autoShard({ _CONDOR_JOB_AD: "/none" })).toThrow(/"\/none", which cannot be read/);
    expect(() => autoShard(jobAd("Cmd = 1\n"))).toThrow(/has no ProcId/);
    expect(() => autoShard({ ...array(1, 8, [0, 7, 1]), SLURM_ARRAY_TASK_MIN: "" })).toThrow(/_MIN is not set/);
    expect(() => autoShard({ ...array(1, 8, [0, 7, 1]), SLURM_ARRAY_TASK_STEP: "0" })).toThrow(/may be a part/);
    for (const text of ["-1", "1.5", "x", "0x1", "99999999999999999"]) {
      expect(() => autoShard({ JOB_COMPLETION_INDEX: text }, 8)).toThrow(/is "\S+", not a whole number/);
    }
    expect(() => autoShard({ JOB_COMPLETION_INDEX: "8" }, 8)).toThrow(/number 8 from 0, of 8/);
    const both = { ...array(1, 8, [0, 7, 1]), ...step(1, 2) };
    expect(() => autoShard(both)).toThrow(
      /this process is 1\/8 by SLURM_ARRAY_TASK_ID \(Slurm job array\), and 1\/2 by SLURM_STEP_NUM_TASKS/,
    );
  });

  it("takes engines within engines where one alone divides, or they agree", () => {
    expect(autoShard({ ...array(5, 8, [0, 7, 1]), ...step(0, 1) })).toEqual({ i: 5, n: 8 });
    expect(autoShard({ ...array(5, 1, [5, 5, 1]), ...step(0, 1) }, 8)).toEqual({ i: 5, n: 8 });
    expect(autoShard({ JOB_COMPLETION_INDEX: "1", RANK: "0", WORLD_SIZE: "1" }, 2)).toEqual({ i: 1, n: 2 });
    expect(autoShard({ ...step(1, 4), RANK: "1", WORLD_SIZE: "4" })).toEqual({ i: 1, n: 4 });
    expect(autoShard({ ...step(0, 1), RANK: "0", WORLD_SIZE: "1" })).toEqual({ i: 0, n: 1 });
  });
});

describe("--shard auto", () => {
  afterEach(() => vi.unstubAllEnvs());

  it.each(["generate", "evaluate", "features", "ablate", "patch"])(
    "is of %s, and a mistake in the command line where it fails",
    async (command) => {
      for (const { variable } of ENGINES) vi.stubEnv(variable, "");
      const { code, stdout, stderr } = await cli([command, "--shard", "auto"]);
      expect({ code, stdout }).toEqual({ code: EXIT.usage, stdout: "" });
      expect(stderr).toMatch(/'--shard <i\/n>' argument 'auto' is invalid\. auto: none of SLURM_ARRAY_TASK_ID/);
      vi.stubEnv("JOB_COMPLETION_INDEX", "1");
      expect((await cli([command, "--shard", "auto/2"])).stderr).toMatch(/required option/);
      expect((await cli([command, "--shard", "auto/1"])).stderr).toMatch(/number 1 from 0, of 1/);
      for (const odd of ALL ? ["auto/0", "auto/", "auto/x", "Auto", "2/2"] : ["auto/0"]) {
        expect((await cli([command, "--shard", odd])).stderr).toMatch(/must be i\/n .*, auto, or auto\/n/);
      }
    },
  );
});
