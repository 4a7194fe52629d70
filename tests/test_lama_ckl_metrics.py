"""Run: pytest tests/test_lama_ckl_metrics.py. The reported numbers worked out by hand; the split keeps files apart."""

import itertools
import json
import math
import random

import pytest

from taalm.benchmarks import lama_ckl
from taalm.benchmarks.lama_ckl_split import (
    RAW,
    TA_TRAIN_VARIANT,
    TUNING_KNOWN,
    TUNING_TO_LEARN,
    SplitConfig,
    make_split,
    split,
)
from taalm.errors import UserError
from taalm.facts import FORMS, Fact, read_facts
from taalm.halves import halves
from taalm.scoring import ProbeScore


def fact(uuid: str, relation: str = "P1", object: str = "o", subject: str | None = None, document: str = "") -> Fact:
    """`document` has [MASK] for the object."""
    subject = subject or f"S{uuid}"
    document = document or f"{subject} ({uuid}) is [MASK]."
    return Fact(
        relation, uuid, f"{subject} is {object}", f"subject is {subject} , object is {object}", subject, "is", object,
        document, document.replace("[MASK]", object),
    )  # fmt: skip


def entry(changed: float, unchanged: float, schematic: float = 0.0, **outcomes: float) -> dict:
    return {
        "acc_changed": changed, "acc_unchanged": unchanged, "acc_unchanged_schematic": schematic,
        "to_learn": {uuid: [accuracy, 1.0] for uuid, accuracy in outcomes.items()},
    }  # fmt: skip


# ---- metrics

FACTS = [
    fact("a", "P1", "rock", document="[MASK] is what Sa plays"),
    fact("b", "P1", "rock"),
    fact("c", "P1", "jazz"),
    fact("d", "P2", "rock", document="A [MASK] , Sd"),
]
HISTORY = {  # not in order, as a file might give it
    3: entry(0.25, 0.7, 0.3, a=1.0, b=0.0, c=0.5, d=0.25),
    0: entry(0.0, 1.0, 0.9),
    2: entry(0.5, 0.6, 0.4, a=1.0, b=1.0, c=1.0, d=1.0),
    1: entry(0.5, 0.8, 0.5, a=0.0, b=0.0, c=0.0, d=0.0),
}


def test_top_acc_is_the_first_best_epoch_and_nf_is_read_there():
    found = lama_ckl.summary(HISTORY, FACTS)
    assert (found["top_acc"], found["top_epoch"], found["nf_acc"], found["nf_schematic_acc"]) == (0.5, 1, 0.8, 0.5)
    assert found["total"] == pytest.approx(1.3)


def test_the_final_values_are_those_of_the_last_epoch():
    found = lama_ckl.summary(HISTORY, FACTS)
    assert (found["final_acc"], found["final_nf_acc"]) == (0.25, 0.7)
    assert found["final_total"] == pytest.approx(0.95) and found["best_total"] == pytest.approx(1.3)
    assert found["macro_acc"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)  # (P1, rock), (P1, jazz), (P2, rock)
    assert found["object_first_acc"] == pytest.approx((1.0 + 0.25) / 2)  # a and d
    assert found["subject_first_acc"] == pytest.approx((0.0 + 0.5) / 2)


def test_doing_nothing_can_be_the_best_epoch():
    found = lama_ckl.summary({0: entry(0.1, 1.0, a=0, b=0, c=0, d=0), 1: entry(0.1, 0.2, a=0, b=0, c=0, d=0)}, FACTS)
    assert (found["top_epoch"], found["nf_acc"]) == (0, 1.0)


def test_a_common_answer_counts_once_in_the_macro_average():
    facts = [fact("a"), fact("b"), fact("c"), fact("d", object="rare")]
    accuracy = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}
    assert lama_ckl.macro_accuracy(facts, accuracy) == 0.5
    assert lama_ckl.macro_accuracy([], {}) is None


def test_a_stratum_without_facts_is_none():
    assert lama_ckl.order_strata([fact("b")], {"b": 0.5}) == {"subject_first_acc": 0.5, "object_first_acc": None}


