#!/usr/bin/env bash
# See the whole thing in minutes: set-up, a short training of phi on the sample set, the three adaptations,
# a table in the terminal and a picture of the curves. Results in results/quickstart, the run in runs/quickstart.
# QUICKSTART_TRAIN and QUICKSTART_EVAL add flags to the two stages (the tests shorten them so).
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ -n "${PYTHON:-}" ] || bash "$HERE/setup.sh"
source "$HERE/env.sh"
OUT="${QUICKSTART_OUT:-$ROOT}"
export TAALM_DATA=
read -ra TRAIN <<< "${QUICKSTART_TRAIN:---outer.steps 32 --outer.warm_start 28 --judged 16}"
read -ra EVAL <<< "${QUICKSTART_EVAL:---limit 48 --adapt.epochs 4 --adapt.batch_size 8}"
"$PYTHON" -m taalm.train_ta --out "$OUT/runs/quickstart" --name phi "${TRAIN[@]}"
for method in finetune targeted oracle; do
    "$PYTHON" -m taalm.evaluate --method "$method" --name "$method" --out "$OUT/results/quickstart" \
        --phi "$OUT/runs/quickstart/phi/phi" "${EVAL[@]}"
done
"$PYTHON" -m taalm.results "$OUT/results/quickstart"
"$PYTHON" -m taalm.plots "$OUT/results/quickstart"
