"""Run: pytest tests/test_faults.py. SIGTERM, two runs of one name, wrong clocks, (slow) kill -9 at random points."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from taalm import evaluate
from taalm.benchmarks.temporal_wiki import SETS
from taalm.cell_config import CellConfig, settle_phi
from taalm.results import load_result
from tests.conftest import ONLINE_SAMPLE, ROOT, run_module
from tests.test_commands import evaluate_arguments, kill_when, losses, train_arguments
from tests.test_lama_pipeline import lama, many  # noqa: F401 (a fixture)
from tests.test_twiki_commands import raw, stand_in  # noqa: F401 (fixtures)

KILLS = 12  # of each command, at least


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


Work = tuple[tuple, Callable[[], object]]  # a command but for its folder, and the numbers it leaves there


@pytest.fixture
def works(request, tiny_folder, t5_folder, sample_folder) -> dict[str, Callable[[Path], Work]]:
    """Every kind of long work: folder -> (command, its final numbers)."""
    probes = request.getfixturevalue("stand_in")
    folder = request.getfixturevalue("lama")(*many(60))

    def phi(out: Path) -> Work:
        more = ("--outer.steps", 30, "--outer.save_every", 1, "--name", "phi")
        return train_arguments(tiny_folder, sample_folder, out, *more), lambda: losses(out / "phi")

    def adapting(out: Path) -> Work:
        given = adaptation(tiny_folder, sample_folder, out, "--adapt.epochs", 12)
        return given, lambda: [row["ppl_changed"] for row in final(out).values()]

    def periods(out: Path) -> Work:
        given = ("taalm.evaluate_twiki", "--method", "finetune", "--data", probes, "--model.name", tiny_folder,
                 "--adapt.lr", 1e-2, "--model.first_layer", 0, "--adapt.batch_size", 2, "--adapt.save_every", 1,
                 "--out", out)  # fmt: skip
        files = [out / f"finetune_seed42_{index}.pkl" for index in range(3)]
        return given, lambda: [[load_result(file)["summary"][name] for name in SETS] for file in files]

    def stream(out: Path) -> Work:
        given = ("run", "--model", t5_folder, "--data", ONLINE_SAMPLE, "--output_dir", out, "--method", "vannila",
                 "--dataset_version", "quarter", "--num_train_epochs", 2, "--learning_rate", 1e-3, "--precision",
                 "fp32")  # fmt: skip
        numbers = ("em", "bwt", "fwt", "kg")
        rows = lambda: load_result(out / "result.pkl")["eval_result"].values()  # noqa: E731
        return given, lambda: [[row[number] for number in numbers] for row in rows()]

    def pipeline(out: Path) -> Work:
        given = ("taalm.benchmarks.lama_pipeline", "--lama", folder, "--out", out, "--models", f'["{tiny_folder}"]')
        return given, lambda: {path.name: path.read_bytes() for path in sorted(out.rglob("*.jsonl"))}

    return {"phi": phi, "adaptation": adapting, "periods": periods, "stream": stream, "pipeline": pipeline}


def killed_and_resumed(command: tuple, longest: float, rng: random.Random) -> int:
    """Run the command again and again, each time killed -9 after a random time, until it ends; how often it was."""
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.wait(timeout=rng.uniform(0.4, 1.0) * longest)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        error = process.stderr.read().decode()
        assert "Traceback" not in error and "error:" not in error, error
        if process.wait() == 0:
            return kills


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phi", "adaptation", "periods", "stream", "pipeline"])
def test_killed_at_random_points_nothing_is_torn_and_the_numbers_are_the_same(kind, works, tmp_path, capsys):
    """kill -9 after random times until it ends, and so on in new folders until it has been killed often enough."""
    command, numbers = works[kind](tmp_path / "whole")
    started = time.perf_counter()
    done = run_module(*command)
    assert done.returncode == 0, done.stderr
    longest, expected = time.perf_counter() - started, numbers()
    rng, kills, rounds = random.Random(7), 0, 0
    while kills < KILLS:
        rounds += 1
        command, numbers = works[kind](tmp_path / f"killed{rounds}")
        kills += killed_and_resumed(command, longest, rng)
        assert numbers() == expected
    with capsys.disabled():
        print(f"\n{kind}: {kills} kills, {rounds} times to the end, the same numbers")
