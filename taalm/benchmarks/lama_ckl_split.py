"""The LAMA-ckl split tailored to one model (docs/lama_ckl.md): `python -m taalm.benchmarks.lama_ckl_split --data DIR`.

From the published rows (LAMA_ckl/variant.jsonl, invariant_descriptive.jsonl, invariant_schematic.jsonl) it takes
- TO-LEARN: variant rows on which the model has accuracy 0 in both forms, split by a hash of the document into
  reported rows, tuning rows and rows for TA-train; `to_learn_balanced` has no answer of a relation over three times;
- NOT-TO-FORGET: invariant rows that the model completes, by form; 40 of the descriptive ones are for tuning;
- TA-train: the variant rows set apart for it and the invariant rows with accuracy 0 in both forms, less every row
  that shares a document or a subject with any row that is evaluated. `ta_train_cross` leaves the variant rows out.
Scores are computed in float32, so that every machine makes the same split.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from taalm import processes
from taalm.checkpoint import write_jsonl, write_text
from taalm.config import ROOT, parse, run_entry
from taalm.errors import UserError
from taalm.facts import FORMS, Fact, read_facts
from taalm.models.base import load_model
from taalm.models.precision import keep_freed_memory
from taalm.scoring import score_facts

RAW = ("variant", "invariant_descriptive", "invariant_schematic")
TUNING_TO_LEARN, TA_TRAIN_VARIANT, TUNING_KNOWN = 60, 100, 40
SUMMARY = "split.json"
FORMAT = 3  # a split made by other rules than these is made anew


@dataclass
class SplitConfig:
    """Split the published LAMA-ckl rows for one model."""

    data: str = ""
    """The folder with LAMA_ckl/ in it."""
    model: str = "smollm2-135m"
    """The model that the rows are scored with: packaged name, folder or hub id."""
    out: str = ""
    """Where the files go; default data/lama_ckl/<model> under the project."""
    device: str = "auto"
    """cpu, cuda, ..."""


def document_hash(fact: Fact) -> str:
    return hashlib.sha256(fact.evidence.encode()).hexdigest()


def split(rows: dict[str, Sequence[Fact]], accuracy: dict[str, dict[str, float]]) -> dict[str, list[Fact]]:
    """The files of the split: `rows` by raw file name, `accuracy[form][uuid]` by the model. Deterministic.

    Rows that share a document go the same way, so no document is in two of the files that must be apart.
    """

    def unknown(fact: Fact) -> bool:
        return all(accuracy[form][fact.uuid] == 0 for form in FORMS)

    def ordered(facts: Iterable[Fact]) -> list[Fact]:
        return sorted(facts, key=lambda fact: (document_hash(fact), fact.uuid))

    variant = ordered(filter(unknown, rows["variant"]))
    tuning, training = min(TUNING_TO_LEARN, len(variant) // 5), min(TA_TRAIN_VARIANT, len(variant) // 3)
    reported = len(variant) - tuning - training
    cuts = [_document_boundary(variant, place) for place in (reported, reported + tuning)]
    to_learn, tune_to_learn, train_variant = variant[: cuts[0]], variant[cuts[0] : cuts[1]], variant[cuts[1] :]

    invariant = {fact.uuid: fact for name in RAW[1:] for fact in rows[name]}
    known = {form: [f for f in ordered(invariant.values()) if accuracy[form][f.uuid] == 1] for form in FORMS}
    cut = _document_boundary(known["descriptive"], min(TUNING_KNOWN, len(known["descriptive"]) // 2))
    tune_known, descriptive = known["descriptive"][:cut], known["descriptive"][cut:]
    tuned = {fact.evidence for fact in tune_known}
    schematic = [fact for fact in known["schematic"] if fact.evidence not in tuned]

    evaluated = [*to_learn, *tune_to_learn, *descriptive, *schematic, *tune_known]
    documents, subjects = {f.evidence for f in evaluated}, {f.subject for f in evaluated}

    def apart(facts: Iterable[Fact]) -> list[Fact]:
        return [f for f in facts if f.evidence not in documents and f.subject not in subjects]

    cross = apart(filter(unknown, ordered(invariant.values())))
    return {
        "to_learn": to_learn,
        "to_learn_balanced": balanced(to_learn),
        "tune_to_learn": tune_to_learn,
        "not_to_forget_descriptive": descriptive,
        "not_to_forget_schematic": schematic,
        "tune_not_to_forget": tune_known,
        "ta_train": apart(train_variant) + cross,
        "ta_train_cross": cross,
    }


def balanced(facts: Iterable[Fact], most: int = 3) -> list[Fact]:
    """The facts with no answer of a relation more than `most` times: the first of each are kept."""
    seen: Counter = Counter()
    kept = []
    for fact in facts:
        seen[fact.relation_code, fact.object] += 1
        if seen[fact.relation_code, fact.object] <= most:
            kept.append(fact)
    return kept


def _document_boundary(facts: Sequence[Fact], place: int) -> int:
    """The first index from `place` on where a new document starts."""
    while 0 < place < len(facts) and facts[place].evidence == facts[place - 1].evidence:
        place += 1
    return place


def default_folder(model: str) -> Path:
    return ROOT / "data" / "lama_ckl" / Path(model).name


def make_split(config: SplitConfig) -> Path:
    """Make the split unless it is there already; returns its folder. Several processes score it together.

    Raises UserError when raw rows are missing.
    """
    out = Path(config.out) if config.out else default_folder(config.model)
    raw = Path(config.data) / "LAMA_ckl"
    described = {"format": FORMAT, "model": config.model, "raw_sha256": {}}
    if not raw.is_dir():
        raise UserError(f"--data {config.data!r}: no folder LAMA_ckl in it")
    rows = {name: read_facts(raw / f"{name}.jsonl") for name in RAW}
    described["raw_sha256"] = {n: hashlib.sha256((raw / f"{n}.jsonl").read_bytes()).hexdigest() for n in RAW}
    if (out / SUMMARY).is_file():
        found = json.loads((out / SUMMARY).read_text())
        if {key: found.get(key) for key in described} == described:
            return out
    facts = list({fact.uuid: fact for name in RAW for fact in rows[name]}.values())
    print(f"scoring {len(facts)} rows with {config.model} to make the split in {out} (once)", flush=True)
    model, tokenizer = load_model(config.model, device=config.device, precision="fp32")
    accuracy = {
        form: {f.uuid: s.accuracy for f, s in zip(facts, score_facts(model, tokenizer, facts, form), strict=True)}
        for form in FORMS
    }
    files = split(rows, accuracy)
    described["counts"] = {name: len(chosen) for name, chosen in files.items()}
    if processes.is_main():
        for name, chosen in files.items():
            write_jsonl(out / f"{name}.jsonl", [_row(fact, config.model, accuracy) for fact in chosen])
        write_text(out / SUMMARY, json.dumps(described, indent=2) + "\n")
    processes.wait()
    print("  ".join(f"{name} {count}" for name, count in described["counts"].items()))
    return out


def _row(fact: Fact, model: str, accuracy: dict[str, dict[str, float]]) -> dict:
    row = fact.to_row()
    row["scores"] = {form: {**row["scores"].get(form, {}), model: accuracy[form][fact.uuid]} for form in FORMS}
    return row


def main(arguments: list[str]) -> None:
    config = parse(SplitConfig, None, arguments, "python -m taalm.benchmarks.lama_ckl_split")
    processes.start(config.device)
    keep_freed_memory()
    print(f"split in {make_split(config)}")


if __name__ == "__main__":
    run_entry(main)
