"""Write the sample data set: invented facts to learn and common facts that a model knows already.

Run from anywhere: python preprocess/make_sample.py [--out DIR] [--model NAME] [--seed N]
"""

import argparse
import math
import random
import sys
from collections import Counter
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO_ROOT))

from preprocess.common_facts import common_rows  # noqa: E402
from preprocess.sample_facts import invented_rows  # noqa: E402
from taalm.checkpoint import write_jsonl  # noqa: E402

FORMS = ("descriptive", "schematic")
DESCRIPTIVE_ROWS, TUNE_ROWS, SCHEMATIC_ROWS = 70, 30, 70


def pick_rows(rows: list[dict], count: int, seed: int) -> list[dict]:
    """Pick up to `count` rows, relation by relation in turn, at most a quarter from each.

    Of two rows that pair the same two names (a capital and its country) only one is picked.
    """
    rng = random.Random(seed)
    queues: dict[str, list[dict]] = {}
    for row in rng.sample(rows, len(rows)):
        queues.setdefault(row["relation_code"], []).append(row)
    cap = math.ceil(count / 4)
    picked: list[dict] = []
    pairs: set[frozenset[str]] = set()
    taken = Counter()
    while any(queues.values()) and len(picked) < count:
        for code in sorted(queues):
            while queues[code] and len(picked) < count and taken[code] < cap:
                row = queues[code].pop()
                pair = frozenset((row["subject"], row["object"]))
                if pair not in pairs:
                    pairs.add(pair)
                    picked.append(row)
                    taken[code] += 1
                    break
            if taken[code] == cap:
                queues[code] = []
    rng.shuffle(picked)
    return picked


def without(rows: list[dict], used: list[dict]) -> list[dict]:
    """Return the rows that pair no two names paired in `used`."""
    pairs = {frozenset((row["subject"], row["object"])) for row in used}
    return [row for row in rows if frozenset((row["subject"], row["object"])) not in pairs]


def known_files(rows: list[dict], known: dict[str, list[bool]], seed: int) -> dict[str, list[dict]]:
    """Choose the rows of the not-to-forget files; `known` says per form which rows the model answers."""
    answered = {form: [row for row, is_known in zip(rows, known[form], strict=True) if is_known] for form in FORMS}
    descriptive = pick_rows(answered["descriptive"], DESCRIPTIVE_ROWS, seed)
    tune = pick_rows(without(answered["descriptive"], descriptive), TUNE_ROWS, seed + 1)
    schematic = pick_rows(without(answered["schematic"], tune), SCHEMATIC_ROWS, seed + 2)
    return {
        "not_to_forget_descriptive": descriptive,
        "tune_not_to_forget": tune,
        "not_to_forget_schematic": schematic,
    }


def score_rows(rows: list[dict], model_name: str) -> dict[str, list[bool]]:
    """Ask the model every row in both forms, fill in the rows' scores, and say which it answers."""
    from taalm.facts import fact_from_row
    from taalm.models.base import load_model
    from taalm.scoring import score_facts

    model, tokenizer = load_model(model_name)
    facts = [fact_from_row(row, where="make_sample.py") for row in rows]
    known = {}
    for form in FORMS:
        scores = score_facts(model, tokenizer, facts, form=form)
        known[form] = [score.exact_match for score in scores]
        for row, score in zip(rows, scores, strict=True):
            row["scores"][form] = {model_name: round(score.accuracy, 6)}
    return known


def main() -> None:
    """Write every file of the sample and print how many rows each holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPO_ROOT / "data" / "sample" / "lama_ckl")
    parser.add_argument("--model", default="smollm2-135m", help="model whose known facts are kept")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    candidates = common_rows()
    known = score_rows(candidates, args.model)
    known_rows = known_files(candidates, known, args.seed)
    for name, wanted in (("not_to_forget_descriptive", DESCRIPTIVE_ROWS), ("tune_not_to_forget", TUNE_ROWS)):
        if len(known_rows[name]) < wanted:
            sys.exit(f"{args.model} knows too few common facts: {name} got {len(known_rows[name])} of {wanted}")
    files = invented_rows(args.seed) | known_rows
    for name, rows in files.items():
        write_jsonl(args.out / f"{name}.jsonl", rows)
        counts = Counter(row["relation_code"] for row in rows)
        print(f"{name}: {len(rows)} rows, {dict(sorted(counts.items()))}")
    print(f"known of {len(candidates)} candidates: " + str({form: sum(known[form]) for form in FORMS}))


if __name__ == "__main__":
    main()
