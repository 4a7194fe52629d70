"""LAMA-ckl from LAMA's T-REx, for any models (TAALM, section 4.1): `python -m taalm.benchmarks.lama_pipeline`.

1. candidates: of every fact the longest evidence, [MASK] filled with the object; over 200 characters, subject named;
2. scores: every candidate in both forms with every model, resumable;
3. selection: TO-LEARN (facts that change with time, answered by no model), NOT-TO-FORGET by form (facts that do not,
   answered whole by every model) and TA-train (mean accuracy under a half in both forms, no TO-LEARN fact), sampled.

`notebooks/LAMA_ckl_pipeline.ipynb` goes through the same functions step by step.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from tqdm import tqdm

from taalm import processes
from taalm.benchmarks.lama import candidates
from taalm.benchmarks.lama_ckl_split import SplitConfig, balanced, make_split
from taalm.checkpoint import write_jsonl, write_text
from taalm.config import ROOT, parse, run_entry
from taalm.facts import FORMS, Fact
from taalm.models.base import load_model
from taalm.models.precision import keep_freed_memory
from taalm.plots.lama_ckl import relation_bars
from taalm.plots.style import write
from taalm.scoring import score_facts

FILES = ("to_learn", "not_to_forget_descriptive", "not_to_forget_schematic", "ta_train")
CAPPED, CAPS = "P530", {"to_learn": 130, "ta_train": 350}  # diplomatic relation: every fourth variant fact
SUMMARY = "pipeline.json"

Scores = dict[str, dict[str, dict[str, float]]]  # uuid -> form -> model -> accuracy
Score = Callable[[str, Sequence[Fact], str], list[float]]  # (model, facts, form) -> accuracies


@dataclass
class PipelineConfig:
    """Make LAMA-ckl for one or several models from LAMA's T-REx."""

    lama: str = ""
    """Folder with TREx/*.jsonl and relations.jsonl; default data/LAMA of the project (scripts/data/lama.sh)."""
    models: list[str] = field(default_factory=lambda: ["smollm2-135m"])
    """The models that are to be tested: packaged names, folders or hub ids."""
    out: str = ""
    """Where the files go; default data/lama_ckl_made of the project."""
    shortest: PositiveInt = 200
    """Evidences of so many characters or fewer are dropped."""
    to_learn: PositiveInt = 500
    """Facts of TO-LEARN, at most."""
    not_to_forget: PositiveInt = 500
    """Facts of each NOT-TO-FORGET file, at most."""
    ta_train: NonNegativeInt = 0
    """Facts of TA-train, at most; 0 takes all."""
    data: str = ""
    """A folder with the published rows (LAMA_ckl/), which are split for each model too."""
    device: str = "auto"
    """cpu, cuda, ..."""
    seed: int = 42
    """Seed of the samples."""


class CausalScorer:
    """Calculating Score (Accuracy): the share of the object's tokens that a causal language model predicts.

    For other models give `score` another callable: (model name, facts, form) -> accuracies in 0..1.
    """

    def __init__(self, device: str = "auto"):
        self.device, self.loaded = device, ("", None, None)

    def __call__(self, name: str, facts: Sequence[Fact], form: str) -> list[float]:
        if self.loaded[0] != name:
            self.loaded = (name, *load_model(name, device=self.device, precision="fp32"))
        _, model, tokenizer = self.loaded
        return [score.accuracy for score in score_facts(model, tokenizer, facts, form)]


def score(facts: Sequence[Fact], models: Sequence[str], work: Path, scorer: Score, batch_size: int = 64) -> Scores:
    """Accuracies of all facts, in both forms, by all models; kept in `work`, so that what was scored is not again.

    A file per model and form holds a batch a line; its name has the model's.
    """
    found: Scores = {fact.uuid: {form: {} for form in FORMS} for fact in facts}
    for model in models:
        for form in FORMS:
            path = work / f"{model.strip('/').replace('/', '--')}_{form}.json"
            known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
            left = [fact for fact in facts if fact.uuid not in known]
            with tqdm(total=len(facts), initial=len(facts) - len(left), desc=f"{model} {form}", disable=None) as bar:
                for start in range(0, len(left), batch_size):
                    part = left[start : start + batch_size]
                    known |= dict(zip((fact.uuid for fact in part), scorer(model, part, form), strict=True))
                    if processes.is_main():
                        write_text(path, json.dumps(known))
                    bar.update(len(part))
            for fact in facts:
                found[fact.uuid][form][model] = known[fact.uuid]
    return found


