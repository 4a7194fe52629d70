"""Run: pytest tests/test_lm_eval_tasks.py. The tasks for lm-evaluation-harness give taalm's own numbers."""

from importlib import import_module

import pytest

from taalm.benchmarks.lama_ckl import SAMPLE
from taalm.benchmarks.temporal_wiki import read_triples
from taalm.facts import read_facts
from taalm.models.base import load_model
from taalm.models.packaged import packaged_folder
from taalm.scoring import score_facts, score_probes
from taalm.text import pad_token
from tests.conftest import ROOT

TASKS = ROOT / "integrations" / "lm_eval"
COUNT = 24


@pytest.fixture(scope="module")
def harness():
    pytest.importorskip("lm_eval.tasks", reason="needs pip install lm-eval==0.4.13")
    return pytest.importorskip("lm_eval")


def asked(harness, tasks: list[str]) -> dict[str, list[tuple[float, bool]]]:
    manager = import_module("lm_eval.tasks").TaskManager(include_path=str(TASKS), include_defaults=False)
    settings = f"pretrained={packaged_folder('smollm2-135m')},dtype=float32,add_bos_token=True"
    found = harness.simple_evaluate(
        model="hf", model_args=settings, tasks=tasks, task_manager=manager, device="cpu", batch_size=8, limit=COUNT,
        bootstrap_iters=0,
    )  # fmt: skip
    return {
        task: [(row["object_nll"], bool(row["all_tokens"])) for row in sorted(rows, key=lambda row: row["doc_id"])]
        for task, rows in found["samples"].items()
    }


def check(found: list[tuple[float, bool]], scores: list) -> None:
    assert len(found) == len(scores)
    for (nll, likeliest), score in zip(found, scores, strict=True):
        assert nll == pytest.approx(score.nll * score.tokens, rel=1e-3, abs=1e-3)
        assert likeliest == score.exact_match


def test_lama_ckl(harness, monkeypatch):
    monkeypatch.delenv("TAALM_DATA", raising=False)
    model, tokenizer = load_model("smollm2-135m", device="cpu", precision="fp32")
    files = {"to_learn": "to_learn", "not_to_forget": "not_to_forget_descriptive"}
    forms = {f"lama_ckl_{task}": ("descriptive", file) for task, file in files.items()}
    forms["lama_ckl_to_learn_schematic"] = ("schematic", "to_learn")
    forms["lama_ckl_not_to_forget_schematic"] = ("schematic", "not_to_forget_schematic")
    found = asked(harness, list(forms))
    for task, (form, file) in forms.items():
        check(found[task], score_facts(model, tokenizer, read_facts(SAMPLE / f"{file}.jsonl")[:COUNT], form))


def test_temporal_wiki(harness, monkeypatch, real_data):
    monkeypatch.setenv("TAALM_DATA", str(real_data))
    model, tokenizer = load_model("smollm2-135m", device="cpu", precision="fp32")
    found = asked(harness, ["temporal_wiki_changed_1001", "temporal_wiki_unchanged_1101"])
    for task, name in (("changed_1001", "1001-1101_changed"), ("unchanged_1101", "1101-1201_unchanged")):
        triples = read_triples(real_data / "TemporalWiki" / "eval" / f"{name}.jsonl")[:COUNT]
        # before a digit this tokenizer makes the space a token of its own, which the harness counts to the answer
        alike = [index for index, triple in enumerate(triples) if not triple.object[0].isdigit()]
        assert len(alike) >= COUNT - 4
        rows = [triples[index].encoded(tokenizer) for index in alike]
        theirs = found[f"temporal_wiki_{task}"]
        check([theirs[index] for index in alike], score_probes(model, rows, pad_token(tokenizer)))
