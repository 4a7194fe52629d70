"""Run: pytest tests/test_reproduce.py. The grid: what is chosen, what is run again, what cannot be had."""

import pytest

from taalm import reproduce
from taalm.errors import UserError
from taalm.results import save_result

TOTALS = {"1e-4": 1.02, "3e-4": 1.05, "1e-3": 0.8}


def fake_evaluate(ran: list):
    def main(arguments: list[str]) -> None:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        name, rate = given["--name"], given.get("--adapt.lr", "1e-4")
        ran.append((given["--out"].rsplit("/", 1)[1], name))
        if given["--method"] == "recadam" and rate == "1e-3":
            raise UserError("lr * coefficient is 5, at least 2: it diverges")
        total = TOTALS.get(rate, 1.0) + (0.1 if given.get("--rho.keep") == "0.8" else 0)
        top_epoch = 0 if given["--method"] == "finetune" and rate == "3e-4" else 2
        outcomes = {"a": [total - 1, 1.0]}, {"k": [1.0, 1.0]}
        entry = dict(zip(("to_learn", "not_to_forget"), outcomes, strict=True))
        save_result(reproduce.Path(given["--out"]) / f"{name}.pkl", {
            "config": {"seed": int(given["--seed"])},
            "eval_result": {0: entry, 1: entry},
            "summary": {"final_total": total, "top_epoch": top_epoch, "phi": given.get("--phi")},
            "framing": {"do-nothing": {"total": 1.0}},
        })  # fmt: skip

    return main


@pytest.fixture
def ran(monkeypatch, tmp_path, sample_folder):
    calls: list = []
    monkeypatch.setattr(reproduce.evaluate, "main", fake_evaluate(calls))

    def train(arguments: list[str]) -> None:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        folder = reproduce.Path(given["--out"]) / given["--name"]
        folder.mkdir(parents=True)
        (folder / "report.json").write_text("{}")
        calls.append(("phi", folder.name))

    monkeypatch.setattr(reproduce.train_ta, "main", train)

    def run(*more: str) -> list:
        calls.clear()
        reproduce.main(["--data", str(sample_folder), "--out", str(tmp_path), *more])
        return list(calls)

    return run


def test_the_best_cell_of_the_tuning_rows_is_reported_and_nothing_runs_twice(ran, capsys):
    cells = ran("--rows", "finetune,rho", "--seeds", "42,43")
    assert [name for kind, name in cells if kind == "tuning"] == [
        "finetune_lr1e-4", "finetune_lr3e-4", "finetune_lr1e-3", "rho_lr1e-4_rho.keep0.6",
        "rho_lr3e-4_rho.keep0.6", "rho_lr1e-3_rho.keep0.6", "rho_lr3e-4_rho.keep0.4", "rho_lr3e-4_rho.keep0.8",
    ]  # fmt: skip
    assert [name for kind, name in cells if kind == "final"] == ["finetune_s42", "rho_s42", "finetune_s43", "rho_s43"]
    said = capsys.readouterr().out
    assert "finetune: lr1e-4" in said  # 3e-4 has a better Total, and learned nothing
    assert (
        "rho: lr3e-4_rho.keep0.8" in said
        and "minus finetune, 95 %" in said
        and "| rho | 2 | 0.150 | 1.000 | 1.150 |" in said
    )
    assert ran("--rows", "finetune,rho", "--seeds", "42,43") == []
    assert ran("--rows", "finetune,rho", "--seeds", "42,43,44") == [("final", "finetune_s44"), ("final", "rho_s44")]


def test_targeted_takes_the_phi_of_its_seed(ran):
    cells = ran("--rows", "targeted", "--seeds", "42,43")
    assert [name for kind, name in cells if kind == "phi"] == ["seed42", "seed43"]


def test_a_cell_that_diverges_is_named_and_the_others_go_on(ran, capsys):
    ran("--rows", "recadam", "--seeds", "42")
    said = capsys.readouterr().out
    assert "recadam: lr3e-4_recadam.coefficient" in said
    assert "not to be had: tuning/recadam_lr1e-3_recadam.coefficient1250: lr * coefficient is 5" in said


def test_an_unknown_method_is_refused(ran):
    with pytest.raises(UserError, match="--rows finetun: not in the grid; there are finetune, targeted"):
        ran("--rows", "finetun")
