#!/bin/sh
# A sweep in simulated time as an array of SLURM: each task makes every eighth run.
#
#   sbatch deploy/simulation/slurm.sh scenarios/deadline-sweep.toml
#   p2pfaas bench report results/part-*
#SBATCH --job-name=p2pfaas-simulation
#SBATCH --array=1-8
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
set -eu
mkdir -p results
exec p2pfaas bench simulate "$1" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" \
    --output "results/part-$SLURM_ARRAY_TASK_ID"
