#!/usr/bin/env bash
# jvp and finite differences against double backward: seconds, extra peak memory, agreement, in one run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.hypergradient "$@"
