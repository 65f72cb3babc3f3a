#!/bin/bash
# Runs answer.sub on an HTCondor of its own, with one worker killed and one held: apt-get install condor; not as root.
source "$(dirname "$0")/common.sh"
trap 'rm -rf "$WORK"' EXIT
if [ "$(id -u)" -eq 0 ]; then echo "HTCondor runs no jobs of root's; run this as another user." >&2 && exit 1; fi

mkdir -p "$WORK"/condor/{execute,lock,log,run,spool}
export CONDOR_CONFIG=$WORK/condor_config
cat >"$CONDOR_CONFIG" <<CONF
# Of the installation only its paths are taken.
include : /etc/condor/condor_config
LOCAL_CONFIG_DIR =
LOCAL_CONFIG_FILE =
LOCAL_DIR = $WORK/condor
EXECUTE = \$(LOCAL_DIR)/execute
LOCK = \$(LOCAL_DIR)/lock
LOG = \$(LOCAL_DIR)/log
RUN = \$(LOCAL_DIR)/run
SPOOL = \$(LOCAL_DIR)/spool
use ROLE : Personal
use FEATURE : PartitionableSlot
use SECURITY : HOST_BASED
NETWORK_INTERFACE = 127.0.0.1
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:16819
SHARED_PORT_PORT = 16819
ALLOW_READ = 127.0.0.1
ALLOW_WRITE = 127.0.0.1
ALLOW_DAEMON = 127.0.0.1
# Two slots that say they have what answer.sub asks for.
NUM_CPUS = 2
MEMORY = 65536
MACHINE_RESOURCE_GPUs = 2
RUNBENCHMARKS = False
# Jobs start, and start again, within seconds.
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 2
CONF
condor_master -f &
master=$!
trap 'kill -QUIT $master && wait $master || true; rm -rf "$WORK"' EXIT
until condor_status -af Name 2>/dev/null | grep -q . && condor_q >"$WORK/queue" 2>&1; do sleep 0.2; done
echo "htcondor   $(condor_version | awk '/CondorVersion/ { print $2 }'), one machine of 2 slots"

cd "$WORK"
job=$(condor_submit -terse MODEL="$MODEL" REQUESTS="$REQUESTS" OUT="$OUT" SHARDS="$SHARDS" "$HERE/answer.sub" | cut -d. -f1)
kill_worker 1
# A job that is held gets SIGTERM, as one that has to leave its machine.
await_answer 2
condor_hold "$job.2" >"$WORK/hold"
until condor_q "$job.2" -af JobStatus | grep -q 5; do sleep 0.2; done
echo "held       job 2 after $(progress 2)"
condor_release "$job.2" >"$WORK/hold"
condor_wait "$OUT/answer.log" >"$WORK/wait"
condor_history "$job" -af ProcId ExitCode NumJobStarts | sort -n | while read -r i code starts; do
  echo "job $i      exit code $code, starts $starts, $(wc -l <"$OUT/answers-$i.jsonl") answers"
done
compare_with_whole
