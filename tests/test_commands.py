"""Run: pytest tests/test_commands.py. The entry points as a user calls them: they work, resume, refuse bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from safetensors.torch import load_file

from taalm.config import run_entry
from taalm.results import load_result
from tests.conftest import ROOT, run_module, two_at_once

TRAIN = (
    "taalm.train_ta",
    "--outer.max_length",
    200,
    "--phi.layers",
    0,
    "--theta.first_layer",
    0,
    "--outer.batch_size",
    4,
    "--outer.warm_start",
    5,
)
EVALUATE = ("taalm.evaluate", "--adapt.epochs", 2, "--adapt.batch_size", 4, "--adapt.lr", 1e-2, "--adapt.save_every", 1,
            "--model.first_layer", 0)  # fmt: skip


def train_arguments(tiny_folder: Path, sample_folder: Path, out: Path, *more: object) -> tuple:
    models = ("--theta.name", tiny_folder, "--phi.backbone", tiny_folder)
    return (*TRAIN, *models, "--data", sample_folder, "--out", out, "--judged", 4, *more)


def evaluate_arguments(tiny_folder: Path, sample_folder: Path, out: Path, *more: object) -> tuple:
    return (*EVALUATE, "--model.name", tiny_folder, "--data", sample_folder, "--out", out, *more)


def losses(run: Path) -> list[tuple]:
    entries = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [(entry.get("fit_loss"), entry.get("task_loss")) for entry in entries]


def kill_when(arguments: tuple, ready, sent: int = signal.SIGKILL) -> int:
    """Start the command, kill -9 it (or send what is given) as soon as `ready()` holds; returns its exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(sent)
    return process.wait()


