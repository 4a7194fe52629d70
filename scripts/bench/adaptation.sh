#!/usr/bin/env bash
# Adaptation against transformers' Trainer with PEFT: tokens per second at the same loss curve, in one run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -W ignore -m scripts.bench.adaptation "$@"
