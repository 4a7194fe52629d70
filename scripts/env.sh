# Sourced by every script: where the project lies, and its Python. Works from any folder.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-$ROOT/.venv/bin/python}"
if [ ! -x "$PYTHON" ] && ! command -v "$PYTHON" > /dev/null; then
    echo "error: no Python at $PYTHON; run \`bash $ROOT/scripts/setup.sh\` first, or set PYTHON" >&2
    exit 2
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export TOKENIZERS_PARALLELISM=false