def test_relation_majority_answers_each_relations_commonest_object():
    facts = [*FACTS[:3], fact("d", "P2", "jazz"), fact("e", "P2", "jazz")]
    assert lama_ckl.relation_majority(facts) == 4 / 5  # P1: rock 2 of 3; P2: jazz 2 of 2
    assert lama_ckl.relation_majority([fact("a", object="x"), fact("b", object="y")]) == 1 / 2


def test_the_framing_rows_are_epoch_0_and_the_majority():
    found = lama_ckl.framing(HISTORY, FACTS)
    assert found == {
        "do-nothing": {"top_acc": 0.0, "nf_acc": 1.0, "nf_schematic_acc": 0.9, "total": 1.0},
        "relation-majority": {"top_acc": 0.75},
    }


def half(facts: list[str], accuracy: dict[str, float], kept: float = 1.0) -> dict:
    last = {"to_learn": {uuid: [value, 1.0] for uuid, value in accuracy.items()}, "acc_unchanged": kept}
    return {"facts": facts, "eval_result": {0: {"to_learn": {}, "acc_unchanged": None}, 1: last}}


def test_read_knowledge_is_seen_minus_unseen_averaged_over_the_halves():
    first = half(["a"], {"a": 1.0, "b": 0.25, "c": 0.75}, kept=1.0)  # 1.0 seen, 0.5 unseen
    second = half(["b", "c"], {"a": 0.25, "b": 0.5, "c": 0.0}, kept=0.5)  # 0.25 seen, 0.25 unseen
    found = lama_ckl.read_knowledge([first, second])
    assert found == {"adapted_acc": 0.625, "unseen_acc": 0.375, "read_knowledge": 0.25, "halves_nf_acc": 0.75}


def test_read_knowledge_of_a_half_without_facts_is_none():
    found = lama_ckl.read_knowledge([half(["a"], {"a": 1.0}), half([], {"a": 0.5})])
    assert found["read_knowledge"] is None


def test_set_metrics_are_means_over_probes():
    scores = [ProbeScore(1.0, True, 0.5, 1), ProbeScore(0.5, False, 1.5, 4)]
    found = lama_ckl.set_metrics(scores, "x")
    assert found == {"acc_x": 0.75, "em_x": 0.5, "ppl_x": 1.0, "exp_ppl_x": pytest.approx(math.e)}
    assert lama_ckl.set_metrics([], "x") == {"acc_x": None, "em_x": None, "ppl_x": None, "exp_ppl_x": None}


def test_a_diverged_model_has_an_infinite_exp_ppl():
    assert lama_ckl.set_metrics([ProbeScore(0.0, False, 800.0, 1)], "x")["exp_ppl_x"] == math.inf


def test_outcomes_hold_each_probes_accuracy_and_loss():
    facts = [fact("a"), fact("b")]
    scores = [ProbeScore(1.0, True, 0.123456, 1), ProbeScore(0.5, False, 2.0, 2)]
    assert lama_ckl.outcomes(facts, scores) == {"a": [1.0, 0.1235], "b": [0.5, 2.0]}
    with pytest.raises(ValueError):
        lama_ckl.outcomes(facts, scores[:1])


def test_the_data_folder_is_the_flag_then_the_environment_then_the_sample(tmp_path, monkeypatch):
    mine, env = tmp_path / "mine", tmp_path / "env"
    mine.mkdir()
    env.mkdir()
    monkeypatch.setenv("TAALM_DATA", str(env))
    assert lama_ckl.data_folder(str(mine), "m") == mine and lama_ckl.data_folder("", "m") == env
    with pytest.raises(UserError, match=r"--data .*gone: no such folder"):
        lama_ckl.data_folder(str(tmp_path / "gone"), "m")
    monkeypatch.setenv("TAALM_DATA", str(tmp_path / "lost"))
    with pytest.raises(UserError, match=r"TAALM_DATA .*lost: no such folder"):
        lama_ckl.data_folder("", "m")


