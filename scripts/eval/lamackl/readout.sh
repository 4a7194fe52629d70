#!/usr/bin/env bash
# LAMA-ckl, targeted with cloze views of theta_0's own words beside phi's and KL replay: what reads most in README's results (docs/method.md, "Cloze views"). The weights of the newest trained phi, else of the released one, or --phi FOLDER. Any field can be given: --adapt.lr 1e-4 --seed 1
# --review.data FILE names the text to hold on to (default: the TA-train documents), --views.questions FILE what views ask (default: what the TA-train facts ask); TAALM_DATA=folder the real rows (default: the sample set).
set -euo pipefail
export PRESET="${PRESET:-smollm2-135m-readout}"
source "$(dirname "${BASH_SOURCE[0]}")/../../env.sh"
exec "${RUN[@]}" taalm.evaluate --method targeted+readout+views+kl --out "$ROOT/results/lamackl" --phi_runs "$ROOT/runs/train_ta/lama_ckl" "$@"
