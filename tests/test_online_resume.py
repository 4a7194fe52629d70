"""Run: pytest tests/test_online_resume.py. The stream interrupted, checked, kept, and in several processes."""

import csv

import pytest
import torch

from taalm import online, online_run
from taalm.adapt import Adaptation
from taalm.checkpoint import load_state
from taalm.errors import UserError
from taalm.online_config import OnlineConfig, cell_config
from taalm.results import load_result
from tests.conftest import ONLINE_SAMPLE as SAMPLE
from tests.conftest import run_module, two_at_once


class Killed(Exception):
    pass


RESUMED = {
    "mixreview": ("--optimizer", "adafactor", "--buffer_share", 0.5),
    "rho": ("--optimizer", "adamw"),
    "recadam": ("--recadam.t0_share", 0.25, "--recadam.coefficient", 200),
    "targeted": ("--optimizer", "adafactor"),
}


@pytest.mark.parametrize("method", RESUMED)
def test_interrupted_at_any_point_it_ends_as_if_never_interrupted(run_stream, tmp_path, monkeypatch, method):
    """After a date, after a date's training, and in the middle of it: the same results and the same theta."""
    settings = (
        "--method",
        method,
        "--num_train_epochs",
        2,
        "--learning_rate",
        1e-3,
        *RESUMED[method],
        "--dataset_version",
        "quarter",
        "--train_batch_size",
        4,
        "--gradient_accumulation_steps",
        1,
    )
    whole = run_stream(None, *settings, out=tmp_path / "whole")

    def stopped(patch: pytest.MonkeyPatch, owner: type, name: str, after: int):
        plain, calls = getattr(owner, name), []

        def call(self, *given):
            found = plain(self, *given)
            calls.append(1)
            if len(calls) == after:
                raise Killed
            return found

        patch.setattr(owner, name, call)

    def every_update(config: OnlineConfig, seq2seq: bool):
        found = cell_config(config, seq2seq)
        found.adapt.save_every = 1
        return found

    monkeypatch.setattr(online, "cell_config", every_update)
    places = [
        (online_run.Run, "save", 2),
        (online_run.Run, "learn", 2),
        (Adaptation, "_update", 2),
        (Adaptation, "_update", 14),
    ]
    for owner, name, after in places:
        out = tmp_path / f"{name}{after}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            stopped(patch, owner, name, after)
            run_stream(None, *settings, out=out)
        if owner is Adaptation:
            assert list((out / "training").iterdir())  # it goes on in the middle of a date, or of the reference
        again = run_stream(None, *settings, out=out)
        for result in (whole, again):
            for row in result["eval_result"].values():
                row.pop("seconds", None)
        assert again["eval_result"] == whole["eval_result"] and again["right"] == whole["right"]
        found = [load_state(next((folder / "checkpoints").iterdir()))[0] for folder in (tmp_path / "whole", out)]
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_another_runs_folder_and_another_models_checkpoint_are_refused(run_stream, tmp_path):
    run_stream(None, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"--limit 0, this one has 2; give this run another folder"):
        run_stream(None, "--limit", 2, out=tmp_path / "run")
    checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(UserError, match="another model"):
        run_stream(None, "--checkpoint_path", checkpoint, family="smollm2")


def test_checkpoints_are_kept_as_asked(run_stream, tmp_path):
    for kept, count in ((1, 1), (2, 2), (0, 4)):
        run_stream(None, "--keep_checkpoints", kept, "--limit", 1, out=tmp_path / str(kept))
        assert len(list((tmp_path / str(kept) / "checkpoints").iterdir())) == count
        assert not list((tmp_path / str(kept) / "training").iterdir())


def test_validation_asks_a_checkpoint_about_every_date_and_trains_nothing(run_stream, tmp_path, capsys):
    settings = (
        "--num_train_epochs",
        20,
        "--learning_rate",
        2e-3,
        "--optimizer",
        "adafactor",
        "--input_length",
        40,
        "--output_length",
        60,
    )
    result = run_stream(None, *settings, out=tmp_path / "run")
    (last,) = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    with pytest.raises(UserError, match="cannot read"):  # it makes no result file
        run_stream(None, *settings, "--check_validation", "true", "--checkpoint_path", last, out=tmp_path / "check")
    rows = list(csv.DictReader((tmp_path / "check" / "validation.csv").open()))
    assert [row["date"] for row in rows] == list(result["eval_result"])
    assert float(rows[-1]["em"]) == result["eval_result"]["2024-2"]["em"] > 0
    assert not (tmp_path / "check" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("model", "method", "sharded"),
    [("t5", "vanilla", "true"), ("t5", "mixreview", "false"), ("decoder", "lora", "true")],
)
def test_two_processes_give_the_numbers_of_one(t5_folder, tiny_folder, tmp_path, model, method, sharded):
    settings = (
        "--model",
        t5_folder if model == "t5" else tiny_folder,
        "--method",
        method,
        "--data",
        SAMPLE,
        "--dataset_version",
        "quarter",
        "--precision",
        "fp32",
        "--device",
        "cpu",
        "--num_train_epochs",
        4,
        "--learning_rate",
        1e-3,
        "--input_length",
        40,
        "--output_length",
        60,
    )

    def command(arguments: tuple) -> dict:
        name, *rest = arguments
        done = run_module("run", *settings, "--output_dir", tmp_path / name, *rest)
        assert done.returncode == 0, done.stderr
        return load_result(tmp_path / name / "result.pkl")

    one, two = two_at_once(
        command,
        [
            ("one", "--gradient_accumulation_steps", 2),
            ("two", "--gradient_accumulation_steps", 1, "--ngpu", 2, "--use_deepspeed", sharded),
        ],
    )
    first = True
    for date, row in one["eval_result"].items():  # sums are added in another order, and training goes apart slowly
        assert row["loss"] == pytest.approx(two["eval_result"][date]["loss"], rel=1e-3 if first else 5e-2)
        first = False


def test_a_launcher_with_another_number_of_processes_is_refused(run_stream, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="pass --ngpu 4"):
        run_stream(None)
