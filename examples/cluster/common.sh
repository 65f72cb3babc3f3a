# Sourced by the checks: 80 questions for the checkpoint of examples/shapes, and what an undivided run answers.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
WORK=$(mktemp -d)
# The checks start processes by files of this folder, so that none but theirs is found.
MODEL=$ROOT/examples/shapes/checkpoint
REQUESTS=$WORK/questions.jsonl
OUT=$WORK
SHARDS=4
export MODEL REQUESTS OUT

mkdir "$WORK/bin"
if [ ! -f "$ROOT/dist/instructblip/cli/main.js" ]; then (cd "$ROOT" && npm run --silent build); fi
printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$(command -v node)" "$ROOT/dist/instructblip/cli/main.js" >"$WORK/bin/instructblip"
chmod +x "$WORK/bin/instructblip"
export PATH="$WORK/bin:$PATH"

head -n 80 "$ROOT/examples/shapes/eval/requests.jsonl" | sed "s#\"images/#\"$ROOT/examples/shapes/eval/images/#" >"$REQUESTS"

# Lays the model and the requests where the paths of job.yaml have them, below $WORK/models and $WORK/data.
make_data() {
  mkdir "$WORK"/{models,data}
  cp -r "$MODEL" "$WORK/models/vicuna-7b"
  cp -r "$ROOT/examples/shapes/eval/images" "$WORK/data"
  head -n 80 "$ROOT/examples/shapes/eval/requests.jsonl" >"$WORK/data/questions.jsonl"
  chmod -R a+rX "$WORK"/{models,data}
  chmod a+w "$WORK/data"
  REQUESTS=$WORK/data/questions.jsonl
  OUT=$WORK/data
}

# Waits for the first answer of a shard. @1 the shard
await_answer() {
  local try
  for ((try = 0; try < 6000; try++)); do
    if [ -s "$OUT/answers-$1.jsonl" ]; then return 0; fi
    sleep 0.05
  done
  echo "shard $1 has no answer after five minutes" >&2
  return 1
}

# How many answers of its share a shard has. @1 the shard
progress() {
  echo "$(wc -l <"$OUT/answers-$1.jsonl") of its $((80 / SHARDS)) answers"
}

# The process id of the worker of a shard. @1 the shard
worker_of() {
  pgrep -f -- "^[^ ]*node .*--out $OUT/answers-$1.jsonl" && return 0
  echo "shard $1 was done before it could be killed" >&2
  return 1
}

# Kills the worker of a shard as soon as it has written an answer. @1 the shard
kill_worker() {
  local pid
  await_answer "$1"
  pid=$(worker_of "$1")
  kill -KILL "$pid"
  echo "killed     worker of shard $1 after $(progress "$1")"
}

# Merges, and compares with an undivided run but for timing, and the settings of a run in the first line that it wrote.
compare_with_whole() {
  local apart='s/,"timing":{[^}]*}//; s/,"batch_rows":[0-9]*//; s/,"run":{.*}}$/}/'
  instructblip generate --model "$MODEL" --requests "$REQUESTS" --json 2>"$WORK/whole.log" |
    sed "$apart" >"$WORK/whole.jsonl" || { cat "$WORK/whole.log" && return 1; }
  instructblip merge --requests "$REQUESTS" "$OUT"/answers-*.jsonl | sed "$apart" >"$WORK/merged.jsonl"
  cmp "$WORK/whole.jsonl" "$WORK/merged.jsonl"
  echo "merged     $(wc -l <"$WORK/merged.jsonl") answers of $SHARDS shards, equal to an undivided run"
}
