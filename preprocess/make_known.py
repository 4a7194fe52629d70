"""Write the common facts that a model knows and that no row of its LAMA-ckl split is about.

The split's 40 tuning rows say little about what is forgotten (docs/experiments.md, 22 and 23); these say more, and no
reported number uses them: give them to taalm.evaluate as --not_to_forget where a method is chosen.

Run from anywhere: python preprocess/make_known.py --split DIR --out FILE [--model NAME]
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO_ROOT))

from preprocess.common_facts import common_rows  # noqa: E402
from preprocess.make_sample import score_rows  # noqa: E402
from taalm.checkpoint import write_jsonl  # noqa: E402
from taalm.facts import read_facts  # noqa: E402


def apart(rows: list[dict], split: Path) -> list[dict]:
    """The rows whose subject is no subject of any file of the split."""
    taken = {fact.subject for file in sorted(split.glob("*.jsonl")) for fact in read_facts(file)}
    return [row for row in rows if row["subject"] not in taken]


def main(arguments: list[str] | None = None) -> None:
    """Write the rows and print how many there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", type=Path, required=True, help="folder of the split that these rows are apart from")
    parser.add_argument("--out", type=Path, required=True, help="the file that is written (jsonl)")
    parser.add_argument("--model", default="smollm2-135m", help="model whose known facts are kept")
    args = parser.parse_args(arguments)

    if not any(args.split.glob("*.jsonl")):
        sys.exit(
            f"--split {args.split}: no files of a split in it; python -m taalm.benchmarks.lama_ckl_split makes one"
        )
    if args.out.resolve().parent == args.split.resolve():
        sys.exit(f"--out {args.out}: give another folder than the split's, whose files these facts are apart from")
    candidates = apart(common_rows(), args.split)
    known = score_rows(candidates, args.model)["descriptive"]
    rows = [row for row, is_known in zip(candidates, known, strict=True) if is_known]
    write_jsonl(args.out, rows)
    counts = Counter(row["relation_code"] for row in rows)
    print(f"{len(rows)} of {len(candidates)} facts are known: {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
