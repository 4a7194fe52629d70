"""Run: pytest tests/test_lama_pipeline.py. LAMA-ckl from raw T-REx: candidates, scores, selection, going on."""

import json
from collections import Counter
from pathlib import Path

import pytest

from taalm.benchmarks import lama_ckl_split, lama_pipeline
from taalm.benchmarks.lama import candidates, longest_evidence
from taalm.benchmarks.lama_ckl_split import RAW, balanced
from taalm.benchmarks.lama_pipeline import FILES, CausalScorer, PipelineConfig, make, score, select
from taalm.errors import UserError
from taalm.facts import FORMS, read_facts

FILLER = "It has been told many times since then by everyone who was there on that long and rainy day in the old town. "
RELATIONS = {"P106": ("occupation", "[X] is a [Y] by profession ."), "P19": ("place of birth", "[X] was born in [Y] ."),
             "P530": ("diplomatic relation", "[X] has relations with [Y] .")}  # fmt: skip


def row(uuid: str, code: str, subject: str, answer: str, *masked: str) -> dict:
    texts = masked or (f"{subject} was a [MASK] . {FILLER * 2}",)
    evidences = [{"sub_surface": subject, "obj_surface": answer, "masked_sentence": text} for text in texts]
    return {"uuid": uuid, "predicate_id": code, "sub_label": subject, "obj_label": answer, "evidences": evidences}


