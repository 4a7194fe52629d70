# Sourced by every script: where the project lies, its Python, and how runs are started. Works from any folder.
# PROCESSES=8 starts so many processes on this machine (torchrun). LAUNCH is any other launcher, as for eight cards:
# LAUNCH="accelerate launch --config_file configs/accelerate/8x3090.yaml --module"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-$ROOT/.venv/bin/python}"
if [ ! -x "$PYTHON" ] && ! command -v "$PYTHON" > /dev/null; then
    echo "error: no Python at $PYTHON; run \`bash $ROOT/scripts/setup.sh\` first, or set PYTHON" >&2
    exit 2
fi
RUN=("$PYTHON" -m)
[ -z "${PROCESSES:-}" ] || RUN=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$PROCESSES" -m)
[ -z "${LAUNCH:-}" ] || read -ra RUN <<< "$LAUNCH"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export TOKENIZERS_PARALLELISM=false
