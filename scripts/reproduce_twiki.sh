#!/usr/bin/env bash
# TemporalWiki's table of docs/temporal_wiki.md: a phi for each seed, three periods with each method, the table.
# TAALM_DATA=folder names the data. What is finished is not run again; an interrupted run goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
OUT="${OUT:-$ROOT/results/reproduce}"

cell() { # script, name, seed, flags
    bash "$ROOT/scripts/eval/twiki/$1.sh" --out "$OUT/twiki" --name "$2_s$3" --seed "$3" --quiet true "${@:4}"
}

cell finetune nothing 42 --adapt.epochs 0
for seed in 42 43 44; do
    PHI="$OUT/twiki_phi/seed$seed"
    [ -f "$PHI/report.json" ] || bash "$ROOT/scripts/train_TA/temporalwiki.sh" --out "$OUT/twiki_phi" --seed "$seed" --quiet true
    cell targeted targeted "$seed" --phi "$PHI/phi"
    for method in finetune rho review recadam; do
        cell "$method" "$method" "$seed"
    done
done
exec "$PYTHON" -m taalm.period_intervals "$OUT/twiki" --against finetune
