#!/bin/bash
# A campaign on all cores of this machine, or of several, with GNU parallel:
#   tools/jobs/parallel.sh FIRST..END [SHARDS] [OPTIONS OF `raidlab sim run`]...
# On machines that share this directory: PARALLEL='--sshloginfile hosts --workdir .' tools/jobs/parallel.sh ...
# Results go to campaign/, scenarios of findings to campaign/corpus. Run again, shards that ended are skipped
# (remove campaign/log to begin anew).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 3; }
seeds=$1
shards=${2:-$(nproc)}
shift $(($# < 2 ? $# : 2))
last=$((shards - 1))

mkdir -p campaign/corpus
# A shard with findings ends with 1 and is done all the same: only 3 and 4 count as failed.
seq 0 "$last" | parallel --resume-failed --joblog campaign/log \
    "raidlab sim run -q --seeds $seeds --shard {}/$shards --jobs 1 --corpus campaign/corpus --json $* \
        > campaign/{}.jsonl || [ \$? = 1 ]"

files=()
for shard in $(seq 0 "$last"); do files+=("campaign/$shard.jsonl"); done
exec raidlab sim merge "${files[@]}"
