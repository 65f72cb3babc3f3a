"""Answers requests on a Dask cluster: every task starts the command for one shard, again where that is worth it.

python answer_dask.py --scheduler tcp://host:8786 --shards 8 --gpus 1 -- \
    --model /models/vicuna-7b --requests /data/questions.jsonl --out /data/answers
"""

import argparse
import subprocess
import sys

import distributed

COMPLETE = (0, 3)  # 3: some of the file's lines have errors.
WORTH_A_RETRY = (75, 130, 143)


def answer(shard: int, shards: int, out: str, args: list[str]) -> int:
    # Dask leaves the command of a worker that was killed, and starts its task again: two must not write to one file.
    command = ["setpriv", "--pdeathsig", "KILL", "instructblip", "generate", *args, "--json", "--resume"]
    command += ["--shard", f"{shard}/{shards}", "--out", f"{out}-{shard}.jsonl"]
    for _ in range(6):
        code = subprocess.run(command).returncode
        if code >= 0 and code not in WORTH_A_RETRY:  # below 0: killed by a signal
            break
        print(f"shard {shard}: exit code {code}", file=sys.stderr)
    return code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheduler", help="address; without, two workers are started here")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--gpus", type=float, default=0, help="of a task; workers started with --resources GPU=n")
    parser.add_argument("--out", required=True, help="OUT-0.jsonl, OUT-1.jsonl, …")
    known, args = parser.parse_known_args()
    args = [arg for arg in args if arg != "--"]
    here = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(known.scheduler, **({} if known.scheduler else here)) as client:
        resources = {"GPU": known.gpus} if known.gpus else None
        shards = range(known.shards)
        fixed = {"shards": known.shards, "out": known.out, "args": args}
        tasks = [client.submit(answer, shard, **fixed, resources=resources, pure=False) for shard in shards]
        codes = client.gather(tasks)
    print(f"dask {distributed.__version__}: {known.shards} shards, exit codes {codes}")
    sys.exit(0 if all(code in COMPLETE for code in codes) else 1)


if __name__ == "__main__":
    main()
