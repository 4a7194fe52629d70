"""The online wiki stream (docs/online_wiki.md): python run.py --config configs/online/wiki/month/smollm2_lora.json."""

import sys

from taalm.config import run_entry
from taalm.run_online import main

if __name__ == "__main__":
    sys.exit(run_entry(main))