# ---- halves


@pytest.mark.parametrize("seed", range(4))
def test_halves_part_the_facts_by_document(seed):
    facts = [fact(str(i), document=f"document {i // 3} [MASK]", subject="S") for i in range(30)]
    first, second = halves(facts, seed)
    assert sorted(int(f.uuid) for f in first + second) == list(range(30)) and len(first) == len(second) == 15
    assert {f.evidence for f in first}.isdisjoint(f.evidence for f in second)
    assert [first, second] == halves(facts, seed) != halves(facts, seed + 1)


# ---- the split


def draw(seed: int = 0):
    """Raw rows and accuracies: 420 variant and 400 invariant facts, with documents and subjects in common."""
    rng = random.Random(seed)

    def drawn(kind: str, count: int) -> list[Fact]:
        made = []
        for index in range(count):
            document = f"Text {rng.randrange(450)} , [MASK] ."  # shared within and between the kinds
            subject = f"S{rng.randrange(3000)}"
            made.append(fact(f"{kind}{index}", f"{kind}{index % 5}", subject=subject, document=document))
        return made

    variant, invariant = drawn("V", 420), drawn("I", 400)
    rows = {"variant": variant, "invariant_descriptive": invariant[:300], "invariant_schematic": invariant[150:]}
    accuracy = {form: {f.uuid: rng.choice([0, 0, 0, 0.5, 1]) for f in [*variant, *invariant]} for form in FORMS}
    for f in variant:
        if rng.random() < 0.8:
            accuracy["descriptive"][f.uuid] = accuracy["schematic"][f.uuid] = 0
    return rows, accuracy


@pytest.fixture(scope="module", params=range(3))
def drawn(request):
    rows, accuracy = draw(request.param)
    return rows, accuracy, split(rows, accuracy)


EVALUATED = (
    "to_learn", "tune_to_learn", "not_to_forget_descriptive", "not_to_forget_schematic", "tune_not_to_forget",
)  # fmt: skip


def uuids(*files) -> set[str]:
    return {f.uuid for file in files for f in file}


@pytest.mark.parametrize("train", ["ta_train", "ta_train_cross"])
@pytest.mark.parametrize("name", EVALUATED)
def test_phi_trains_on_no_document_and_no_subject_that_is_evaluated(drawn, train, name):
    files = drawn[2]
    assert files[train] and files[name]
    for what in ("uuid", "evidence", "subject"):
        trained = {getattr(f, what) for f in files[train]}
        assert trained.isdisjoint(getattr(f, what) for f in files[name]), what


def test_no_other_row_is_left_out_of_ta_train(drawn):
    rows, accuracy, files = drawn
    evaluated = [f for name in EVALUATED for f in files[name]]
    documents, subjects = {f.evidence for f in evaluated}, {f.subject for f in evaluated}
    everything = {f.uuid: f for name in RAW for f in rows[name]}.values()
    wanted = {
        f.uuid
        for f in everything
        if all(accuracy[form][f.uuid] == 0 for form in FORMS)
        and f.evidence not in documents
        and f.subject not in subjects
    }
    assert uuids(files["ta_train"]) == wanted
    assert uuids(files["ta_train_cross"]) == {uuid for uuid in wanted if uuid.startswith("I")}
    assert any(uuid.startswith("V") for uuid in wanted)


def test_to_learn_is_unknown_in_both_forms_and_what_must_be_known_is_known(drawn):
    rows, accuracy, files = drawn
    unknown = {f.uuid for f in rows["variant"] if all(accuracy[form][f.uuid] == 0 for form in FORMS)}
    learned, tuning = uuids(files["to_learn"]), uuids(files["tune_to_learn"])
    assert learned | tuning <= unknown and learned.isdisjoint(tuning)
    slack = max(sum(f.evidence == g.evidence for g in rows["variant"]) for f in rows["variant"])
    assert 0 <= len(learned) - (len(unknown) - TUNING_TO_LEARN - TA_TRAIN_VARIANT) < slack
    assert abs(len(tuning) - TUNING_TO_LEARN) < slack
    invariant = rows["invariant_descriptive"] + rows["invariant_schematic"]
    tuned = uuids(files["tune_not_to_forget"])
    for form in FORMS:
        known, reported = (
            {f.uuid: f for f in invariant if accuracy[form][f.uuid] == 1},
            uuids(files[f"not_to_forget_{form}"]),
        )
        assert reported <= set(known) - tuned
        documents = {f.evidence for f in files["tune_not_to_forget"]}
        assert all(known[uuid].evidence in documents for uuid in set(known) - reported)
    assert all(accuracy["descriptive"][uuid] == 1 for uuid in tuned) and abs(len(tuned) - TUNING_KNOWN) < slack


