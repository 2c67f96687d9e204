#!/bin/bash
# One daemon on each node, which the ranks of that node share. Each node plays the same stream
# from another seed, so nodes do not show the same patches at the same time.
#
#SBATCH --job-name=chunkdl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=120G
#SBATCH --time=24:00:00

set -euo pipefail

folder=$SLURM_SUBMIT_DIR            # service.toml, cohort.csv and train.py, on a shared file system
sockets=/tmp/chunkdl-$SLURM_JOB_ID  # short, on each node, of this job
seed=1
export folder sockets seed

# --overlap: beside the ranks, on the same cores. srun forwards SIGTERM to the daemons.
srun --overlap --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" bash -c '
    # One that somebody else has made there is refused, by the daemon and by the ranks.
    mkdir -m 700 -p "$sockets"
    config=$folder/service.$SLURM_JOB_ID.$SLURM_NODEID.toml
    sed "s/^seed = .*/seed = $((seed + SLURM_NODEID))/; s/^journal = .*//" \
        "$folder/service.toml" > "$config"
    # For people: "srun --overlap -w NODE chunkdl ctl ADDRESS status" asks it.
    echo "$(hostname) ipc://$sockets/service" > "$folder/address.$SLURM_JOB_ID.$SLURM_NODEID"
    exec chunkdl serve "$config" --bind "ipc://$sockets/service"
' &
daemons=$!

end() {
    kill -TERM "$daemons" 2>/dev/null || true
    wait "$daemons" || true
    rm -f "$folder"/{service,address}."$SLURM_JOB_ID".*
}
trap end EXIT

# train.py: chunkdl.connect(address, rank=int(os.environ["SLURM_LOCALID"]), world_size=4)
# It waits for its daemon by itself.
srun --overlap python "$folder/train.py" "ipc://$sockets/service"
