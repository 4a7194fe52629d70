"""Run: pytest tests/test_period_intervals.py. TemporalWiki's table: means by hand, pairing, subjects, refusals."""

import re

import numpy as np
import pytest

from taalm import publish
from taalm.benchmarks.temporal_wiki import PERIODS
from taalm.errors import UserError
from taalm.period_intervals import main, table
from taalm.results import load_results, save_result

FIRST, SECOND, _ = PERIODS


def result(period: str, changed: list[float], unchanged: list[float], seed: int = 42, subjects: str = "") -> dict:
    names = {"changed": list(subjects or map(str, range(len(changed)))), "unchanged": ["x", "y"][: len(unchanged)]}
    start = {"nll_changed": [9.0] * len(changed), "nll_unchanged": [9.0] * len(unchanged)}
    last = {"nll_changed": changed, "nll_unchanged": unchanged}
    return {"config": {"seed": seed}, "period": period, "subjects": names, "eval_result": {0: start, 1: last}}


def test_means_of_seeds_and_periods_are_those_made_by_hand():
    results = {
        "a_s42_0": result(FIRST, [4.0, 6.0], [1.0, 3.0]),
        "a_s43_0": result(FIRST, [6.0, 8.0], [3.0, 5.0], 43),
        "a_s42_1": result(SECOND, [2.0], [2.0]),
        "a_s43_1": result(SECOND, [2.0], [2.0], 43),
        "b_s42_0": result(FIRST, [3.0, 5.0], [0.0, 2.0]),
        "b_s42_1": result(SECOND, [2.5], [2.5]),
    }
    rows = [line.strip("| ").split(" | ") for line in table(results, "a").splitlines()]
    assert rows[0][2::3] == [f"{FIRST}: Un / C / average", f"{SECOND}: Un / C / average"]
    assert rows[2][:3] == ["b", "1", "1.000 / 4.000 / 2.500"] and rows[2][3].startswith("-2.000 [")
    assert rows[2][5:] == ["2.500 / 2.500 / 2.500", "+0.500 [+0.500, +0.500]", "+0.000 [+0.000, +0.000]"]
    assert rows[3][:4] == ["a", "2", "3.000 / 6.000 / 4.500 (3.500 to 5.500)", "+0.000 [+0.000, +0.000]"]


def test_what_is_gained_on_unchanged_probes_too_is_told_apart():
    results = {"a_s1_0": result(FIRST, [5.0, 6.0], [3.0]), "b_s1_0": result(FIRST, [3.0, 4.0], [2.5])}
    rows = [line.strip("| ").split(" | ") for line in table(results, "a").splitlines()]
    assert rows[0][4] == "changed minus unchanged"
    assert rows[2][3:] == ["-1.250 [-1.250, -1.250]", "-1.500 [-1.500, -1.500]"]


def test_probes_are_compared_pairwise_and_those_of_a_subject_drawn_together():
    rng = np.random.default_rng(3)
    losses = rng.normal(5, 2, 40).round(4)

    def width(gains: np.ndarray, subjects: list[str]) -> float:
        found = {}
        for name, values in (("a", losses), ("b", losses - gains)):
            found[f"{name}_s1_0"] = result(FIRST, values.tolist(), [1.0])
            found[f"{name}_s1_0"]["subjects"]["changed"] = subjects
        low, high = re.findall(r"\[([-+.\d]+), ([-+.\d]+)\]", table(found, "a").splitlines()[2])[0]
        return float(high) - float(low)

    apart, together = [str(index) for index in range(40)], [str(index // 10) for index in range(40)]
    assert width(np.full(40, 0.25), apart) == 0  # however much the probes differ among themselves
    gains = np.repeat([0.0, 1.0], 20)
    assert width(gains, together) > 2 * width(gains, apart) > 0


def test_committed_copies_make_the_same_table_and_name_no_path(tmp_path):
    found = result(FIRST, [4.0, 6.0], [1.0, 3.0])
    found["config"]["phi"] = "/somewhere/phi"
    save_result(tmp_path / "own" / "a_s42_0.pkl", found)
    publish.main([str(tmp_path / "own"), str(tmp_path / "copies")])
    assert table(load_results(tmp_path / "copies")) == table(load_results(tmp_path / "own"))
    assert b"somewhere" not in (tmp_path / "copies" / "a_s42_0.pkl").read_bytes()


@pytest.mark.parametrize(
    ("other", "against", "said"),
    [
        (result(FIRST, [1.0], [1.0]), "", "b_s1 and a_s1 asked other probes"),
        (result(SECOND, [1.0, 2.0], [1.0]), "", f"no result of b for the period {FIRST}"),
        (result(FIRST, [1.0, 2.0], [1.0]), "c", "--against c: not here; there are a, b"),
        ({"config": {}, "eval_result": {0: {}}}, "", "no result of TemporalWiki"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, other, against, said):
    save_result(tmp_path / "a_s1_0.pkl", result(FIRST, [1.0, 2.0], [1.0]))
    save_result(tmp_path / "b_s1_0.pkl", other)
    with pytest.raises(UserError, match=said):
        main([str(tmp_path), "--against", against])
