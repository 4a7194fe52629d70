#!/usr/bin/env bash
# The grid of docs/protocol.md, cell by cell, resumable: choose every method's parameters on the tuning rows, then report.
# TAALM_DATA=folder names the real rows (default: the sample set). --rows finetune,targeted,oracle and --seeds 42 take some; --kind balanced reports to_learn_balanced, --kind ablations phi's ablations on the tuning rows.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "${RUN[@]}" taalm.reproduce --out "$ROOT/results/reproduce" "$@"
