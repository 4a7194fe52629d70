"""Run: pytest tests/test_intervals.py. Bootstrap intervals: coverage, pairing, documents, seeds."""

import numpy as np
import pytest

from taalm.errors import UserError
from taalm.intervals import Draws, Method, main, methods, table
from taalm.results import save_result


def result(learned: list[float], kept: list[float], seed: int = 42, documents: list[str] | None = None) -> dict:
    facts = {f"f{index}": [value, 1.0] for index, value in enumerate(learned)}
    known = {f"k{index}": [value, 1.0] for index, value in enumerate(kept)}
    start = {"to_learn": {uuid: [0.0, 1.0] for uuid in facts}, "not_to_forget": {uuid: [1.0, 1.0] for uuid in known}}
    return {
        "config": {"seed": seed},
        "eval_result": {0: start, 1: {"to_learn": facts, "not_to_forget": known}},
        "framing": {"do-nothing": {"total": 1.0}},
        "documents": dict(zip(facts, documents or facts, strict=True)),
    }


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    rng = np.random.default_rng(1)
    learned = rng.random(400)
    method = Method((1,), learned[None], np.ones((1, 50)))
    totals = method.totals(Draws([str(index) for index in range(400)], 50))
    assert abs(totals.mean() - method.total) < 0.002
    assert totals.std() == pytest.approx(learned.std() / 20, rel=0.05)


