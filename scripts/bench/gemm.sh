#!/usr/bin/env bash
# The matrix products of an adaptation epoch by themselves against the epoch: the share of the machine's peak.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.gemm "$@"
