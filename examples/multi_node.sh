#!/bin/sh
# One training on several machines without a queue: the same line on each of them, in any order.
#
#   FIRST=node0 NODES=2 sh examples/multi_node.sh /share/photographs --arch resnet50 --epochs 90
#   FIRST=node0 NODES=2 sh examples/multi_node.sh --resume /share/runs/resnet50
#
# FIRST is any one of them, reached by all at PORT. By ssh, from one of them:
#
#   for node in node0 node1; do
#       ssh "$node" "cd $PWD && FIRST=node0 NODES=2 sh examples/multi_node.sh /share/photographs" &
#   done; wait
#
# --batch-size is of all GPUs together. Photographs and DR_RUNS must lie where all machines see them;
# the cache may lie on each one's own disk. A process that dies is started again with all others,
# RESTARTS times, from the last checkpoint. PROCESSES a machine: by default one a GPU.
set -eu
# A new store each time that processes are started again: in the old one stands what the dead left.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
: "${FIRST:?the name of one of the machines}" "${NODES:?how many machines}"
exec "${DR_PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NODES" --nproc-per-node "${PROCESSES:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "$FIRST:${PORT:-29500}" --rdzv-id "${JOB:-dr}" \
    --max-restarts "${RESTARTS:-3}" \
    -m -- dr_cli train "$@"
