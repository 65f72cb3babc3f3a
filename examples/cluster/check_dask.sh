#!/bin/bash
# Runs answer_dask.py on a Dask of its own, with one worker killed, and one of Dask's: pip install distributed, or
# apt-get install python3-distributed; PYTHON=…/python chooses the interpreter.
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT

"${PYTHON:-python3}" "$HERE/answer_dask.py" --shards "$SHARDS" --out "$OUT/answers" \
  --model "$MODEL" --requests "$REQUESTS" 2>"$WORK/dask.log" &
dask=$!
trap 'kill $dask 2>/dev/null && wait $dask; rm -rf "$WORK"' EXIT
kill_worker 1 &
await_answer 2
command=$(worker_of 2)
kill -KILL "$(ps -o ppid= -p "$command")"
echo "killed     Dask's worker of shard 2 after $(progress 2)"
wait $dask || { cat "$WORK/dask.log" && exit 1; }
compare_with_whole
