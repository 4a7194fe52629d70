#!/usr/bin/env bash
# LAMA-ckl, targeted: the weights of the newest trained phi, else of the released one, or --phi FOLDER. Any field can be given: --adapt.lr 1e-4 --seed 1
# PRESET=llama2-7b or tinyllama takes the published settings; TAALM_DATA=folder the real rows (default: the sample set).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../env.sh"
exec "${RUN[@]}" taalm.evaluate --method targeted --out "$ROOT/results/lamackl" --phi_runs "$ROOT/runs/train_ta/lama_ckl" "$@"