def test_facts_of_one_document_are_drawn_together():
    learned = np.repeat([0.0, 1.0], 100)[None]
    alone = Method((1,), learned, np.ones((1, 5)))
    apart = alone.totals(Draws([str(index) for index in range(200)], 5)).std()
    together = alone.totals(Draws([str(index // 10) for index in range(200)], 5)).std()
    assert together / apart == pytest.approx(10**0.5, rel=0.1)


def test_methods_with_the_same_facts_are_compared_pairwise():
    base = np.random.default_rng(2).random(60) / 2
    results = {
        "a_s42": result(list(base), [1.0] * 8),
        "a_s43": result(list(base), [1.0] * 8, 43),
        "b_s42": result(list(base + 0.1), [1.0] * 8),
        "b_s43": result(list(base + 0.1), [1.0] * 8, 43),
    }
    found, _, known = methods(results)
    assert list(found) == ["a", "b"] and found["a"].seeds == (42, 43) and known == [f"k{index}" for index in range(8)]
    rows = table(results, against="a").splitlines()
    assert rows[2] == "| do-nothing |  |  |  | 1.000 |  |  |"
    assert rows[3].startswith("| b | 2 |") and rows[3].endswith("| +0.100 [+0.100, +0.100] |")


def test_every_method_is_compared_with_the_model_that_most_begin_with():
    results = {f"{name}_s1": result([0.1, 0.2], [1.0]) for name in "abc"}
    whole = {"top_acc": 0.0, "nf_acc": 1.0, "total": 1.0}
    for name, frame in (("a_s1", {"top_acc": 0.0, "nf_acc": 0.8, "total": 0.8}), ("b_s1", whole), ("c_s1", whole)):
        results[name]["framing"] = {"do-nothing": frame, "relation-majority": {"top_acc": 0.5}}
    rows = table(results).splitlines()
    assert rows[2:4] == ["| do-nothing |  | 0.000 | 1.000 | 1.000 |  |", "| relation-majority |  | 0.500 |  |  |  |"]
    assert all(" | 1.150 | +0.150 [" in row for row in rows[4:]) and len(rows) == 7


def test_what_neither_learns_nor_forgets_differs_from_do_nothing_by_nothing():
    """A model that answers half of the known facts before and afterwards: their noise is not the method's."""
    made = result([0.25] * 8, [1.0, 0.0, 1.0, 0.0])
    made["eval_result"][0] = made["eval_result"][1]
    made["framing"]["do-nothing"] = {"top_acc": 0.25, "nf_acc": 0.5, "total": 0.75}
    assert table({"a_s-1": made}).splitlines()[-1].endswith("| 0.250 | 0.500 | 0.750 | +0.000 [+0.000, +0.000] |")


def test_an_interval_does_not_depend_on_the_other_rows():
    rng = np.random.default_rng(4)
    results = {f"a_s{seed}": result(list(rng.random(20)), [1.0], seed) for seed in (1, 2)}
    others = {"b_s1": result(list(rng.random(20)), [1.0], 1)}
    alone, among = (table(some).splitlines() for some in (results, others | results))
    assert [row for row in among if row.startswith("| a |")] == alone[-1:]


def test_seeds_that_differ_widen_the_interval():
    same = Method((1, 2), np.full((2, 30), 0.5), np.ones((2, 5)))
    spread = Method((1, 2), np.stack([np.full(30, 0.2), np.full(30, 0.8)]), np.ones((2, 5)))
    draws = Draws([str(index) for index in range(30)], 5)
    assert same.totals(draws).std() < 1e-9 < 0.1 < spread.totals(draws).std()


def test_read_knowledge_is_drawn_by_document_half_and_seed():
    rng = np.random.default_rng(3)
    uuids, learned = [f"f{index}" for index in range(60)], rng.random(60) / 2

    def with_halves(gain: float, seed: int, among: int = 60) -> dict:
        parts = uuids[seed % 2 :: 2], uuids[1 - seed % 2 :: 2]
        made = result(list(learned), [1.0], seed)
        made["halves"] = [{
            "facts": list(part),
            "eval_result": {1: {"to_learn": {
                uuid: [learned[index] + gain * (uuid in part and index < among), 1.0]
                for index, uuid in enumerate(uuids)
            }}},
        } for part in parts]  # fmt: skip
        return made

    results = {f"{name}_s{seed}": with_halves(gain, seed) for name, gain in (("a", 0.1), ("b", 0.3)) for seed in (1, 2)}
    results |= {"c_s1": result(list(learned), [1.0], 1), "d_s1": with_halves(0.6, 1, among=30)}
    rows = table(results, against="a").splitlines()
    assert rows[0].endswith("| read knowledge, 95 % | read, minus a |")
    (b,) = (row for row in rows if row.startswith("| b |"))
    assert b.endswith("| +0.200 [+0.200, +0.200] |")  # the same draws: what differs is the gain alone
    (c,) = (row for row in rows if row.startswith("| c |"))
    assert c.endswith("|  |  |")
    found, documents, known = methods(results)
    assert found["b"].read()[0] == pytest.approx(0.3)  # halves mirrored: what guessing differs in cancels
    assert found["b"].read(Draws(documents, len(known))).std() < 1e-9
    drawn = found["d"].read(Draws(documents, len(known)))  # half of the facts are read, worth .6 each
    assert drawn.mean() == pytest.approx(0.3, abs=0.01) and drawn.std() == pytest.approx(0.6 * 0.5 / 60**0.5, rel=0.2)
    assert "read" not in table({"c_s1": results["c_s1"]})


@pytest.mark.filterwarnings("error")
def test_a_draw_without_a_half_does_not_spoil_the_interval_of_read_knowledge():
    made = result([0.5] * 4, [1.0])
    parts = ["f0", "f1"], ["f2", "f3"]
    made["halves"] = [
        {"facts": part, "eval_result": {1: {"to_learn": {f"f{i}": [float(f"f{i}" in part), 1.0] for i in range(4)}}}}
        for part in parts
    ]
    assert table({"a_s1": made}).endswith("| 1.000 [+1.000, +1.000] |")


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    one, other = result([0.1, 0.2], [1.0]), result([0.1, 0.2, 0.3], [1.0])
    with pytest.raises(UserError, match="other facts"):
        table({"a_s1": one, "b_s1": other})
    with pytest.raises(UserError, match="--against c: not here; there are a"):
        table({"a_s1": one}, against="c")
    with pytest.raises(UserError, match="no result of LAMA-ckl"):
        table({"t": {"eval_result": {0: {"nll": 1.0}}, "config": {}}})
    save_result(tmp_path / "a_s1.pkl", one)
    main([str(tmp_path)])
    assert "| a | 1 | 0.150 | 1.000 | 1.150 | +0.150 [" in capsys.readouterr().out
