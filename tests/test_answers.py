"""Run: pytest tests/test_answers.py. Common answers in a result: shares by hand, the guesser, draws of answers."""

from dataclasses import replace

import numpy as np
import pytest

from taalm.answers import GUESSER, asked_facts, by_group, main, shares
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.intervals import methods, table
from taalm.results import save_result
from tests.test_intervals import result


@pytest.fixture(scope="module")
def facts(sample_folder):
    """Four facts of one relation: two have TA-train's commonest answer, one another of it, one a new one."""
    some = read_facts(sample_folder / "to_learn.jsonl")[:4]
    objects = ("Oslo", "Oslo", "Rome", "Nice")
    return [
        replace(fact, uuid=f"f{index}", relation_code="P1", object=name)
        for index, (fact, name) in enumerate(zip(some, objects, strict=True))
    ]


@pytest.fixture(scope="module")
def train(facts):
    return [replace(facts[0], object=name) for name in ("Rome", "Oslo", "Oslo")]


def test_accuracy_is_split_by_whether_ta_train_has_the_answer_and_a_guesser_stands_beside(facts, train):
    found = result([1.0, 0.0, 0.5, 1.0], [1.0, 0.5])
    table_of = shares(methods({"a_s1": found})[0], 1.0, facts, train)
    rows = [line.strip("| ").split(" | ") for line in table_of.splitlines()]
    assert rows[0] == ["method", "TO-LEARN", "answer in TA-train (3)", "not in it (1)", "final Total"]
    assert rows[2:] == [
        [GUESSER, "0.500", "0.667", "0.000", "1.500"],
        ["a", "0.625", "0.500", "1.000", "1.375"],
    ]


def test_facts_of_one_answer_are_drawn_together():
    rng = np.random.default_rng(5)
    learned = np.repeat(rng.integers(0, 2, 10), 12).astype(float).tolist()
    found = {"a_s1": result(learned, [1.0])}

    def width(groups: dict[str, str] | None) -> float:
        low, high = table(found, groups=groups).splitlines()[-1].split("[")[1].split("]")[0].split(", ")
        return float(high) - float(low)

    assert width({f"f{index}": str(index // 12) for index in range(120)}) > 2.5 * width(None) > 0


def test_accuracy_by_group_is_shown_seed_by_seed_the_largest_group_first():
    learned = np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]])
    rows = by_group({"a": learned, "b": learned[:1]}, ["P2 genre", "P1 capital", "P1 capital"]).splitlines()
    assert rows[0] == "|  | facts | a | b |"
    assert rows[2:] == [
        "| P1 capital | 2 | 0.250, 0.500 | 0.250 |",
        "| P2 genre | 1 | 1.000, 1.000 | 1.000 |",
    ]


def test_facts_of_another_file_and_results_of_another_benchmark_are_refused(facts, tmp_path, sample_folder):
    with pytest.raises(UserError, match=r"a_s1: its fact f1 is not in here; .*--to_learn"):
        asked_facts("a_s1", ["f0", "f1"], facts[:1], "here")
    save_result(tmp_path / "a_s1.pkl", {"config": {}, "eval_result": {0: {}}})
    with pytest.raises(UserError, match="no result of LAMA-ckl"):
        main([str(tmp_path), "--data", str(sample_folder)])


def relation(fact):
    return f"{fact.relation_code} {fact.relation_label}"


def wording(fact):
    head = fact.task_descriptive.rpartition(fact.object)[0].strip()
    return head.replace(fact.subject, "<subject>") if fact.subject in head else "no subject before the object"


@pytest.mark.parametrize(("by", "group"), [("relation", relation), ("wording", wording)])
def test_the_command_prints_all_tables(tmp_path, sample_folder, capsys, by, group):
    made, asked = result([1.0] * 48, [1.0] * 5), {}
    for name, file in (("to_learn", "to_learn"), ("not_to_forget", "not_to_forget_descriptive")):
        asked[name] = read_facts(sample_folder / f"{file}.jsonl")
        for entry in made["eval_result"].values():
            entry[name] = {fact.uuid: [1.0, 1.0] for fact in asked[name]}
    save_result(tmp_path / "a_s1.pkl", made)
    main([str(tmp_path), "--data", str(sample_folder), "--against", "a", "--by", by])
    printed = capsys.readouterr().out
    assert "| method | TO-LEARN | answer in TA-train (" in printed and "minus a, 95 %" in printed
    assert f"answers of {len(asked['to_learn'])} facts, drawn with all their facts:" in printed
    train = {group(fact) for fact in read_facts(sample_folder / "ta_train.jsonl")}
    first, second = printed.split(f"TO-LEARN by {by} ")[1].split(f"NOT-TO-FORGET by {by} ")
    for part, facts in ((first, asked["to_learn"]), (second, asked["not_to_forget"])):
        shared = sum(group(fact) in train for fact in facts)
        assert part.startswith(f"({shared} of {len(facts)} facts have one of TA-train's {len(train)}):")
        for fact in facts:
            count = sum(group(other) == group(fact) for other in facts)
            assert f"| {group(fact)} | {count} | 1.000 |" in part
