"""Run: pytest tests/test_sample.py. The committed sample set keeps its promises and is what its maker makes."""

import json
from collections import Counter, defaultdict

import pytest

from preprocess import make_known
from preprocess.common_facts import common_rows
from preprocess.make_known import apart
from preprocess.make_sample import invented_rows
from taalm.benchmarks.lama_ckl import SAMPLE
from taalm.facts import occurrences, read_facts

KNOWN = ("not_to_forget_descriptive", "tune_not_to_forget", "not_to_forget_schematic")
FILES = ("to_learn", "tune_to_learn", "ta_train", *KNOWN)


@pytest.fixture(scope="module")
def facts():
    return {name: read_facts(SAMPLE / f"{name}.jsonl") for name in FILES}


def test_the_invented_facts_are_what_the_maker_makes():
    for name, rows in invented_rows(seed=42).items():
        committed = (SAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in committed] == rows


def test_no_answer_covers_more_than_a_tenth_of_its_relation(facts):
    for name in ("to_learn", "ta_train"):
        by_relation = defaultdict(Counter)
        for fact in facts[name]:
            by_relation[fact.relation_code][fact.object] += 1
        assert len(by_relation) >= 8
        for counter in by_relation.values():
            assert max(counter.values()) <= max(1, sum(counter.values()) / 10)


def test_documents_name_subject_first_and_object_first_and_the_object_elsewhere_too(facts):
    for name in ("to_learn", "ta_train"):
        first = sum(fact.object_first() for fact in facts[name]) / len(facts[name])
        again = sum(len(occurrences(f.evidence, f.object)) > 1 for f in facts[name]) / len(facts[name])
        assert 0.3 < first < 0.7 and again > 0.3


def test_phi_never_sees_a_reported_fact_document_or_subject(facts):
    for name in FILES:
        if name != "ta_train":
            for part in ("uuid", "evidence", "subject"):
                assert {getattr(f, part) for f in facts["ta_train"]}.isdisjoint(getattr(f, part) for f in facts[name])


def test_common_facts_for_tuning_are_about_no_subject_of_the_split(facts):
    rows = common_rows()
    found = apart(rows, SAMPLE)
    taken = {fact.subject for some in facts.values() for fact in some}
    assert found == [row for row in rows if row["subject"] not in taken] and 0 < len(found) < len(rows)


def test_known_common_facts_are_written_apart_from_the_split(tiny_folder, tmp_path, monkeypatch, capsys):
    known = [index % 3 == 0 for index in range(len(apart(common_rows(), SAMPLE)))]
    monkeypatch.setattr(make_known, "score_rows", lambda rows, model: {"descriptive": known[: len(rows)]})
    make_known.main(["--split", str(SAMPLE), "--out", str(tmp_path / "known.jsonl"), "--model", str(tiny_folder)])
    assert len(read_facts(tmp_path / "known.jsonl")) == sum(known)
    assert capsys.readouterr().out.startswith(f"{sum(known)} of {len(known)} facts are known")
    for split, out in ((tmp_path / "none", tmp_path / "x.jsonl"), (SAMPLE, SAMPLE / "x.jsonl")):
        with pytest.raises(SystemExit, match=r"no files|another folder than the split's"):
            make_known.main(["--split", str(split), "--out", str(out)])


def test_known_facts_are_known_to_the_packaged_model_and_tuning_rows_are_apart(facts):
    for name in ("not_to_forget_descriptive", "tune_not_to_forget"):
        assert all(fact.scores["descriptive"]["smollm2-135m"] == 1 for fact in facts[name])
    assert all(fact.scores["schematic"]["smollm2-135m"] == 1 for fact in facts["not_to_forget_schematic"])
    tuning = {fact.uuid for fact in facts["tune_not_to_forget"]}
    assert tuning.isdisjoint(f.uuid for f in facts["not_to_forget_descriptive"] + facts["not_to_forget_schematic"])
