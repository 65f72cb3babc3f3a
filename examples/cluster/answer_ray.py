"""Answers requests on a Ray cluster: every task starts the command for one shard, and a task that is worth it is retried.

python answer_ray.py --shards 8 --gpus 1 -- --model /models/vicuna-7b --requests /data/questions.jsonl --out /data/answers
"""

import argparse
import subprocess

import ray

SOME_FAILED = 3  # The file is complete; some of its lines have errors.
WORTH_A_RETRY = (75, 130, 143)


class Retry(Exception):
    """The shard is not complete; the same command continues it."""


def answer(shard: int, shards: int, out: str, args: list[str]) -> int:
    command = ["instructblip", "generate", *args, "--json", "--resume"]
    command += ["--shard", f"{shard}/{shards}", "--out", f"{out}-{shard}.jsonl"]
    code = subprocess.run(command).returncode
    if code in WORTH_A_RETRY or code < 0:  # below 0: killed by a signal
        raise Retry(f"shard {shard}: exit code {code}")
    if code not in (0, SOME_FAILED):
        raise RuntimeError(f"shard {shard}: exit code {code}")
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a task")
    parser.add_argument("--out", required=True, help="OUT-0.jsonl, OUT-1.jsonl, …")
    known, args = parser.parse_known_args()
    ray.init(log_to_driver=False)
    # A task is retried when its node dies, too.
    task = ray.remote(num_gpus=known.gpus, max_retries=5, retry_exceptions=[Retry])(answer)
    args = [arg for arg in args if arg != "--"]
    codes = ray.get([task.remote(shard, known.shards, known.out, args) for shard in range(known.shards)])
    print(f"ray {ray.__version__}: {known.shards} shards, exit codes {codes}")


if __name__ == "__main__":
    main()
