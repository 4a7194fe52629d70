"""Run: pytest tests/test_ablations.py. The ablations' table: what it shows of phi, what it compares."""

import json

import pytest

from taalm.ablations import main
from taalm.cell_config import phi_report
from taalm.errors import UserError
from taalm.evaluate import EvaluateConfig
from taalm.results import save_result


def result(learned: list[float], report: dict) -> dict:
    facts = {f"f{index}": [value, 1.0] for index, value in enumerate(learned)}
    return {
        "config": {"seed": 42},
        "phi_report": report,
        "eval_result": {0: {"to_learn": {uuid: [0.0, 1.0] for uuid in facts}, "not_to_forget": {"k": [1.0, 1.0]}},
                        1: {"to_learn": facts, "not_to_forget": {"k": [0.5, 1.0]}}},
        "framing": {"do-nothing": {"total": 1.0}},
        "documents": {uuid: uuid for uuid in facts},
    }  # fmt: skip


REPORT = {
    "held_out": {
        "object_ratio": {"q1": 1.0, "median": 20.0, "q3": 40.0},
        "object_ratio_uncommon": {"q1": 2.0, "median": 5.0, "q3": 9.0},
    },
    "task_loss_after_learning": {"train_attention": 7.25, "uniform": 8.0, "oracle": 7.0},
}


def test_the_preset_stands_first_and_the_others_by_their_final_total(tmp_path, capsys):
    for name, learned in (("preset", [0.4, 0.4]), ("exact", [0.5, 0.5]), ("softplus", [0.6, 0.6])):
        save_result(tmp_path / f"{name}_s42.pkl", result(learned, REPORT if name == "preset" else {}))
    main([str(tmp_path), "--against", "preset"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == (
        "| preset | 20.0 (1.0, 40.0) | 5.0 (2.0, 9.0) | 0.75 | 0.400 | 0.500 | 0.900 | +0.000 [+0.000, +0.000] |"
    )
    assert lines[3] == "| softplus |  |  |  | 0.600 | 0.500 | 1.100 | +0.200 [+0.200, +0.200] |"
    assert lines[4].startswith("| exact |") and len(lines) == 5
    main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2].endswith("| 0.600 | 0.500 | 1.100 |")
    with pytest.raises(UserError, match="--against shipped: not here; there are exact, preset, softplus"):
        main([str(tmp_path), "--against", "shipped"])


def test_a_result_knows_what_was_reported_of_its_phi(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi").mkdir()
    config = EvaluateConfig(phi=str(tmp_path / "phi"), method="targeted")
    assert phi_report(config) == phi_report(EvaluateConfig(method="targeted")) == {}
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    assert phi_report(config) == REPORT
    assert phi_report(EvaluateConfig(phi=config.phi, method="finetune")) == {}
    assert phi_report(EvaluateConfig(phi="smollm2-135m", method="targeted")) == {}  # the released one has none
    for broken in ("{", "[]", "{}"):
        report.write_text(broken)
        with pytest.raises(UserError, match=r"report.json: not what taalm.train_ta reported"):
            phi_report(config)
