#!/usr/bin/env bash
# Train Train-Attention for the online wiki stream, on the facts beside it (ta/, made by preprocess/make_online_stream.py;
# without a stream of your own the sample's). Any field can be given: --outer.steps 100. PRESET=t5-base trains T5's phi.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
FACTS="$ROOT/data/online_wiki/ta"
[ -d "$FACTS" ] || FACTS="$ROOT/data/sample/online_wiki/ta"
exec "${RUN[@]}" taalm.train_ta --data "$FACTS" --objective.form descriptive --ends true \
    --out "$ROOT/runs/train_ta/online_wiki/${PRESET:-smollm2-135m}" "$@"
