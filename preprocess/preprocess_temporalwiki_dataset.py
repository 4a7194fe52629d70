"""Filter TemporalWiki's DIFFSETs and put its probes where the evaluation reads them.

Run from anywhere: python preprocess/preprocess_temporalwiki_dataset.py [--raw DIR] [--out DIR]

Reads  RAW/TWiki_Diffsets/wikipedia_{0910,1011,1112}_gpt2.csv  (a header, the text in the first column) and
       RAW/twiki_probes/{0901-1001,...}_{changed,unchanged}.jsonl;
writes OUT/train/diffset_{0910,1011,1112}_filtered.jsonl  ({text}) and
       OUT/eval/{0901-1001,...}_{changed,unchanged}.jsonl.
A file that is there already is kept; it was written whole or not at all.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

REPO_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO_ROOT))

from taalm.benchmarks.temporal_wiki import PERIODS, SETS, read_triples, why_dropped  # noqa: E402
from taalm.checkpoint import atomic_path, write_jsonl  # noqa: E402
from taalm.errors import UserError  # noqa: E402

csv.field_size_limit(2**31 - 1)  # whole articles stand in one field


def texts(path: Path) -> Iterator[str]:
    """The first column of a DIFFSET, row by row; progress in bytes."""
    with path.open("rb") as raw, tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name) as bar:

        def lines() -> Iterator[str]:
            for number, line in enumerate(raw, 1):
                bar.update(len(line))
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{path}:{number}: not UTF-8 text ({error.reason})") from None

        reader = csv.reader(lines())
        try:
            next(reader, None)  # the header
            for row in reader:
                yield row[0] if row else ""
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not CSV ({error})") from None


def filter_diffset(source: Path, target: Path) -> Counter:
    """Write the kept texts of one DIFFSET; returns how many were kept, and dropped by reason."""
    counts: Counter = Counter()
    with atomic_path(target) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as out:
        for text in texts(source):
            reason = why_dropped(text)
            counts[reason or "kept"] += 1
            if reason is None:
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return counts


def convert_probes(source: Path, target: Path) -> int:
    """Check the probes of one file and write them in one schema; returns how many there are."""
    triples = read_triples(source)
    write_jsonl(target, map(vars, triples))
    return len(triples)


def needed(source: Path) -> Path:
    if not source.is_file():
        raise UserError(f"{source}: no such file; `bash scripts/data/temporalwiki.sh` downloads it")
    return source


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, default=REPO_ROOT / "data", help="where the unpacked archives lie")
    parser.add_argument("--out", type=Path, default=REPO_ROOT / "data" / "TemporalWiki")
    args = parser.parse_args(arguments)
    for period, diffset in PERIODS.items():
        target = args.out / "train" / f"diffset_{diffset}_filtered.jsonl"
        if target.exists():
            print(f"{target.name}: there already")
        else:
            counts = filter_diffset(needed(args.raw / "TWiki_Diffsets" / f"wikipedia_{diffset}_gpt2.csv"), target)
            print(f"{target.name}: " + ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items())))
        for name in SETS:
            probes = args.out / "eval" / f"{period}_{name}.jsonl"
            if probes.exists():
                print(f"{probes.name}: there already")
            else:
                count = convert_probes(needed(args.raw / "twiki_probes" / probes.name), probes)
                print(f"{probes.name}: {count} probes")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
