"""Run: pytest tests/test_answers.py. Common answers in a result: shares by hand, the guesser, draws of answers."""

from dataclasses import replace

import numpy as np
import pytest

from taalm.answers import GUESSER, asked_facts, main, shares
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


def test_facts_of_another_file_and_results_of_another_benchmark_are_refused(facts, tmp_path, sample_folder):
    with pytest.raises(UserError, match=r"a_s1: its fact f1 is not in here; .*--to_learn"):
        asked_facts("a_s1", ["f0", "f1"], facts[:1], "here")
    save_result(tmp_path / "a_s1.pkl", {"config": {}, "eval_result": {0: {}}})
    with pytest.raises(UserError, match="no result of LAMA-ckl"):
        main([str(tmp_path), "--data", str(sample_folder)])


def test_the_command_prints_both_tables(tmp_path, sample_folder, capsys):
    asked = read_facts(sample_folder / "to_learn.jsonl")
    made = result([1.0] * len(asked), [1.0])
    for entry in made["eval_result"].values():
        entry["to_learn"] = {fact.uuid: value for fact, value in zip(asked, entry["to_learn"].values(), strict=True)}
    save_result(tmp_path / "a_s1.pkl", made)
    main([str(tmp_path), "--data", str(sample_folder), "--against", "a"])
    printed = capsys.readouterr().out
    assert "| method | TO-LEARN | answer in TA-train (" in printed and "minus a, 95 %" in printed
    assert f"answers of {len(asked)} facts, drawn with all their facts:" in printed
