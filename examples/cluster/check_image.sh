#!/bin/bash
# Builds the Dockerfile's image and runs it, with one container killed and its command run again. ENGINE=podman is another
# engine than docker.
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT
ENGINE=${ENGINE:-docker}
tag=instructblip:$(node -p "require('$ROOT/package.json').version")
SHARDS=1

mkdir -p "$WORK/context"
(cd "$ROOT" && npm pack --silent --pack-destination "$WORK/context" >"$WORK/packed")
if ! "$ENGINE" build --tag "$tag" --file "$HERE/Dockerfile" "$WORK/context" >"$WORK/build.log" 2>&1; then
  cat "$WORK/build.log" && exit 1
fi
echo "image      $tag, by $("$ENGINE" --version), Node $("$ENGINE" run --rm --entrypoint node "$tag" --version)"
"$ENGINE" run --rm "$tag" devices 2>"$WORK/devices.log" | sed -n 1,2p

make_data
generate=("$ENGINE" run --rm --name instructblip-check -v "$WORK/models:/models:ro" -v "$WORK/data:/data" "$tag"
  generate --model /models/vicuna-7b --requests /data/questions.jsonl --json --out /data/answers-0.jsonl --resume)
"${generate[@]}" 2>"$WORK/first.log" &
await_answer 0
"$ENGINE" kill instructblip-check >"$WORK/killed"
code=0
wait $! || code=$?
echo "killed     container after $(progress 0), exit code $code"
"${generate[@]}" 2>"$WORK/second.log"
compare_with_whole
