"""Run: pytest tests/test_results.py. Result files: round trip, hostile and damaged pickles, the table."""

import json
import os
import pickle
import subprocess
import sys

import pytest

from taalm.errors import UserError
from taalm.results import COLUMNS, averaged, chosen, load_result, load_results, main, save_result, table

SUMMARY = {key: 0.125 + index for index, (_, key) in enumerate(COLUMNS)} | {"top_epoch": 4, "read_knowledge": None}
FRAMING = {"do-nothing": {"top_acc": 0.0, "nf_acc": 1.0, "total": 1.0}, "relation-majority": {"top_acc": 0.4642}}
RESULT = {
    "method": "oracle",
    "eval_result": {0: {"acc_changed": 0.0, "to_learn": {"ü": [0.5, 1.25]}}, 1: {"acc_changed": 1 / 3}},
    "summary": SUMMARY,
    "framing": FRAMING,
    "phi": None,
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_result_comes_back_and_has_a_json_twin(tmp_path):
    path = tmp_path / "new folder" / "oracle_seed1.pkl"
    save_result(path, RESULT)
    assert load_result(path) == RESULT == load_result(str(path))
    twin = json.loads(path.with_suffix(".json").read_text())
    assert twin == json.loads(json.dumps(RESULT)) and twin["eval_result"]["1"]["acc_changed"] == 1 / 3
    assert load_results(path.parent) == {"oracle_seed1": RESULT}
    with path.open("rb") as file:  # an ordinary pickle, as the published ones
        assert pickle.load(file) == RESULT


class Hostile:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path, protocol):
    path, trace = tmp_path / "bad.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"eval_result": {0: Hostile(f"touch {trace}")}}, protocol=protocol))
    with pytest.raises(UserError, match=r"bad\.pkl: this pickle wants to import (posix|nt)\.system; .* plain values"):
        load_result(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the pickle does bite


def test_a_damaged_pickle_is_refused_wherever_it_is_cut(tmp_path):
    path = tmp_path / "cut.pkl"
    whole = pickle.dumps(RESULT, protocol=4)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pkl: not a whole result file"):
            load_result(path)
    path.write_bytes(b"\x93 not a pickle \xff" * 9)
    with pytest.raises(UserError, match="not a whole result file"):
        load_result(path)


@pytest.mark.parametrize("other", [[1, 2], "text", None, {}, {"eval_result": [1]}, {"eval_result": None}])
def test_a_pickle_of_something_else_is_refused(tmp_path, other):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(other))
    with pytest.raises(UserError, match=r"other\.pkl: not a result file of taalm: no 'eval_result'"):
        load_result(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no\.pkl: cannot read this file"):
        load_result(tmp_path / "no.pkl")


def test_the_table_holds_every_column_and_the_framing_rows_first():
    header, rule, *rows = table({"oracle_seed1": RESULT, "other": {"summary": {"top_acc": 0.5}}}).splitlines()
    assert cells(header) == ["result", *(title for title, _ in COLUMNS)]
    assert set(rule) == {"|", "-"} and len({len(line) for line in (header, rule, *rows)}) == 1
    assert [cells(row)[0] for row in rows] == ["do-nothing", "relation-majority", "oracle_seed1", "other"]
    found = {cells(row)[0]: dict(zip((key for _, key in COLUMNS), cells(row)[1:], strict=True)) for row in rows}
    for key, value in SUMMARY.items():
        expected = {"top_epoch": "4", "read_knowledge": "–"}.get(key) or f"{value:.3f}"
        assert found["oracle_seed1"][key] == expected
    assert found["do-nothing"]["total"] == "1.000" and found["do-nothing"]["top_acc"] == "0.000"  # 0 is a value
    assert found["relation-majority"]["top_acc"] == "0.464"
    assert [key for key, cell in found["other"].items() if cell != "–"] == ["top_acc"]


def test_framing_rows_that_differ_are_all_shown_once():
    other = {**RESULT, "framing": {"do-nothing": {"top_acc": 0.25, "nf_acc": 0.75, "total": 1.0}}}
    text = table({"a": RESULT, "b": other, "c": other, "d": RESULT})
    labels = [cells(line)[0] for line in text.splitlines()[2:]]
    assert labels == ["do-nothing", "do-nothing (b)", "relation-majority", "a", "b", "c", "d"]
    assert "0.250" in text and "0.464" in text
    assert any("0.000" in line and "1.000" in line for line in text.splitlines() if "do-nothing" in line)


def test_the_command_prints_the_folders_table_or_says_that_it_is_empty(tmp_path, capsys):
    with pytest.raises(UserError, match="no result files"):
        main([str(tmp_path)])
    save_result(tmp_path / "oracle_seed1.pkl", RESULT)
    main([str(tmp_path)])
    assert capsys.readouterr().out.strip() == table({"oracle_seed1": RESULT})
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "folder of result files" in capsys.readouterr().out


def test_periods_of_temporalwiki_have_columns_of_their_own():
    found = {"period": "0901-1001", "summary": {"unchanged": 6.0, "changed": 7.0, "average": 6.5, "minutes": 2.0}}
    title, _, row = table({"finetune_0": found}).splitlines()
    assert title.split("|")[2:6] == [" period    ", " Un    ", " C     ", " average "]
    assert row.split("|")[2:6] == [" 0901-1001 ", " 6.000 ", " 7.000 ", " 6.500   "]


def test_results_are_chosen_by_name_or_by_method():
    results = dict.fromkeys(("rho_s42", "rho_s43", "rho_theta0_seed1", "finetune_low_s42"), RESULT)
    assert list(chosen(results, "")) == list(results)
    assert list(chosen(results, "rho")) == ["rho_s42", "rho_s43"]
    assert list(chosen(results, "rho_s43,rho_theta0")) == ["rho_s43", "rho_theta0_seed1"]
    with pytest.raises(UserError, match="--only: there is no result finetune; there are rho_s42, "):
        chosen(results, "rho,finetune")


def test_reading_results_loads_no_model_library():
    code = "import sys, taalm.intervals, taalm.results; sys.exit(bool({'peft', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_a_method_is_the_mean_of_its_seeds_with_their_spread(tmp_path, capsys):
    results = {f"a_s{seed}": RESULT | {"summary": {"final_acc": value}} for seed, value in ((1, 0.1), (2, 0.3))}
    results["b_s1"] = RESULT | {"summary": {"final_acc": 0.5, "kept_acc": None}}
    for name, result in results.items():
        save_result(tmp_path / f"{name}.pkl", result)
    found = averaged(load_results(tmp_path))
    assert {name: result["summary"] for name, result in found.items()} == {
        "a (2)": {"final_acc": "0.200 ±0.141"},
        "b (1)": {"final_acc": "0.500"},
    }
    main([str(tmp_path), "--mean", "--only", "a"])
    printed = capsys.readouterr().out
    assert "| a (2) " in printed and "b (1)" not in printed and cells(printed.splitlines()[2])[0] == "do-nothing"
    with pytest.raises(UserError, match=r"periods of TemporalWiki; python -m taalm\.period_intervals"):
        averaged({"a_s1_0": RESULT | {"period": "0901-1001"}})


def test_what_scaled_adapters_answer_are_rows_beside_their_results(tmp_path, capsys):
    def scaled(learned: float, read: float) -> dict:
        return {"0.5": {"acc_changed": learned, "acc_unchanged": 0.5, "total": learned + 0.5, "read_knowledge": read}}

    for seed, learned, read in ((1, 0.1, 0.0), (2, 0.3, 0.2)):
        result = RESULT | {"summary": {"final_acc": 0.9}, "scaled": scaled(learned, read)}
        save_result(tmp_path / f"a_s{seed}.pkl", result)
    main([str(tmp_path), "--shares"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    found = {cells(row)[0]: dict(zip(cells(header)[1:], cells(row)[1:], strict=True)) for row in rows}
    assert list(found)[2:] == ["a_s1", "a x0.5_s1", "a_s2", "a x0.5_s2"]
    assert found["a_s1"]["final Acc"] == "0.900" and found["a_s1"]["final NF"] == "–"
    own = {title: cell for title, cell in found["a x0.5_s2"].items() if cell != "–"}
    assert own == {"final Acc": "0.300", "final NF": "0.500", "final Total": "0.800", "read": "0.200"}
    main([str(tmp_path), "--shares", "--mean"])
    assert "| a x0.5 (2) " in (printed := capsys.readouterr().out) and "0.200 ±0.141" in printed