def _sample(facts: Sequence[Fact], count: int, cap: int | None, seed: int) -> list[Fact]:
    """At most `count` facts (0: all), at most `cap` of them of the capped relation, drawn at random, then in order."""
    order = random.Random(seed).sample(range(len(facts)), len(facts))
    chosen, capped = [], 0
    for index in order:
        of_capped = facts[index].relation_code == CAPPED
        if (of_capped and cap is not None and capped >= cap) or (count and len(chosen) >= count):
            continue
        capped += of_capped
        chosen.append(index)
    return [facts[index] for index in sorted(chosen)]


def select(facts: Sequence[Fact], scores: Scores, config: PipelineConfig) -> dict[str, list[Fact]]:
    """The four files' facts; `to_learn_balanced` beside them."""

    def values(fact: Fact, *forms: str) -> list[float]:
        return [value for form in forms for value in scores[fact.uuid][form].values()]

    unknown = [f for f in facts if not f.invariant and not any(values(f, *FORMS))]
    to_learn = _sample(unknown, config.to_learn, CAPS["to_learn"], config.seed)
    files = {"to_learn": to_learn}
    for form in FORMS:
        known = [f for f in facts if f.invariant and all(value == 1 for value in values(f, form))]
        files[f"not_to_forget_{form}"] = _sample(known, config.not_to_forget, None, config.seed)
    kept = [fact for chosen in files.values() for fact in chosen]
    held = {value for fact in kept for value in (fact.uuid, fact.evidence, fact.subject)}
    weak = [f for f in facts if all(sum(values(f, form)) / len(values(f, form)) < 0.5 for form in FORMS)]
    apart = [f for f in weak if held.isdisjoint((f.uuid, f.evidence, f.subject))]
    files["ta_train"] = _sample(apart, config.ta_train, CAPS["ta_train"], config.seed)
    return files | {"to_learn_balanced": balanced(to_learn)}


def with_scores(fact: Fact, scores: Scores) -> dict[str, Any]:
    return fact.to_row() | {"scores": scores[fact.uuid]}


def make(config: PipelineConfig, scorer: Score | None = None) -> Path:
    """Run all steps unless they were run with the same settings; returns the folder."""
    out = Path(config.out) if config.out else ROOT / "data" / "lama_ckl_made"
    lama = Path(config.lama) if config.lama else ROOT / "data" / "LAMA"
    found = candidates(lama, config.shortest)
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "device", "data")}
    described = {"config": settings, "candidates": len(found.facts), "dropped": dict(found.dropped.most_common())}
    summary = out / SUMMARY
    if summary.is_file() and described.items() <= json.loads(summary.read_text()).items():
        return out
    scores = score(found.facts, config.models, out / "scores", scorer or CausalScorer(config.device))
    files = select(found.facts, scores, config)
    described["counts"] = {name: len(chosen) for name, chosen in files.items()}
    if processes.is_main():
        for name, chosen in files.items():
            write_jsonl(out / f"{name}.jsonl", [with_scores(fact, scores) for fact in chosen])
        by_relation = {name: Counter(fact.relation_code for fact in files[name]) for name in FILES}
        write(relation_bars(by_relation), out / "relations.png")
        write_text(summary, json.dumps(described, indent=2) + "\n")
    processes.wait()
    return out


def describe(folder: Path) -> str:
    """The counts of each step as lines of text."""
    found = json.loads((folder / SUMMARY).read_text())
    lines = [f"candidates      {found['candidates']}"]
    lines += [f"  dropped       {count}: {reason}" for reason, count in found["dropped"].items()]
    return "\n".join([*lines, *(f"{name:28}{count}" for name, count in found["counts"].items())])


def main(arguments: list[str]) -> None:
    config = parse(PipelineConfig, None, arguments, "python -m taalm.benchmarks.lama_pipeline")
    processes.start(config.device)
    keep_freed_memory()
    folder = make(config)
    print(describe(folder))
    print(f"files in {folder}")
    for model in config.models if config.data else ():
        print(f"split of the published rows in {make_split(SplitConfig(config.data, model, device=config.device))}")


if __name__ == "__main__":
    run_entry(main)
