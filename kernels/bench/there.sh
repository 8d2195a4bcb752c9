#!/usr/bin/env bash
# What scripts/kernel-bench put here, run on the machine with the GPU: ceilings, ops, steps, and torch beside them. Seven
# minutes at most for the first, what is left of eight for the second.
set -uo pipefail
cd "$(dirname "$0")"
{
    echo "date: $(date -u +%F)"
    echo "commit: $(cat commit)"
    echo "binary: $(sha256sum kernel-bench | cut -d' ' -f1)"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
    began=$SECONDS
    timeout 420 ./kernel-bench --seconds 330 "$@"
    echo "kernel-bench ended with $?"
    left=$((470 - SECONDS + began))
    if python3 -c 'import torch, transformers' 2>/dev/null; then
        timeout "$left" python3 torch_peer.py --config config.json
        echo "torch_peer.py ended with $?"
    else
        echo "there is no torch and transformers here: the peer was not run"
    fi
} 2>&1 | tee log.md
