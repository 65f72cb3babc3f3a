/** `--shard`, of every long command. */
import { readFileSync } from "node:fs";
import { InvalidArgumentError, Option } from "commander";
import type { Shard } from "../../evaluation/shards.ts";
import { once } from "../options.ts";
import { autoShard } from "./auto_shard.ts";

const shard = once((value): Shard => {
  const auto = /^auto(?:\/([1-9][0-9]{0,8}))?$/.exec(value);
  if (auto) {
    try {
      return autoShard(
        process.env,
        (path) => readFileSync(path, "utf8"),
        auto[1] === undefined ? undefined : Number(auto[1]),
      );
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  }
  const [i = Number.NaN, n = Number.NaN] = /^[0-9]+\/[0-9]+$/.test(value) ? value.split("/").map(Number) : [];
  if (Number.isSafeInteger(n) && i < n) return { i, n };
  throw new InvalidArgumentError("It must be i/n with i from 0 to n-1 (0/8 is the first of eight), auto, or auto/n.");
});

export const shardOption = () =>
  new Option(
    "--shard <i/n>",
    "only the i-th of n shards, counted from 0; auto, auto/n: as Slurm, Kubernetes, HTCondor or Ray number it",
  ).argParser(shard);
