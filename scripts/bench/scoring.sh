#!/usr/bin/env bash
# Cloze scoring against lm-evaluation-harness: probes per second with the same result for every probe, in one run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.scoring "$@"
