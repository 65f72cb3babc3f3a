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

# Kills the worker of a shard as soon as it has written an answer. @1 the shard
kill_worker() {
  local file=$OUT/answers-$1.jsonl pid
  until [ -s "$file" ]; do sleep 0.05; done
  pid=$(pgrep -f -- "^[^ ]*node .*--out $file") || { echo "shard $1 was done before it could be killed" && return 1; }
  kill -KILL "$pid"
  echo "killed     worker of shard $1 after $(wc -l <"$file") of its $((80 / SHARDS)) answers"
}

# Merges, and compares with an undivided run but for timing.
compare_with_whole() {
  local timing='s/,"timing":{[^}]*}//; s/,"batch_rows":[0-9]*//'
  instructblip generate --model "$MODEL" --requests "$REQUESTS" --json | sed "$timing" >"$WORK/whole.jsonl"
  instructblip merge --requests "$REQUESTS" "$OUT"/answers-*.jsonl | sed "$timing" >"$WORK/merged.jsonl"
  cmp "$WORK/whole.jsonl" "$WORK/merged.jsonl"
  echo "merged     $(wc -l <"$WORK/merged.jsonl") answers of $SHARDS shards, equal to an undivided run"
}
