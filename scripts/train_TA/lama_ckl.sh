#!/usr/bin/env bash
# Train Train-Attention on LAMA-ckl. Any field can be given: bash scripts/train_TA/lama_ckl.sh --outer.steps 100
# PRESET=llama2-7b or tinyllama takes the published settings; TAALM_DATA=folder the real rows (default: the sample set).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "${RUN[@]}" taalm.train_ta --out "$ROOT/runs/train_ta/lama_ckl" "$@"
