#!/bin/bash
# ./submit.sh                       participant, train, synthesise, evaluate, report, each after the one before
# ./submit.sh synthesise report     these alone
set -e
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./settings.sh
mkdir -p logs
if [ ! -f participants.txt ]; then
  (cd "$BIDS_DIR" && printf '%s\n' sub-*/) | tr -d / >participants.txt
fi
tasks=$((($(wc -l <participants.txt) + ANIMALS_PER_TASK - 1) / ANIMALS_PER_TASK))
array=1-$tasks
stages=("$@")
if [ $# = 0 ]; then stages=(participant train synthesise evaluate report); fi
jobs=()
after=
for stage in "${stages[@]}"; do
  arguments=()
  if [ "$stage" = participant ]; then arguments+=("--array=$array"); fi
  if [ -n "$after" ]; then arguments+=("--dependency=$after" --kill-on-invalid-dep=yes); fi
  job=$(sbatch --parsable "${arguments[@]}" "$stage.sbatch")
  job=${job%%;*} # where there are several clusters, its name follows
  jobs+=("$job")
  echo "$stage: job $job${after:+, $after}"
  after=afterok:$job
  if [ "$stage" = participant ]; then after=afterany:$job; fi # one that fails does not hold the others back
done
echo "to end them all: scancel ${jobs[*]}"
