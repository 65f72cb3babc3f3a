#!/bin/bash
# Runs job.yaml on the cluster that kubectl finds, with one pod killed. The cluster is of one node, this machine,
# and has the image of check_image.sh: kind load docker-image, or ctr --namespace k8s.io images import.
source "$(dirname "$0")/common.sh"
SPACE=instructblip-check
SHARDS=8
kube() { kubectl --namespace "$SPACE" "$@"; }
clean() {
  kubectl delete --ignore-not-found "namespace/$SPACE" "pv/$SPACE-models" "pv/$SPACE-data" >"$WORK/deleted"
  rm -rf "$WORK"
}
trap clean EXIT

make_data
node=$(kubectl get nodes -o name)
# Two GPUs, by name: so at most two pods are run at a time.
gpus='{"status": {"capacity": {"nvidia.com/gpu": "2"}}}'
kubectl patch "$node" --subresource=status --type=merge -p "$gpus" >"$WORK/patched"
volume() {
  cat <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: $SPACE-$1}
spec:
  accessModes: [ReadWriteMany]
  capacity: {storage: 1Gi}
  claimRef: {namespace: $SPACE, name: $1}
  hostPath: {path: $WORK/$1}
  storageClassName: ""
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1, namespace: $SPACE}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 1Gi}}
  storageClassName: ""
  volumeName: $SPACE-$1
---
YAML
}
kubectl create namespace "$SPACE" >"$WORK/created"
{ volume models && volume data; } | kubectl create -f - >>"$WORK/created"
kube create --validate=strict --dry-run=server -f "$HERE/job.yaml" >"$WORK/valid"
version=$(kubectl get "$node" -o jsonpath='{.status.nodeInfo.kubeletVersion}')
echo "kubernetes $version, one node; job.yaml is valid"
sed 's/memory: 32Gi/memory: 2Gi/' "$HERE/job.yaml" | kube create -f - >>"$WORK/created"

# The pods of an index. @1 the index @2 what is read of each
pods() {
  kube get pods --sort-by=.metadata.creationTimestamp -l "batch.kubernetes.io/job-completion-index=$1" \
    -o jsonpath="{range .items[*]}{$2}{\"\\n\"}{end}"
}
await_answer 1
container=$(pods 1 '.status.containerStatuses[0].containerID')
grep -l "${container#*://}" /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3 | xargs kill -KILL
echo "killed     pod of index 1 after $(progress 1)"
kube wait --for=condition=complete --timeout=20m job/instructblip >"$WORK/complete"
for ((i = 0; i < SHARDS; i++)); do
  codes=$(pods "$i" '.status.containerStatuses[0].state.terminated.exitCode' | xargs)
  echo "index $i    exit codes of its pods: $codes, $(wc -l <"$OUT/answers-$i.jsonl") answers"
done
compare_with_whole
