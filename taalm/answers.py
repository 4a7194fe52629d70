"""How much of a result is common answers: `python -m taalm.answers docs/results/final --against finetune`.

Right answers come in blocks: most are a few objects that many facts of a relation share, and that TA-train's facts of
the relation have too. Two tables tell what that hides. The first has each method's accuracy on facts whose answer
TA-train has for the relation and on the others, beside a guesser that reads no document: it gives every fact TA-train's
commonest answer of the relation and leaves the known facts alone. The second is taalm.intervals' with (relation,
answer) pairs drawn in place of documents: what other answers would have shown.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from taalm.benchmarks.lama_ckl import data_folder
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.facts import Fact, read_facts
from taalm.intervals import comparing_parser, last_entry, markdown, table
from taalm.results import Result, by_seed, chosen, frame, some_results

GUESSER = "TA-train's commonest answer"


def asked_facts(results: Mapping[str, Result], facts: Sequence[Fact], where: str) -> list[Fact]:
    """The facts that the results were asked. Raises UserError where `facts`, of the file `where`, lack one."""
    known = {fact.uuid: fact for fact in facts}
    name, result = next(iter(results.items()))
    entry = last_entry(result)
    if "to_learn" not in entry:
        raise UserError(f"{name}: no result of LAMA-ckl (python -m taalm.evaluate); it has no outcomes by fact")
    lacking = [uuid for uuid in entry["to_learn"] if uuid not in known]
    if lacking:
        raise UserError(
            f"{name}: its fact {lacking[0]} is not in {where}; give their folder (--data) or file (--to_learn)"
        )
    return [known[uuid] for uuid in entry["to_learn"]]


def answers_of(train: Sequence[Fact]) -> dict[str, Counter[str]]:
    """relation -> how often TA-train's facts have which object."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for fact in train:
        found[fact.relation_code][fact.object] += 1
    return found


def shares(results: Mapping[str, Result], facts: Sequence[Fact], train: Sequence[Fact]) -> str:
    """The first table: accuracy on all facts, on those whose answer TA-train has, on the others; seed by seed."""
    known = answers_of(train)
    seen = np.array([fact.object in known[fact.relation_code] for fact in facts])
    commonest = {relation: counts.most_common(1)[0][0] for relation, counts in known.items() if counts}
    guessed = np.array([float(commonest.get(fact.relation_code) == fact.object) for fact in facts])

    def parts(outcomes: np.ndarray) -> list[str]:  # of (seeds, facts)
        return [
            ", ".join(f"{row[chosen].mean():.3f}" for row in outcomes) if chosen.any() else ""
            for chosen in (seen, ~seen)
        ]

    rows = []
    for name, seeds in by_seed(results).items():
        entries = [last_entry(result) for result in seeds.values()]
        learned = np.array([[entry["to_learn"][fact.uuid][0] for fact in facts] for entry in entries])
        kept = np.array([[outcome[0] for outcome in entry["not_to_forget"].values()] for entry in entries])
        rows.append((learned.mean() + kept.mean(), [name, f"{learned.mean():.3f}", *parts(learned)]))
    kept = frame(results, "do-nothing").get("nf_acc") or 0.0
    rows.append((guessed.mean() + kept, [GUESSER, f"{guessed.mean():.3f}", *parts(guessed[None])]))
    titles = ["method", "TO-LEARN", f"answer in TA-train ({seen.sum()})", f"not in it ({(~seen).sum()})", "final Total"]
    return markdown(titles, [[*row, f"{total:.3f}"] for total, row in sorted(rows, key=lambda row: -row[0])])


def main(arguments: list[str]) -> None:
    parser = comparing_parser("answers", "How much of a result is its relations' common answers.")
    parser.add_argument("--only", default="", help="some of the methods, joined by commas")
    parser.add_argument(
        "--data", default="", help="folder of the split or of raw rows; default TAALM_DATA, else the sample set"
    )
    parser.add_argument("--model", default="smollm2-135m", help="the model that raw rows are split for")
    parser.add_argument("--to_learn", default="", help="file of the facts asked; default to_learn.jsonl of the data")
    given = parser.parse_args(arguments)
    results = chosen(some_results(given.folder), given.only)
    folder = data_folder(given.data, given.model)
    where = given.to_learn or str(folder / "to_learn.jsonl")
    facts = asked_facts(results, read_facts(where), where)
    print(shares(results, facts, read_facts(folder / "ta_train.jsonl")))
    groups = {fact.uuid: f"{fact.relation_code} {fact.object}" for fact in facts}
    print(f"\n{len(set(groups.values()))} answers of {len(facts)} facts, drawn with all their facts:\n")
    print(table(results, given.against, groups))


if __name__ == "__main__":
    sys.exit(run_entry(main))
