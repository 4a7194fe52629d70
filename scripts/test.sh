#!/usr/bin/env bash
# Set-up, lint and tests, a file at a time in each of two processes. `--slow` adds the slow tests; other arguments go to
# pytest: `-n 0` runs all in one process.
# TAALM_DATA=folder runs the tests on the real rows too (default: ../shared/data where it exists).
set -euo pipefail
bash "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ROOT"
[ -n "${TAALM_DATA:-}" ] || [ ! -d ../shared/data ] || export TAALM_DATA="$PWD/../shared/data"
marks="not slow and not gpu"
if [ "${1:-}" = "--slow" ]; then
    marks="not gpu"
    shift
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Nothing here is compiled by torch, but bitsandbytes loads the compiler in every process that it is not switched off in:
# a second of the 5.5 that a command takes to start. The models are tiny: a second thread only waits for the first.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TORCHDYNAMO_DISABLE="${TORCHDYNAMO_DISABLE:-1}"
exec "$PYTHON" -m pytest -n 2 --dist loadscope -m "$marks" "$@"