@pytest.fixture
def lama(tmp_path):
    """lama(*rows) -> a folder with T-REx files of these rows."""

    def write(*rows: dict) -> Path:
        folder = tmp_path / "LAMA"
        (folder / "TREx").mkdir(parents=True)
        described = [{"relation": c, "label": label, "template": t} for c, (label, t) in RELATIONS.items()]
        (folder / "relations.jsonl").write_text("".join(json.dumps(found) + "\n" for found in described))
        for code in sorted({found["predicate_id"] for found in rows}):
            lines = [json.dumps(found) for found in rows if found["predicate_id"] == code]
            (folder / "TREx" / f"{code}.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return write


def test_the_longest_evidence_with_one_mask_is_taken():
    texts = ["short [MASK]", "a longer one [MASK] .", "the longest [MASK] has two [MASK] of them", "no mask at all" * 9]
    assert longest_evidence([{"masked_sentence": text} for text in texts]) == "a longer one [MASK] ."
    assert longest_evidence([{"masked_sentence": None}, {}]) is None


def test_candidates_and_why_others_are_dropped(lama):
    folder = lama(
        row("a", "P106", "Ana", "poet", "Ana [MASK] .", f"Ana was a [MASK] . {FILLER * 2}"),
        row("b", "P106", "Bo", "poet", "Bo was a [MASK] ."),
        row("c", "P106", "Cy", "poet", f"She was a [MASK] . {FILLER * 2}"),
        row("d", "P106", "Di", "poet", f"Di [MASK] [MASK] {FILLER * 2}"),
        row("e", "P9999", "Ed", "poet"),
        row("a", "P106", "Ana", "poet"),
    )
    found = candidates(folder)
    assert [fact.uuid for fact in found.facts] == ["a"] and sum(found.dropped.values()) == 5
    assert found.dropped == {"evidence too short": 1, "subject not in the evidence": 1, "another relation": 1,
                             "no evidence with one [MASK]": 1, "fact seen before": 1}  # fmt: skip
    (fact,) = found.facts
    assert (
        fact.evidence.startswith("Ana was a poet . It has") and fact.task_descriptive == "Ana is a poet by profession ."
    )
    assert fact.evidence[slice(*fact.object_span())] == "poet" and not fact.invariant
    assert fact.position == fact.object_span()[0] / len(fact.evidence) and fact.evidence_length == len(fact.evidence)


@pytest.mark.parametrize("broken", ["missing field", "unknown relation", "no file"])
def test_broken_lama_is_told(lama, broken, tmp_path):
    found = row("a", "P106", "Ana", "poet")
    if broken == "missing field":
        del found["evidences"]
    folder = lama(found)
    if broken == "unknown relation":
        (folder / "relations.jsonl").write_text('{"relation": "P1", "label": "x", "template": "[X] [Y]"}\n')
    if broken == "no file":
        folder = tmp_path
        (tmp_path / "LAMA" / "TREx" / "P106.jsonl").unlink()
    with pytest.raises(UserError, match=r"evidences|no relation P106|lama\.sh"):
        candidates(folder)


def many(count: int = 12) -> list[dict]:
    rows = []
    for code in RELATIONS:
        for index in range(count):
            subject, answer = f"{code} Subject{index}", f"answer{index // 5}"
            rows.append(row(f"{code}_{index}", code, subject, answer, f"{subject} [MASK] {FILLER * 2} {code} {index}"))
    return rows


def told(accuracy: dict[str, float], calls: list | None = None):
    """A scorer: the accuracy of a uuid, else 0; notes what it was asked."""

    def ask(model: str, facts: list, form: str) -> list[float]:
        if calls is not None:
            calls.append((model, form, [fact.uuid for fact in facts]))
        return [accuracy.get(fact.uuid, 0.0) for fact in facts]

    return ask


def test_selection_follows_the_scores_of_all_models(lama):
    facts = candidates(lama(*many())).facts
    config = PipelineConfig(to_learn=8, models=["one", "two"])
    accuracy = {"one": {"P106_0": 0.1, "P19_0": 1.0, "P19_1": 1.0, "P19_2": 0.7}, "two": {"P19_0": 1.0, "P19_1": 0.5}}
    scores = {
        fact.uuid: {form: {name: values.get(fact.uuid, 0.0) for name, values in accuracy.items()} for form in FORMS}
        for fact in facts
    }
    files = select(facts, scores, config)
    uuids = {name: {fact.uuid for fact in chosen} for name, chosen in files.items()}
    assert len(uuids["to_learn"]) == 8 and "P106_0" not in uuids["to_learn"]
    assert not any(fact.invariant for fact in files["to_learn"])
    for form in FORMS:
        assert uuids[f"not_to_forget_{form}"] == {"P19_0"}
    assert uuids["ta_train"].isdisjoint(uuids["to_learn"] | {"P19_0", "P19_1"}) and "P19_2" in uuids["ta_train"]
    assert uuids["ta_train"] | uuids["to_learn"] | {"P19_0", "P19_1"} == {fact.uuid for fact in facts}
    assert select(facts, scores, config) == files


def test_one_relation_is_capped(lama, monkeypatch):
    monkeypatch.setattr(lama_pipeline, "CAPS", {"to_learn": 3, "ta_train": 2})
    facts = candidates(lama(*many())).facts
    scores = {fact.uuid: {form: {"m": 0.0} for form in FORMS} for fact in facts}
    files = select(facts, scores, PipelineConfig())
    counts = {name: Counter(fact.relation_code for fact in files[name]) for name in files}
    assert counts["to_learn"] == {"P106": 12, "P530": 3} and counts["ta_train"] == {"P19": 12, "P530": 2}


def test_balanced_files_repeat_no_answer_of_a_relation_more_than_three_times(lama):
    facts = candidates(lama(*many())).facts
    kept = balanced(facts)
    counts = Counter((fact.relation_code, fact.object) for fact in kept)
    assert max(counts.values()) == 3 and sum(counts.values()) == 3 * (3 + 3 + 2)
    assert [fact.uuid for fact in kept][:4] == ["P106_0", "P106_1", "P106_2", "P106_5"]


def test_scoring_goes_on_where_it_was_interrupted_and_asks_nothing_twice(lama, tmp_path):
    facts, calls = candidates(lama(*many(4))).facts, []

    def fails(model: str, part: list, form: str) -> list[float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        return told({}, calls)(model, part, form)

    with pytest.raises(KeyboardInterrupt):
        score(facts, ["a/b"], tmp_path / "scores", fails, batch_size=5)
    whole = score(facts, ["a/b"], tmp_path / "scores", told({}, calls), batch_size=5)
    asked = Counter((form, uuid) for _, form, uuids in calls for uuid in uuids)
    assert set(asked.values()) == {1} and len(asked) == 2 * len(facts)
    assert whole == score(facts, ["a/b"], tmp_path / "other", told({}), batch_size=5)


def test_the_command_writes_files_that_validate_and_then_does_nothing(lama, tmp_path, tiny_folder):
    config = PipelineConfig(lama=str(lama(*many(4))), out=str(tmp_path / "made"), models=[str(tiny_folder)])
    folder = make(config)
    for name in (*FILES, "to_learn_balanced"):
        path = folder / f"{name}.jsonl"
        facts = read_facts(path) if path.stat().st_size else []
        for form in FORMS:
            again = CausalScorer()(str(tiny_folder), facts, form) if facts else []
            assert [fact.scores[form][str(tiny_folder)] for fact in facts] == again
    assert (folder / "relations.png").stat().st_size > 10_000
    assert "candidates      12" in lama_pipeline.describe(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert make(config, scorer=None) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}


def test_the_command_splits_published_rows_too(lama, tmp_path, tiny_folder, monkeypatch):
    rows = lama(*many(4))
    published = tmp_path / "LAMA_ckl"
    published.mkdir()
    facts = candidates(rows).facts
    for name in RAW:
        kept = [fact for fact in facts if fact.invariant == (name != "variant")]
        (published / f"{name}.jsonl").write_text("".join(json.dumps(fact.to_row()) + "\n" for fact in kept))
    monkeypatch.setattr(lama_ckl_split, "default_folder", lambda model: tmp_path / "split")
    lama_pipeline.main([
        "--lama", str(rows), "--out", str(tmp_path / "made"), "--models", json.dumps([str(tiny_folder)]),
        "--data", str(tmp_path), "--device", "cpu",
    ])  # fmt: skip
    assert json.loads((tmp_path / "split" / "split.json").read_text())["counts"]["to_learn_balanced"] > 0


def test_real_lama_gives_the_known_candidates(real_data):
    found = candidates(real_data / "LAMA")
    assert len(found.facts) == 1069 and found.dropped == {"subject not in the evidence": 10}
