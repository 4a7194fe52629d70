#!/usr/bin/env bash
# Train Train-Attention for TemporalWiki, on facts of its probes that no evaluation asks (TAALM_DATA=folder with
# TemporalWiki/eval, wikitext-2 and wikidata). Any field can be given: --outer.steps 100 --seed 1
# PRESET=llama2-7b or tinyllama takes the published settings.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
FACTS="${TWIKI_FACTS:-$ROOT/data/TemporalWiki_stand_in}"
"$PYTHON" -m taalm.benchmarks.temporal_wiki_stand_in --data "${TAALM_DATA:-$ROOT/data}" --out "$FACTS"
exec "${RUN[@]}" taalm.train_ta --data "$FACTS" --out "$ROOT/runs/train_ta/temporalwiki" "$@"