@pytest.fixture(scope="module")
def trained(tiny_folder, sample_folder, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run of 8 outer steps."""
    out = tmp_path_factory.mktemp("trained")
    arguments = train_arguments(tiny_folder, sample_folder, out, "--outer.steps", 8, "--outer.save_every", 1)
    done = run_module(*arguments, "--name", "phi")
    assert done.returncode == 0, done.stderr
    assert "object-to-mean weight ratio" in done.stdout
    return out / "phi"


def test_phi_training_killed_in_the_middle_goes_on_as_if_it_had_not_been(trained, tiny_folder, sample_folder, tmp_path):
    arguments = train_arguments(tiny_folder, sample_folder, tmp_path, "--outer.steps", 8, "--outer.save_every", 1)
    run = tmp_path / "phi"
    killed = (*arguments, "--name", "phi")
    kill_when(killed, lambda: (run / "log.jsonl").exists() and len(losses(run)) >= 3)
    assert 3 <= len(losses(run)) < 8
    assert run_module(*killed).returncode == 0
    assert losses(run) == losses(trained)
    ours, theirs = (load_file(folder / "phi" / "model.safetensors") for folder in (run, trained))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_the_run_folder_holds_the_resolved_configuration_and_a_report(trained):
    assert "first_layer: 0" in (trained / "config.yaml").read_text()
    report = json.loads((trained / "report.json").read_text())
    assert report["steps"] == 8 and report["held_out"]["documents"] == 8
    assert set(report["task_loss_after_learning"]) == {"train_attention", "uniform", "oracle"}


@pytest.mark.parametrize("method", ["finetune", "targeted", "oracle"])
def test_every_method_writes_a_result_with_all_numbers(method, trained, tiny_folder, sample_folder, tmp_path):
    arguments = evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--method", method, "--phi", trained / "phi")
    done = run_module(*arguments)
    assert done.returncode == 0, done.stderr
    result = load_result(tmp_path / f"{method}_seed42.pkl")
    assert list(result["eval_result"]) == [0, 1, 2]
    for entry in result["eval_result"].values():
        assert {"ppl_changed", "acc_changed", "ppl_unchanged", "acc_unchanged", "loss"} <= set(entry)
        assert len(entry["to_learn"]) == 8
    assert set(result["framing"]) == {"do-nothing", "relation-majority"}
    assert (tmp_path / "runs" / f"{method}_seed42" / "adapter" / "adapter_model.safetensors").exists()
    assert "relation-majority" in done.stdout
    later = run_module(*arguments, "--swap_halves", "true", "--scales", "[0, 1]")
    assert later.returncode == 0, later.stderr
    longer = load_result(tmp_path / f"{method}_seed42.pkl")
    assert longer["eval_result"] == result["eval_result"] and longer["summary"]["read_knowledge"] is not None
    if method == "finetune":
        scaled = run_module(*arguments, "--scale", "0.5", "--scales", "[0.5]", "--name", "scaled")
        assert scaled.returncode == 0, scaled.stderr
        half = load_result(tmp_path / "scaled.pkl")
        assert half["loss_by_step"] == result["loss_by_step"]  # what is learned is the same, what is asked half of it
        assert half["eval_result"][2]["ppl_changed"] != result["eval_result"][2]["ppl_changed"]
    before, after = (result["eval_result"][epoch] for epoch in (0, 2))
    assert longer["scaled"]["0.0"]["acc_changed"] == before["acc_changed"]
    assert longer["scaled"]["1.0"]["acc_unchanged"] == after["acc_unchanged"]


def test_methods_give_different_results_and_do_not_overwrite_each_other(trained, tiny_folder, sample_folder, tmp_path):
    def evaluate(method: str) -> subprocess.CompletedProcess:
        arguments = evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--method", method)
        return run_module(*arguments, "--phi", trained / "phi")

    losses = {}
    assert all(done.returncode == 0 for done in two_at_once(evaluate, ("finetune", "targeted", "oracle")))
    again = evaluate("oracle")
    assert again.returncode == 0 and "is there already" in again.stdout
    for method in ("finetune", "targeted", "oracle"):
        losses[method] = load_result(tmp_path / f"{method}_seed42.pkl")["loss_by_step"]
    assert losses["finetune"] != losses["targeted"] != losses["oracle"] != losses["finetune"]


def test_adaptation_killed_in_the_middle_goes_on_as_if_it_had_not_been(tiny_folder, sample_folder, tmp_path):
    whole = evaluate_arguments(tiny_folder, sample_folder, tmp_path / "whole", "--adapt.epochs", 12)
    assert run_module(*whole).returncode == 0
    killed = evaluate_arguments(tiny_folder, sample_folder, tmp_path / "killed", "--adapt.epochs", 12)
    state = tmp_path / "killed" / "runs" / "finetune_seed42" / "state.safetensors"
    kill_when(killed, lambda: state.exists() and state.stat().st_size > 0)
    assert not list((tmp_path / "killed").glob("*.pkl"))
    assert run_module(*killed).returncode == 0
    ours, theirs = (load_result(tmp_path / name / "finetune_seed42.pkl") for name in ("killed", "whole"))
    assert ours["loss_by_step"] == theirs["loss_by_step"]
    for epoch, entry in theirs["eval_result"].items():
        assert ours["eval_result"][epoch]["to_learn"] == entry["to_learn"]


def test_targeted_without_a_phi_says_how_to_make_one(tiny_folder, sample_folder, tmp_path):
    arguments = evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--method", "targeted")
    done = run_module(*arguments, "--phi_runs", tmp_path / "none")
    assert done.returncode == 2 and "scripts/train_TA/lama_ckl.sh" in done.stderr


def broken_facts(sample_folder: Path, folder: Path, change) -> Path:
    """to_learn.jsonl with its third row changed."""
    rows = [json.loads(line) for line in (sample_folder / "to_learn.jsonl").read_text().splitlines()]
    changed = change(rows[2])
    lines = [json.dumps(row) for row in rows]
    lines[2] = changed if isinstance(changed, str) else json.dumps(changed)
    path = folder / "broken.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


BAD_ROWS = {
    "a missing field": (lambda row: {k: v for k, v in row.items() if k != "evidence"}, "'evidence' is missing"),
    "a broken line": (lambda row: json.dumps(row)[:-9], "not valid JSON"),
    "an object absent from its task": (lambda row: row | {"task_descriptive": "nothing here ."}, "does not occur"),
    "an empty document": (lambda row: row | {"evidence": "", "masked_evidence": ""}, "is empty"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_one_sentence_with_file_and_line(case, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys):
    change, expected = BAD_ROWS[case]
    path = broken_facts(sample_folder, tmp_path, change)
    for arguments in (
        evaluate_arguments(tiny_folder, sample_folder, tmp_path / "out", "--to_learn", path),
        train_arguments(tiny_folder, sample_folder, tmp_path / "out", "--to_learn", path),
    ):
        said = refusal(arguments, monkeypatch, capsys)
        assert f"{path}:3: " in said and expected in said and said.count("\n") == 1


def bad_commands(tiny: Path, sample: Path, out: Path, trained: Path) -> dict[str, tuple[tuple, str]]:
    """Name -> (command, what stderr must say)."""
    evaluate, train = evaluate_arguments(tiny, sample, out), train_arguments(tiny, sample, out)
    cut = out / "cut"
    for name in ("config.json", "model.safetensors"):
        whole = (trained / "phi" / name).read_bytes()
        cut.mkdir(parents=True, exist_ok=True)
        (cut / name).write_bytes(whole if name == "config.json" else whole[: len(whole) // 2])
    other = out / "other"
    other.mkdir()
    described = json.loads((trained / "phi" / "config.json").read_text())
    described["train_attention"]["r"] = 4
    (other / "config.json").write_text(json.dumps(described))
    (other / "model.safetensors").write_bytes((trained / "phi" / "model.safetensors").read_bytes())
    same = (*train, "--outer.steps", 8, "--outer.save_every", 1, "--name", "phi", "--out", trained.parent)
    targeted, long = (*evaluate, "--method", "targeted", "--phi"), long_facts(sample, out)
    return {
        "a missing file": ((*evaluate, "--to_learn", out / "no.jsonl"), "no.jsonl: cannot read"),
        "a missing data folder": ((*train, "--data", out / "nowhere"), "no such folder"),
        "a document longer than the model": ((*evaluate, "--adapt.max_length", 0, "--to_learn", long), "reads 1024"),
        "an unknown preset": ((*evaluate, "--preset", "lama3"), "the presets are"),
        "an unknown key": ((*train, "--outer.step", 3), "did you mean --outer.steps"),
        "an unknown method": ((*evaluate, "--method", "finetun"), "the methods are"),
        "an unknown model": ((*evaluate, "--model.name", "smollm3"), "not packaged"),
        "an unknown estimator": ((*train, "--outer.hypergradient", "magic"), "double_backward"),
        "a truncated checkpoint": ((*targeted, cut), "truncated"),
        "a checkpoint of another model": ((*targeted, other), "another model"),
        "a folder without phi": ((*targeted, sample), "no Train-Attention"),
        "another run's folder": ((*same, "--seed", 7),
                                 "--seed 42"),
        "more documents than there are": ((*train, "--train_documents", 9999), "the training facts have"),
        "a selector's low weights": ((*evaluate, "--method", "rho", "--drop_below", 0.5), "none weighs less"),
        "training on what is judged": ((*train, "--to_learn", sample / "ta_train.jsonl"), "must not train on it"),
        "training on what shall be kept": ((*train, "--train_data", sample / "not_to_forget_descriptive.jsonl"),
                                           "is also in not_to_forget_descriptive.jsonl; phi must not train on it"),
        "no decay rate of a moment": ((*train, "--inner.betas", "[1.0,0.999]"), "at least 0 and below 1"),
        "no templates": ((*evaluate, "--views.templates", "[]"), "--views.templates: give at least one"),
    }  # fmt: skip


def long_facts(sample: Path, out: Path) -> Path:
    row = json.loads((sample / "to_learn.jsonl").read_text().splitlines()[0])
    for name in ("evidence", "masked_evidence"):
        row[name] += " And so it went on for years." * 200
    path = out / "long.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def refusal(command: tuple, monkeypatch, capsys) -> str:
    """Run an entry point in this process, as `python -m` does; what it says on stderr before it exits with code 2."""
    module, *arguments = map(str, command)
    monkeypatch.setattr("sys.argv", [module, *arguments])
    for name in ("TAALM_DATA", "PRESET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        run_entry(import_module(module).main)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_bad_input_is_one_clear_sentence_and_exit_code_2(
    trained, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys
):
    for case, (command, expected) in bad_commands(tiny_folder, sample_folder, tmp_path, trained).items():
        said = refusal(command, monkeypatch, capsys)
        assert expected in said, (case, said)
        assert said.startswith("error: ") and said.count("\n") == 1, (case, said)


def test_a_truncated_state_is_told_and_left_alone(tiny_folder, sample_folder, tmp_path):
    arguments = evaluate_arguments(tiny_folder, sample_folder, tmp_path)
    assert run_module(*arguments).returncode == 0
    (tmp_path / "finetune_seed42.pkl").unlink()
    state = tmp_path / "runs" / "finetune_seed42" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    done = run_module(*arguments)
    assert done.returncode == 2 and "truncated" in done.stderr and state.stat().st_size == 1000