@pytest.mark.parametrize(
    "apart",
    [
        ("to_learn", "tune_to_learn", "ta_train"),
        ("not_to_forget_descriptive", "tune_not_to_forget"),
        ("not_to_forget_schematic", "tune_not_to_forget"),
    ],
)
def test_rows_with_one_document_stay_together(drawn, apart):
    files = drawn[2]
    for one, other in itertools.combinations(apart, 2):
        assert {f.evidence for f in files[one]}.isdisjoint(f.evidence for f in files[other]), (one, other)


def test_no_row_is_twice_in_a_file(drawn):
    for name, file in drawn[2].items():
        assert len(uuids(file)) == len(file), name


def test_the_split_does_not_depend_on_the_order_of_the_rows(drawn):
    rows, accuracy, files = drawn
    assert split(rows, accuracy) == files
    for seed in range(3):
        rng = random.Random(seed)
        shuffled = {name: rng.sample(rows[name], len(rows[name])) for name in reversed(RAW)}
        assert split(shuffled, accuracy) == files


def test_a_long_document_at_a_cut_is_not_torn():
    rows, accuracy = draw()
    for f in rows["variant"]:
        accuracy["descriptive"][f.uuid] = accuracy["schematic"][f.uuid] = 0
    one = [fact(f"V{i}", subject=f"S{i}", document="One [MASK] text.") for i in range(420)]
    files = split({**rows, "variant": one}, accuracy)
    assert len(files["to_learn"]) == 420 and not files["tune_to_learn"]
    assert uuids(files["ta_train"]) == uuids(files["ta_train_cross"])


# ---- its files


def test_make_split_writes_the_files_once_and_records_the_scores(tmp_path, tiny_folder, capsys):
    raw = tmp_path / "data" / "LAMA_ckl"
    raw.mkdir(parents=True)
    rows, _ = draw()
    few = {"variant": rows["variant"][:170], "invariant_descriptive": rows["invariant_descriptive"][:5],
           "invariant_schematic": rows["invariant_schematic"][:5]}  # fmt: skip
    for name, facts in few.items():
        (raw / f"{name}.jsonl").write_text("".join(json.dumps(f.to_row()) + "\n" for f in facts))
    config = SplitConfig(str(tmp_path / "data"), str(tiny_folder), str(tmp_path / "out"), "cpu")
    out = make_split(config)
    assert "scoring 180 rows" in capsys.readouterr().out
    counts = json.loads((out / "split.json").read_text())["counts"]
    for f in read_facts(out / "tune_to_learn.jsonl"):
        assert [f.scores[form][str(tiny_folder)] for form in FORMS] == [0.0, 0.0]
    for name in ("to_learn", "tune_to_learn", "ta_train"):
        assert len(read_facts(out / f"{name}.jsonl")) == counts[name]
    make_split(config)
    assert not capsys.readouterr().out  # nothing to do
    (raw / "variant.jsonl").write_text(json.dumps(few["variant"][0].to_row()) + "\n")
    make_split(config)
    assert "scoring 11 rows" in capsys.readouterr().out  # other raw rows: made again


def test_make_split_needs_the_raw_rows(tmp_path):
    with pytest.raises(UserError, match="no folder LAMA_ckl in it"):
        make_split(SplitConfig(str(tmp_path), "m", str(tmp_path / "out")))
