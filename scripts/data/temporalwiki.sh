#!/usr/bin/env bash
# Download TemporalWiki (DIFFSETs, probes, Wikipedia_Full) into data/; says how to filter them.
# --only TWiki_Probes fetches one archive; --base_url takes them from a mirror. A download that was cut goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
"$PYTHON" -m taalm.download temporalwiki "$@"
echo "now: $PYTHON $ROOT/preprocess/preprocess_temporalwiki_dataset.py (--raw names another folder than data/)"
