#!/bin/bash
# ./submit.sh                       participant, train, synthesise, evaluate, report, each after the one before
# ./submit.sh synthesise report     these alone
set -e
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./settings.sh
if [[ $(pwd -P) == *[%\\]* ]]; then
  echo "$(pwd -P): Slurm takes % and \\ in the place of its logs for patterns. Use another folder." >&2
  exit 2
fi
mkdir -p logs
if [ ! -s participants.txt ]; then
  shopt -s nullglob
  animals=("$BIDS_DIR"/sub-*/)
  if [ -z "${animals[*]}" ]; then
    echo "BIDS_DIR=$BIDS_DIR: there are no sub-* folders" >&2
    exit 2
  fi
  printf '%s\n' "${animals[@]#"$BIDS_DIR"/}" | tr -d / >participants.new
  mv participants.new participants.txt
fi
tasks=$((($(grep -c '' participants.txt) + ANIMALS_PER_TASK - 1) / ANIMALS_PER_TASK))
array=1-$tasks
stages=("$@")
if [ $# = 0 ]; then stages=(participant train synthesise evaluate report); fi
jobs=()
after=
cancel() { # what cannot be queued whole is not to begin
  if [ -z "${jobs[*]}" ]; then return; fi
  echo "not all could be queued, and what was is cancelled: scancel ${jobs[*]}" >&2
  scancel "${jobs[@]}"
}
trap cancel EXIT
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
trap - EXIT
echo "to end them all: scancel ${jobs[*]}"
