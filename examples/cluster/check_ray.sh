#!/bin/bash
# Runs answer_ray.py on a Ray of its own, with one worker killed: pip install ray; PYTHON=…/python chooses the interpreter.
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT

kill_worker 1 &
"${PYTHON:-python3}" "$HERE/answer_ray.py" --shards "$SHARDS" --out "$OUT/answers" \
  --model "$MODEL" --requests "$REQUESTS" 2>"$WORK/ray.log" || { cat "$WORK/ray.log" && exit 1; }
wait
compare_with_whole
