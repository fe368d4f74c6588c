# shellcheck shell=bash disable=SC2034,SC2016
# What the jobs share. Each of them reads this file when it starts.
BIDS_DIR=/data/rats
OUTPUT_DIR=/data/rats-alphagan
IMAGE=/images/bids-alphagan.sif

# Options of bids-alphagan, the same for both levels.
OPTIONS=(--template /templates/SIGMA)
ANIMALS_PER_TASK=1

mkdir -p "$OUTPUT_DIR"
APP=(apptainer run --cleanenv --nv --bind "$BIDS_DIR:$BIDS_DIR:ro" --bind "$OUTPUT_DIR")
for word in "${OPTIONS[@]}"; do # files and folders named there
  if [[ ${word#*=} == /* && -e ${word#*=} ]]; then APP+=(--bind "${word#*=}"); fi
done
if [[ $TEMPLATEFLOW_HOME == /* && -d $TEMPLATEFLOW_HOME ]]; then APP+=(--bind "$TEMPLATEFLOW_HOME"); fi
APP+=("$IMAGE")
# --cleanenv keeps the host's variables out; these must be let in: which GPUs are the job's, and the templates.
for name in CUDA_VISIBLE_DEVICES TEMPLATEFLOW_HOME; do
  if [ -n "${!name}" ]; then export "APPTAINERENV_$name=${!name}"; fi
done

# What Slurm has given to this job: else the app would take the whole machine.
# Flags among OPTIONS win over it; it wins over a --config file that is named there.
LIMITS=()
if [ -n "$SLURM_CPUS_PER_TASK" ]; then LIMITS+=(--nprocs "$SLURM_CPUS_PER_TASK"); fi
if [ "${SLURM_MEM_PER_NODE:-0}" -ge 256 ]; then LIMITS+=(--mem-mb "$SLURM_MEM_PER_NODE"); fi
