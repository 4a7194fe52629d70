"""Run: pytest tests/test_faults.py. SIGTERM, two runs of one name, wrong clocks, (slow) kill -9 at random points."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from taalm import evaluate
from taalm.cell import CellConfig, settle_phi
from taalm.results import load_result
from tests.conftest import ROOT, run_module
from tests.test_commands import evaluate_arguments, kill_when, losses, train_arguments

KILLS = 25  # of each command


def final(out):
    return load_result(out / "run.pkl")["eval_result"]


def adaptation(tiny_folder, sample_folder, out, *more):
    return (*evaluate_arguments(tiny_folder, sample_folder, out, "--method", "finetune", "--name", "run"), *more)


def test_sigterm_saves_and_exits_143_and_the_run_goes_on(tiny_folder, sample_folder, tmp_path):
    state = "runs/run/state.safetensors"
    slow = ("--adapt.epochs", 60, "--adapt.save_every", 1000)  # no save of its own in the middle
    given = adaptation(tiny_folder, sample_folder, tmp_path / "stopped", *slow)
    assert kill_when(given, (tmp_path / "stopped" / state).exists, signal.SIGTERM) == 143
    again = run_module(*given)
    assert again.returncode == 0 and "resuming at epoch" in again.stdout + again.stderr
    assert run_module(*adaptation(tiny_folder, sample_folder, tmp_path / "whole", *slow)).returncode == 0
    stopped, whole = final(tmp_path / "stopped"), final(tmp_path / "whole")
    assert all(stopped[epoch]["ppl_changed"] == whole[epoch]["ppl_changed"] for epoch in whole)


def test_sigterm_saves_the_training_of_phi_too(tiny_folder, sample_folder, tmp_path):
    given = train_arguments(tiny_folder, sample_folder, tmp_path, "--outer.steps", 400, "--outer.save_every", 1000)
    run = tmp_path / "phi"
    assert kill_when((*given, "--name", "phi"), (run / "documents.json").exists, signal.SIGTERM) == 143
    assert len(losses(run)) >= 1


def test_a_second_run_of_one_name_is_refused_while_the_first_one_lives(tiny_folder, sample_folder, tmp_path):
    given = adaptation(tiny_folder, sample_folder, tmp_path)
    folder = tmp_path / "runs" / "run"
    hold = "\n".join([
        "from pathlib import Path",
        "from taalm.run_folder import _lock",
        f"_lock(Path({str(folder)!r}))",
        "print('in', flush=True)",
        "input()",
    ])  # fmt: skip
    first = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "in\n"
    second = run_module(*given)
    assert second.returncode == 2 and "another process is at work on this run" in second.stderr
    first.kill()  # and with it the lock
    first.wait()
    assert run_module(*given).returncode == 0


def test_a_clock_that_steps_back_changes_no_number(tiny_folder, sample_folder, tmp_path, monkeypatch):
    """The day's time falls by an hour at every look at it; seconds come from a clock that only goes on."""
    found, now = {}, itertools.count(time.time(), -3600)
    for name in ("whole", "back"):
        if name == "back":
            for clock in ("time.time", "tqdm.std.time"):
                monkeypatch.setattr(clock, lambda: next(now))
        monkeypatch.delenv("TAALM_DATA", raising=False)
        evaluate.main(list(map(str, adaptation(tiny_folder, sample_folder, tmp_path / name)[1:])))
        found[name] = final(tmp_path / name)
    seconds = [row.pop("seconds") for row in found["back"].values()]
    assert seconds == sorted(seconds) and seconds[0] == 0 < seconds[-1] < 60
    for row in found["whole"].values():
        del row["seconds"]
    assert found["back"] == found["whole"]


def test_the_newest_phi_is_taken_and_the_choice_is_told(tmp_path, capsys):
    """A file's time is all there is to know it by, and a clock may have been wrong."""
    for name, stamp in (("a", 200), ("b", 300), ("c", 300), ("d", 100)):
        file = tmp_path / name / "phi" / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (stamp, stamp))
    config = CellConfig(method="targeted", phi_runs=str(tmp_path))
    settle_phi(config)
    assert config.phi == str(tmp_path / "c" / "phi")
    assert "(by its file's time the newest of 4; --phi names another)" in capsys.readouterr().out
    settle_phi(config)
    assert "--phi names" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phi", "adaptation"])
def test_killed_at_random_points_nothing_is_torn_and_the_numbers_are_the_same(
    kind, tiny_folder, sample_folder, tmp_path, capsys
):
    """kill -9 after random times, again and again, until it has been killed often enough; then it runs to its end."""
    if kind == "phi":
        more = ("--outer.steps", 60, "--outer.save_every", 1, "--name", "phi")
        whole, killed = (
            train_arguments(tiny_folder, sample_folder, tmp_path / name, *more) for name in ("whole", "killed")
        )
    else:
        more = ("--adapt.epochs", 12)
        whole, killed = (adaptation(tiny_folder, sample_folder, tmp_path / name, *more) for name in ("whole", "killed"))
    assert run_module(*whole).returncode == 0
    rng, kills, runs = random.Random(7), 0, 0
    while kills < KILLS and runs < 3 * KILLS:
        runs += 1
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, killed)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.wait(timeout=rng.uniform(4, 9))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        error = process.stderr.read().decode()
        assert "Traceback" not in error and "error:" not in error, error
        time.sleep(0.05)
        if process.returncode == 0:
            break
    done = run_module(*killed)
    assert done.returncode == 0, done.stderr
    with capsys.disabled():
        print(f"\n{kind}: {kills} kills in {runs} runs, then the end")
    if kind == "phi":
        assert losses(tmp_path / "killed" / "phi") == losses(tmp_path / "whole" / "phi")
    else:
        one, other = final(tmp_path / "killed"), final(tmp_path / "whole")
        assert all(one[epoch]["ppl_changed"] == other[epoch]["ppl_changed"] for epoch in other)
