#!/usr/bin/env bash
# TemporalWiki's three periods in sequence, qlora_targeted: the weights of the newest trained phi, else of the released one, or --phi FOLDER.
# Any field can be given: --adapt.lr 1e-4; another run (--seed 1) takes another --name. PRESET=llama2-7b or tinyllama takes the published settings.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../env.sh"
exec "${RUN[@]}" taalm.evaluate_twiki --method targeted+qlora --out "$ROOT/results/twiki" --name qlora_targeted \
    --phi_runs "$ROOT/runs/train_ta/temporalwiki" "$@"
