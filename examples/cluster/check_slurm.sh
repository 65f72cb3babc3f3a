#!/bin/bash
# Runs array.sbatch on a Slurm of its own, with one worker killed: apt-get install slurm-wlm munge; as root.
source "$(dirname "$0")/common.sh"
host=$(hostname -s)

stop() {
  local file pid
  for file in "$WORK"/slurmd.pid "$WORK"/slurmctld.pid "$WORK"/munged.pid; do
    pid=$(cat "$file") && kill "$pid" || continue
    while kill -0 "$pid"; do sleep 0.1; done
  done 2>/dev/null
  rm -rf "$WORK"
}
trap stop EXIT

mkdir "$WORK"/{state,spool}
dd if=/dev/urandom of="$WORK/munge.key" bs=1024 count=1 status=none
chmod 400 "$WORK/munge.key"
munged --force --key-file="$WORK/munge.key" --socket="$WORK/munge.socket" --seed-file="$WORK/munge.seed" \
  --pid-file="$WORK/munged.pid" --log-file="$WORK/munged.log" 2>"$WORK/munged.err"
cat >"$WORK/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=16817
SlurmdPort=16818
# A job that is requeued starts after cred_expire seconds, else after two minutes.
AuthInfo=socket=$WORK/munge.socket,cred_expire=5
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
export SLURM_CONF=$WORK/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
until sinfo -h -o %T | grep -q idle; do sleep 0.2; done
echo "slurm      $(sinfo --version | cut -d' ' -f2), one node of 2 slots"

job=$(cd "$WORK" && sbatch --parsable --array=0-$((SHARDS - 1)) "$HERE/array.sbatch")
kill_worker 1
while squeue -h -j "$job" | grep -q .; do sleep 0.5; done
for ((i = 0; i < SHARDS; i++)); do
  id=$(scontrol show job "${job}_$i")
  field() { grep -o "$1=[^ ]*" <<<"$id" | cut -d= -f2; }
  echo "task $i     $(field JobState), exit code $(field ExitCode), restarts $(field Restarts), $(wc -l <"$OUT/answers-$i.jsonl") answers"
done
compare_with_whole
