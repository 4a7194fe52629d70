"""How much of a result is common answers: `python -m taalm.answers docs/results/final --against finetune`.

Right answers come in blocks: most are a few objects that many facts of a relation share, and that TA-train's facts of
the relation have too. Two tables tell what that hides. The first has each method's accuracy on facts whose answer
TA-train has for the relation and on the others, beside a guesser that reads no document: it gives every fact TA-train's
commonest answer of the relation and leaves the known facts alone. The second is taalm.intervals' with (relation,
answer) pairs drawn in place of documents: what other answers would have shown. --by relation (answer, or wording of
the probe) adds each method's accuracy on every relation's facts, those to learn and those to keep, and how many of
these have a relation (answer, wording) that TA-train has too.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from taalm.asking import question_of
from taalm.benchmarks.lama_ckl import data_folder
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.facts import Fact, objects_by_relation, read_facts
from taalm.intervals import Method, comparing_parser, markdown, methods, table
from taalm.results import add_only, chosen, frame, some_results

GUESSER = "TA-train's commonest answer"


def asked_facts(name: str, asked: Sequence[str], facts: Sequence[Fact], where: str) -> list[Fact]:
    """The facts that the result `name` was asked. Raises UserError where `facts`, of the file `where`, lack one."""
    known = {fact.uuid: fact for fact in facts}
    lacking = [uuid for uuid in asked if uuid not in known]
    if lacking:
        raise UserError(
            f"{name}: its fact {lacking[0]} is not in {where}; give their folder (--data) or "
            "file (--to_learn, --not_to_forget)"
        )
    return [known[uuid] for uuid in asked]


def _seed_means(accuracies: np.ndarray, part: np.ndarray) -> str:
    """The mean accuracy of every seed, (seeds, facts), on the facts where `part` holds; "" where it holds for none."""
    return ", ".join(f"{row[part].mean():.3f}" for row in accuracies) if part.any() else ""


def shares(found: Mapping[str, Method], kept: float, facts: Sequence[Fact], train: Sequence[Fact]) -> str:
    """The first table: accuracy on all facts, on those whose answer TA-train has, on the others; seed by seed.

    `facts` as the methods' columns have them, `kept` the accuracy on the known facts of a model that is left alone.
    """
    answers = objects_by_relation(train)
    commonest = {relation: counts.most_common(1)[0][0] for relation, counts in answers.items()}
    seen = np.array([fact.object in answers.get(fact.relation_code, ()) for fact in facts])
    guessed = np.array([[float(commonest.get(fact.relation_code) == fact.object) for fact in facts]])

    rows = []
    for name, method in (*found.items(), (GUESSER, Method((0,), guessed, np.array([[kept]])))):
        parts = (_seed_means(method.learned, part) for part in (seen, ~seen))
        rows.append((method.total, [name, f"{method.learned.mean():.3f}", *parts, f"{method.total:.3f}"]))
    titles = ["method", "TO-LEARN", f"answer in TA-train ({seen.sum()})", f"not in it ({(~seen).sum()})", "final Total"]
    return markdown(titles, [row for _, row in sorted(rows, key=lambda row: -row[0])])


GROUPS = {
    "relation": lambda fact: f"{fact.relation_code} {fact.relation_label}",
    "answer": lambda fact: f"{fact.relation_code} {fact.object}",
    "wording": lambda fact: question_of(fact) or "no subject before the object",
}


def by_group(accuracies: Mapping[str, np.ndarray], groups: Sequence[str]) -> str:
    """Accuracy on the facts of each group, the largest first; `accuracies` are (seeds, facts), shown seed by seed."""
    rows = []
    for group, count in Counter(groups).most_common():
        part = np.array([name == group for name in groups])
        rows.append([group, str(count), *(_seed_means(values, part) for values in accuracies.values())])
    return markdown(["", "facts", *accuracies], rows)


def main(arguments: list[str]) -> None:
    parser = comparing_parser("answers", "How much of a result is its relations' common answers.")
    add_only(parser)
    parser.add_argument(
        "--data", default="", help="folder of the split or of raw rows; default TAALM_DATA, else the sample set"
    )
    parser.add_argument("--model", default="smollm2-135m", help="the model that raw rows are split for")
    parser.add_argument("--to_learn", default="", help="file of the facts asked; default to_learn.jsonl of the data")
    parser.add_argument("--not_to_forget", default="", help="file of the known facts asked, for --by")
    parser.add_argument("--by", choices=GROUPS, help="also accuracy by relation, relation and answer, or wording")
    given = parser.parse_args(arguments)
    results = chosen(some_results(given.folder), given.only)
    folder = data_folder(given.data, given.model)
    found, asked, known = methods(results, groups={})  # every fact by itself
    first = next(iter(results))

    def facts_of(uuids: Sequence[str], file: str, name: str) -> list[Fact]:
        where = file or str(folder / f"{name}.jsonl")
        return asked_facts(first, uuids, read_facts(where), where)

    facts = facts_of(asked, given.to_learn, "to_learn")
    kept = frame(results, "do-nothing").get("nf_acc") or 0.0
    train = read_facts(folder / "ta_train.jsonl")
    print(shares(found, kept, facts, train))
    groups = {fact.uuid: GROUPS["answer"](fact) for fact in facts}
    print(f"\n{len(set(groups.values()))} answers of {len(facts)} facts, drawn with all their facts:\n")
    print(table(results, given.against, groups))
    if given.by:
        known_facts = facts_of(known, given.not_to_forget, "not_to_forget_descriptive")
        learned = {name: method.learned for name, method in found.items()}
        kept_by = {name: method.kept for name, method in found.items()}
        trained = {GROUPS[given.by](fact) for fact in train}
        for title, some, accuracies in (("TO-LEARN", facts, learned), ("NOT-TO-FORGET", known_facts, kept_by)):
            named = [GROUPS[given.by](fact) for fact in some]
            shared = sum(group in trained for group in named)
            print(f"\n{title} by {given.by} ({shared} of {len(some)} facts have one of TA-train's {len(trained)}):\n")
            print(by_group(accuracies, named))


if __name__ == "__main__":
    sys.exit(run_entry(main))
