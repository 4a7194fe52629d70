#!/usr/bin/env bash
# The meta-step against the published algorithm: documents per second, agreement, extra peak memory, in one run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.meta_step "$@"
