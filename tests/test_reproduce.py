"""Run: pytest tests/test_reproduce.py. The grid: what is chosen, what is run again, what cannot be had."""

import contextlib
import shutil

import pytest

from taalm import reproduce
from taalm.ceiling import CeilingConfig
from taalm.config import parse
from taalm.errors import NoResult, UserError
from taalm.evaluate import EvaluateConfig
from taalm.grid import ABLATIONS, ROWS
from taalm.results import load_result, save_result
from taalm.train_ta import TrainTAConfig
from tests.conftest import ROOT

TOTALS = {"1e-4": 1.02, "3e-4": 1.05, "1e-3": 0.8}


def fake_evaluate(ran: list):
    def main(arguments: list[str]) -> None:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        name, rate = given["--name"], given.get("--adapt.lr", "1e-4")
        ran.append((given["--out"].rsplit("/", 1)[1], name))
        if given["--method"] == "recadam" and rate == "1e-3":
            raise NoResult("lr * coefficient is 5, at least 2: it diverges")
        total = TOTALS.get(rate, 1.0) + (0.1 if given.get("--rho.keep") == "0.8" else 0)
        top_epoch = 0 if given["--method"] == "finetune" and rate == "3e-4" else 2
        outcomes = {"a": [total - 1, 1.0]}, {"k": [1.0, 1.0]}
        entry = dict(zip(("to_learn", "not_to_forget"), outcomes, strict=True))
        save_result(reproduce.Path(given["--out"]) / f"{name}.pkl", {
            "config": {"seed": int(given["--seed"])},
            "eval_result": {0: entry, 1: entry},
            "summary": {"final_total": total, "top_epoch": top_epoch, "given": given},
            "framing": {"do-nothing": {"total": 1.0}},
            "halves": [{"facts": ["a"], "eval_result": {0: entry}}] if "--swap_halves" in given else [],
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

    def weigh(arguments: list[str]) -> None:
        parse(CeilingConfig, "ceiling", arguments, "ceiling")
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        calls.append(("weights", f"{reproduce.Path(given['--out']).name} {given['--limit']}"))

    monkeypatch.setattr(reproduce.ceiling, "main", weigh)

    def run(*more: str) -> list:
        calls.clear()
        given = more if "--data" in more else ("--data", str(sample_folder), *more)
        reproduce.main(["--out", str(tmp_path), *given])
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
    assert "wikitext-2/valid.txt is not there: TA-train documents are the review texts" in said
    assert ran("--rows", "finetune,rho", "--seeds", "42,43") == []
    assert ran("--rows", "finetune,rho", "--seeds", "42,43,44") == [("final", "finetune_s44"), ("final", "rho_s44")]


def test_targeted_takes_the_phi_of_its_seed(ran):
    cells = ran("--rows", "targeted", "--seeds", "42,43")
    assert [name for kind, name in cells if kind == "phi"] == ["seed42", "seed43"]


def test_a_rows_own_flags_go_to_every_cell_and_all_cells_have_one_precision(ran, tmp_path):
    ran("--rows", "finetune,finetune_linear", "--seeds", "42")
    for file in tmp_path.glob("*/finetune*.pkl"):
        given = load_result(file)["summary"]["given"]
        assert given["--model.precision"] == "fp32"
        assert given.get("--adapt.schedule", "constant") == ("linear" if "linear" in file.stem else "constant")


def test_of_equal_final_totals_the_better_top_total_is_chosen(ran, monkeypatch, capsys):
    made = reproduce.evaluate.main

    def equal(arguments: list[str]) -> None:
        made(arguments)
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        path = reproduce.Path(given["--out"]) / f"{given['--name']}.pkl"
        result = load_result(path)
        result["summary"] |= {"final_total": 1.0, "total": 1.2 if given["--adapt.lr"] == "3e-4" else 1.1}
        save_result(path, result)

    monkeypatch.setattr(reproduce.evaluate, "main", equal)
    ran("--rows", "oracle", "--seeds", "42")
    assert "oracle: lr3e-4 (final Total 1.000" in capsys.readouterr().out


def test_a_cell_that_diverges_is_named_and_the_others_go_on(ran, capsys):
    ran("--rows", "recadam", "--seeds", "42")
    said = capsys.readouterr().out
    assert "recadam: lr3e-4_recadam.coefficient" in said
    assert "not to be had: tuning/recadam_lr1e-3_recadam.coefficient1250: lr * coefficient is 5" in said


def test_review_texts_of_the_data_folder_go_to_the_rows_that_take_them(ran, tmp_path, sample_folder):
    data = tmp_path / "data"
    shutil.copytree(sample_folder, data)
    (data / "wikitext-2").mkdir()
    (data / "wikitext-2" / "valid.txt").write_text("")
    ran("--data", str(data), "--rows", "finetune,targeted+kl,targeted+views+kl", "--seeds", "42")
    given = {name: load_result(tmp_path / "final" / f"{name}_s42.pkl")["summary"]["given"] for name in (
        "finetune", "targeted+kl", "targeted+views+kl")}  # fmt: skip
    assert "--review.data" not in given["finetune"]
    assert given["targeted+kl"]["--review.data"] == str(data / "wikitext-2" / "valid.txt")
    views = given["targeted+views+kl"]
    assert "--review.data" in views
    assert views["--preset"] == "smollm2-135m-views" and "--adapt.lr" not in views


def test_a_row_that_runs_once_runs_with_the_first_seed_and_other_facts_have_a_folder_of_their_own(ran):
    cells = ran("--rows", "tfidf,finetune_low", "--seeds", "42,43", "--kind", "balanced")
    assert [cell for cell in cells if cell[0] != "tuning"] == [
        ("balanced", "tfidf_s42"), ("balanced", "finetune_low_s42"), ("balanced", "finetune_low_s43"),
    ]  # fmt: skip


def test_a_phi_of_other_documents_is_trained_for_its_row(ran, tmp_path, sample_folder, capsys):
    cells = ran("--rows", "targeted_cross,finetune_low", "--seeds", "42")
    assert cells == [("final", "finetune_low_s42")]  # the sample set has no such facts: the row is left out
    said = capsys.readouterr().out
    assert "not to be had: targeted_cross: no cell of its tuning grid" in said
    assert "not to be had: tuning/targeted_cross_lr1e-4: there is no" in said
    data = tmp_path / "data"
    shutil.copytree(sample_folder, data)
    (data / "ta_train_cross.jsonl").write_bytes((sample_folder / "ta_train.jsonl").read_bytes())
    cells = ran("--data", str(data), "--rows", "targeted_cross", "--seeds", "42")
    assert ("phi", "targeted_cross_s42") in cells and ("phi", "seed42") not in cells


def test_an_ablation_whose_phi_cannot_be_trained_is_left_out(ran, monkeypatch, capsys):
    trained = reproduce.train_ta.main

    def fails(arguments: list[str]) -> None:
        if "--train_documents" in arguments:
            raise NoResult("--train_documents 200: the training facts have 160 documents")
        trained(arguments)

    monkeypatch.setattr(reproduce.train_ta, "main", fails)
    cells = ran("--kind", "ablations", "--rows", "documents_200,softplus", "--seeds", "42")
    assert cells == [("phi", "softplus_s42"), ("ablations", "softplus_s42")]
    assert "not to be had: ablations/documents_200_s42: --train_documents 200" in capsys.readouterr().out


def test_nothing_to_show_is_no_traceback(ran, capsys):
    ran("--kind", "ablations", "--rows", "targeted_cross", "--seeds", "42")
    assert "not to be had: ablations/targeted_cross_s42: there is no" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        ran("--seeds", "a")
    assert "--seeds: invalid" in capsys.readouterr().err


def test_a_failure_that_another_try_can_mend_stops_the_grid(ran, monkeypatch):
    """A full disk must not change what is chosen."""

    def full(arguments: list[str]) -> None:
        raise UserError("No space left on device")

    monkeypatch.setattr(reproduce.evaluate, "main", full)
    with pytest.raises(UserError, match="No space left"):
        ran("--rows", "oracle", "--seeds", "42")


def test_a_cell_made_with_other_settings_is_refused(ran, tmp_path):
    ran("--rows", "finetune_low", "--seeds", "42")
    made = next((tmp_path / "final").glob("*.pkl"))
    result = load_result(made)
    result["config"] = {"seed": 42, "limit": 128, "data": "elsewhere", "adapt": {"epochs": 12, "token_budget": 1}}
    save_result(made, result)
    assert ran("--rows", "finetune_low", "--seeds", "42") == []
    for flags, said in ((("--limit", "7"), "--limit 128, this grid has 7"), (("--epochs", "1"), "--adapt.epochs 12,")):
        with pytest.raises(UserError, match=f"finetune_low_s42.pkl: was made with {said}"):
            ran("--rows", "finetune_low", "--seeds", "42", *flags)


def test_a_cell_without_halves_is_gone_on_with(ran, tmp_path):
    ran("--rows", "finetune_low", "--seeds", "42")
    made = tmp_path / "final" / "finetune_low_s42.pkl"
    save_result(made, load_result(made) | {"halves": []})
    assert ran("--rows", "finetune_low", "--seeds", "42") == [("final", "finetune_low_s42")]
    assert ran("--rows", "finetune_low", "--seeds", "42") == []


def test_a_folder_of_other_data_is_refused(ran, tmp_path, sample_folder):
    other = tmp_path / "other"
    shutil.copytree(sample_folder, other)
    ran("--rows", "finetune_low", "--seeds", "42", "--data", str(other))
    facts = (other / "to_learn.jsonl").read_text().splitlines(keepends=True)
    (other / "to_learn.jsonl").write_text("".join(facts[1:]))
    with pytest.raises(UserError, match=r"other data: what --data \(to_learn\.jsonl\) names"):
        ran("--rows", "finetune_low", "--seeds", "42", "--data", str(other))


def test_a_finished_cell_whose_run_looked_up_its_questions_is_no_other_cell(ran, tmp_path):
    ran("--rows", "tfidf+views+kl", "--seeds", "42")
    made = tmp_path / "final" / "tfidf+views+kl_s42.pkl"
    result = load_result(made)
    for file, refused in (("ta_train.jsonl", False), ("others.jsonl", True)):
        result["config"] = {"seed": 42, "limit": 128, "views": {"questions": f"elsewhere/{file}"}}
        save_result(made, result)
        with pytest.raises(UserError, match=r"others\.jsonl") if refused else contextlib.nullcontext():
            assert ran("--rows", "tfidf+views+kl", "--seeds", "42") == []


def test_the_published_rows_of_views_are_those_of_the_grid(ran, tmp_path, sample_folder):
    data, rows = tmp_path / "data", [row for row in ROWS if "views" in row]
    shutil.copytree(sample_folder, data)
    (data / "wikitext-2").mkdir()
    (data / "wikitext-2" / "valid.txt").write_text("")
    (tmp_path / "final").mkdir()
    published = [ROOT / "docs" / "results" / "final" / f"{row}_s42.pkl" for row in rows]
    found = [file for file in published if file.is_file() and load_result(file).get("halves")]
    assert len(found) >= 5
    for file in found:
        shutil.copy(file, tmp_path / "final")
    ran_rows = ",".join(file.stem.removesuffix("_s42") for file in found)
    assert ran("--data", str(data), "--rows", ran_rows, "--seeds", "42") == []


def test_the_ceilings_weights_are_trained_on_the_facts_that_they_are_asked_about(ran, tmp_path):
    assert ran("--rows", "ceiling_linear", "--seeds", "42,43") == [
        ("weights", "to_learn 128"), ("final", "ceiling_linear_s42"),
    ]  # fmt: skip
    given = load_result(tmp_path / "final" / "ceiling_linear_s42.pkl")["summary"]["given"]
    assert given["--weights"].endswith("ceiling/to_learn/weights.jsonl") and given["--method"] == "given"


@pytest.mark.parametrize("row", ["finetune_low", "oracle+views+kl"])
def test_a_half_makes_as_many_updates_as_the_whole(ran, tmp_path, row):
    ran("--rows", row, "--seeds", "42")
    given = load_result(tmp_path / "final" / f"{row}_s42.pkl")["summary"]["given"]
    flags = [part for pair in given.items() for part in pair]
    settings = parse(EvaluateConfig, "evaluate/lama_ckl", flags, "evaluate")
    assert settings.swap_halves and settings.adapt.batch_size == 2 * settings.half_batch


def test_ablations_train_a_phi_each_and_are_asked_on_the_tuning_rows(ran, tmp_path):
    cells = ran("--kind", "ablations", "--rows", "preset,exact_joint", "--seeds", "42,43")
    assert cells == [
        ("phi", "seed42"), ("ablations", "preset_s42"), ("phi", "exact_joint_s42"), ("ablations", "exact_joint_s42"),
    ]  # fmt: skip
    given = load_result(tmp_path / "ablations" / "exact_joint_s42.pkl")["summary"]["given"]
    assert given["--to_learn"].endswith("tune_to_learn.jsonl") and given["--adapt.lr"] == "3e-4"
    assert given["--adapt.schedule"] == "linear" and "--swap_halves" not in given
    assert given["--phi"].endswith("exact_joint_s42/phi")


@pytest.mark.parametrize("name", [*ROWS, *ABLATIONS])
def test_the_flags_of_every_row_exist(name):
    row = ABLATIONS.get(name) or ROWS[name]
    flags = [*row.fixed, *((row.own[0], row.own[1][0]) if row.own else ())]
    assert parse(EvaluateConfig, "evaluate/lama_ckl", ["--method", row.method, *flags], "evaluate")
    assert parse(TrainTAConfig, "train_ta/lama_ckl", list(row.phi), "train_ta")


def test_an_unknown_method_is_refused(ran):
    with pytest.raises(UserError, match="--rows finetun: not in the grid; there are finetune, targeted"):
        ran("--rows", "finetun")
