"""LAMA-ckl (TAALM, section 4): which files to read, and every number that is reported."""

import hashlib
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taalm.benchmarks.lama_ckl_split import SplitConfig, default_folder, make_split
from taalm.config import SHIPPED
from taalm.errors import UserError
from taalm.facts import Fact, objects_by_relation, read_facts
from taalm.scoring import ProbeScore

KEPT = 0.95  # the share of NOT-TO-FORGET from which on it counts as kept
SAMPLE = SHIPPED / "data" / "sample" / "lama_ckl"


def given_folder(data: str) -> Path:
    """The folder that is named: `data`, else TAALM_DATA, else the sample set. Raises UserError where there is none."""
    named = data or os.environ.get("TAALM_DATA", "")
    folder = Path(named) if named else SAMPLE
    if not folder.is_dir():
        raise UserError(f"{'--data' if data else 'TAALM_DATA'} {named}: no such folder")
    return folder


def data_folder(data: str, model: str) -> Path:
    """The folder of split files: the given one, or the split of its raw rows (LAMA_ckl/), made at the first use."""
    folder = given_folder(data)
    if (folder / "LAMA_ckl").is_dir():
        return make_split(SplitConfig(data=str(folder), model=model))
    return folder


def facts_file(given: str, folder: Callable[[], Path], name: str) -> list[Fact]:
    """The facts of the file a flag names, else of `name`.jsonl in the data folder."""
    return read_facts(given or folder() / f"{name}.jsonl")


def count_facts(given: str, data: str, model: str, name: str) -> int:
    """How many facts a run would have; for raw rows that are not split yet, the published number (500, 4,166)."""
    folder = given_folder(data)
    if not given and (folder / "LAMA_ckl").is_dir():
        folder = default_folder(model)
        if not (folder / f"{name}.jsonl").is_file():
            return {"to_learn": 500, "ta_train": 4166}[name]
    return len(facts_file(given, lambda: folder, name))


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return statistics.fmean(values) if values else None


def set_metrics(scores: Sequence[ProbeScore], name: str) -> dict[str, float | None]:
    """acc_<name>, em_<name>, ppl_<name> (mean object NLL, as the published files call it) and its exp."""
    nll = mean([score.nll for score in scores])
    return {
        f"acc_{name}": mean([score.accuracy for score in scores]),
        f"em_{name}": mean([float(score.exact_match) for score in scores]),
        f"ppl_{name}": nll,
        f"exp_ppl_{name}": None if nll is None else math.exp(nll) if nll < 700 else math.inf,
    }


def outcomes(facts: Sequence[Fact], scores: Sequence[ProbeScore]) -> dict[str, list[float]]:
    """uuid -> [accuracy, NLL] of every probe."""
    return {f.uuid: [s.accuracy, round(s.nll, 4)] for f, s in zip(facts, scores, strict=True)}


def short_hash(text: str) -> str:
    """Stands for a text in result files, which hold none."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def documents_by_fact(facts: Sequence[Fact]) -> dict[str, str]:
    """uuid -> a short hash of the document; facts of one document have the same."""
    return {fact.uuid: short_hash(fact.evidence) for fact in facts}


def macro_accuracy(facts: Sequence[Fact], accuracy: Mapping[str, float]) -> float | None:
    """Accuracy averaged over (relation, object) pairs: a common answer counts once."""
    groups = defaultdict(list)
    for fact in facts:
        groups[fact.relation_code, fact.object].append(accuracy[fact.uuid])
    return mean([statistics.fmean(group) for group in groups.values()])


def order_strata(facts: Sequence[Fact], accuracy: Mapping[str, float]) -> dict[str, float | None]:
    """Accuracy where the document names the subject first, and where it names the object first."""
    return {
        "subject_first_acc": mean([accuracy[fact.uuid] for fact in facts if not fact.object_first()]),
        "object_first_acc": mean([accuracy[fact.uuid] for fact in facts if fact.object_first()]),
    }


def relation_majority(facts: Sequence[Fact]) -> float:
    """Share of facts answered by their relation's commonest object in this very set, without reading anything."""
    objects = objects_by_relation(facts).values()
    return sum(counter.most_common(1)[0][1] for counter in objects) / len(facts)


def top_epoch(history: Mapping[int, Mapping]) -> int:
    """The epoch that Top Acc is of: the first one with the best TO-LEARN accuracy."""
    return max(history, key=lambda epoch: (history[epoch]["acc_changed"], -epoch))


def summary(history: Mapping[int, Mapping], facts: Sequence[Fact]) -> dict[str, Any]:
    """Top Acc, Epoch, NF Acc, Total Knowledge, and the final values of docs/lama_ckl.md."""
    best = top_epoch(history)
    top, last = history[best], history[max(history)]
    accuracy = {uuid: outcome[0] for uuid, outcome in last["to_learn"].items()}
    return {
        "top_acc": top["acc_changed"],
        "top_epoch": best,
        "nf_acc": top["acc_unchanged"],
        "nf_schematic_acc": top["acc_unchanged_schematic"],
        "total": top["acc_changed"] + top["acc_unchanged"],
        "final_acc": last["acc_changed"],
        "final_nf_acc": last["acc_unchanged"],
        "final_total": last["acc_changed"] + last["acc_unchanged"],
        "best_total": max(entry["acc_changed"] + entry["acc_unchanged"] for entry in history.values()),
        "kept_acc": max((e["acc_changed"] for e in history.values() if e["acc_unchanged"] >= KEPT), default=None),
        "macro_acc": macro_accuracy(facts, accuracy),
        **order_strata(facts, accuracy),
    }


def framing(history: Mapping[int, Mapping], facts: Sequence[Fact]) -> dict[str, dict]:
    """The rows that frame every table: the model as it was, and the relations' commonest objects."""
    before = history[0]
    return {
        "do-nothing": {
            "top_acc": before["acc_changed"],
            "nf_acc": before["acc_unchanged"],
            "nf_schematic_acc": before["acc_unchanged_schematic"],
            "total": before["acc_changed"] + before["acc_unchanged"],
        },
        "relation-majority": {"top_acc": relation_majority(facts)},
    }


def read_knowledge(halves: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Accuracy on adapted facts minus accuracy on facts of the half whose documents were not seen, averaged over both.

    Each half has its `facts` (uuids) and the `eval_result` of adapting to them alone, whose final epoch counts.
    """
    seen, unseen, kept = [], [], []
    for half in halves:
        part, last = set(half["facts"]), half["eval_result"][max(half["eval_result"])]
        seen.append(mean([accuracy for uuid, (accuracy, _) in last["to_learn"].items() if uuid in part]))
        unseen.append(mean([accuracy for uuid, (accuracy, _) in last["to_learn"].items() if uuid not in part]))
        kept.append(last["acc_unchanged"])
    return {
        "adapted_acc": None if None in seen else mean(seen),
        "unseen_acc": None if None in unseen else mean(unseen),
        "read_knowledge": None if None in (*seen, *unseen) else mean(seen) - mean(unseen),
        "halves_nf_acc": None if None in kept else mean(kept),
    }
