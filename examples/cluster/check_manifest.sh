#!/bin/bash
# What can be checked without a cluster: job.yaml by Kubernetes' types and schemas, and its container's arguments by running
# them here, as its pods do, with one worker killed. The retry is this script's, by the manifest's rules.
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT

npm install --silent --no-audit --no-fund --prefix "$WORK/npm" kubernetes-types@1.30 kubernetes-models@4 yaml@2 typescript@5
cat >"$WORK/npm/read.cjs" <<'JS'
const { readFileSync, writeFileSync } = require("node:fs");
const job = require("yaml").parse(readFileSync(process.argv[2], "utf8"));
new (require("kubernetes-models/batch/v1").Job)(job).validate(); // does not see unknown fields, as the types do
const types = 'import type { Job } from "kubernetes-types/batch/v1";\nexport const job: Job = ';
writeFileSync("job.ts", `${types}${JSON.stringify(job, null, 2)};\n`);
const { completions, podFailurePolicy, template } = job.spec;
const final = podFailurePolicy.rules.find(({ action }) => action === "FailIndex").onExitCodes.values;
console.log([completions, final.join(","), ...template.spec.containers[0].args].join("\n"));
JS
cd "$WORK/npm"
mapfile -t job < <(node read.cjs "$HERE/job.yaml")
npx tsc --noEmit --strict --skipLibCheck --moduleResolution node --module commonjs job.ts
version() { node -p "require('$1/package.json').version"; }
echo "job.yaml   fits kubernetes-types $(version kubernetes-types) and kubernetes-models $(version kubernetes-models)"
SHARDS=${job[0]}
final=,${job[1]},
args=("${job[@]:2}")
args=("${args[@]//\/models\/vicuna-7b/$MODEL}")
args=("${args[@]//\/data\//$WORK/}")

pod() {
  export JOB_COMPLETION_INDEX=$1
  local code
  for try in 1 2 3 4 5 6; do
    code=0
    instructblip "${args[@]//'$(JOB_COMPLETION_INDEX)'/$1}" 2>>"$WORK/pod-$1.log" || code=$?
    [[ $code -eq 0 || $final == *,$code,* ]] && break
  done
  echo "index $1    $try pods, exit code $code"
}
kill_worker 1 &
for ((i = 0; i < SHARDS; i += 2)); do
  pod $i &
  first=$!
  pod $((i + 1)) 2>/dev/null
  wait $first
done
wait
compare_with_whole
