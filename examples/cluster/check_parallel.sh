#!/bin/bash
# Runs shards by GNU parallel, with one worker killed: apt-get install parallel
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT

echo "parallel   $(parallel --version | grep -om1 '[0-9]*$'), 2 jobs at a time"
kill_worker 1 &
seq 0 $((SHARDS - 1)) | parallel --will-cite --jobs 2 --retries 5 --joblog "$WORK/joblog" \
  instructblip generate --model "$MODEL" --requests "$REQUESTS" --json \
  --shard "{}/$SHARDS" --out "$OUT/answers-{}.jsonl" --resume
wait
compare_with_whole
