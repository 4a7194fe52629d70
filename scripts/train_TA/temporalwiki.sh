#!/usr/bin/env bash
# Train Train-Attention for TemporalWiki, on facts that no evaluation asks: those of LAMA that the DIFFSETs state, or where
# there are no DIFFSETs (TAALM_DATA=folder with TemporalWiki/eval, wikitext-2 and wikidata) the stand-in's.
# Any field can be given: --outer.steps 100 --seed 1. PRESET=llama2-7b or tinyllama takes the published settings.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
FACTS="$("$PYTHON" -m taalm.benchmarks.temporal_wiki_pairs ${TWIKI_LAMA:+--lama "$TWIKI_LAMA"})"
exec "${RUN[@]}" taalm.train_ta --data "$FACTS" --out "$ROOT/runs/train_ta/temporalwiki" "$@"
