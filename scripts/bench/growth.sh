#!/usr/bin/env bash
# How a meta-step grows with documents, tokens, K, adapter rank and model size.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.growth "$@"
