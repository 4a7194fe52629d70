#!/usr/bin/env bash
# Download the published online wiki stream into data/. --base_url takes it from a mirror. A download that was cut goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
exec "$PYTHON" -m taalm.download online_wiki "$@"
