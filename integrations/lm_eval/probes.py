"""LAMA-ckl's and TemporalWiki's probes for lm-evaluation-harness: the sentence up to the object, and the object.

Rows come from the folder TAALM_DATA names (as for taalm's own commands), else from the sample set.
"""

from collections.abc import Callable, Iterable
from typing import Any

from datasets import Dataset

from taalm.benchmarks.lama_ckl import data_folder, given_folder
from taalm.benchmarks.temporal_wiki import read_triples
from taalm.facts import Span, read_facts

MODEL = "smollm2-135m"  # whose split of raw LAMA-ckl rows is asked


def _split(probes: Iterable[tuple[str, Span]]) -> dict[str, Dataset]:
    rows = []
    for probe, (start, end) in probes:
        context = probe[:start].rstrip()  # the space before an object belongs to its first token
        rows.append({"context": context, "answer": probe[len(context) : end]})
    return {"test": Dataset.from_list(rows)}


def _facts(name: str, form: str) -> Callable[..., dict[str, Dataset]]:
    def load(**_: Any) -> dict[str, Dataset]:
        facts = read_facts(data_folder("", MODEL) / f"{name}.jsonl")
        return _split((fact.probe(form), fact.answer_span(form)) for fact in facts)

    return load


def _triples(name: str) -> Callable[..., dict[str, Dataset]]:
    def load(**_: Any) -> dict[str, Dataset]:
        triples = read_triples(given_folder("") / "TemporalWiki" / "eval" / f"{name}.jsonl")
        return _split((triple.probe(), triple.answer_span()) for triple in triples)

    return load


to_learn = _facts("to_learn", "descriptive")
to_learn_schematic = _facts("to_learn", "schematic")
not_to_forget = _facts("not_to_forget_descriptive", "descriptive")
not_to_forget_schematic = _facts("not_to_forget_schematic", "schematic")
changed_0901 = _triples("0901-1001_changed")
unchanged_0901 = _triples("0901-1001_unchanged")
changed_1001 = _triples("1001-1101_changed")
unchanged_1001 = _triples("1001-1101_unchanged")
changed_1101 = _triples("1101-1201_changed")
unchanged_1101 = _triples("1101-1201_unchanged")


def results(row: dict[str, str], found: list[tuple[float, bool]]) -> dict[str, float]:
    """exact_match: all tokens of the object are the likeliest; object_nll: nats of the whole object."""
    ((log_probability, likeliest),) = found
    return {"all_tokens": float(likeliest), "object_nll": -log_probability}
