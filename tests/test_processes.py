"""Run: pytest tests/test_processes.py. Two processes (gloo, CPU) give one process's numbers, and survive a death."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from taalm.config import run_entry
from taalm.results import load_result
from tests.conftest import ROOT, run_module
from tests.test_commands import evaluate_arguments, losses, train_arguments

FLOAT32 = (
    "--model.precision",
    "fp32",
    "--adapt.lr",
    1e-3,
    "--adapt.batch_size",
    5,
)  # 8 documents: 5 + 3, in two shares


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("TAALM_DATA", "PRESET")}
    return {**clean, "OMP_NUM_THREADS": "1"}


def launched(*arguments: object, processes: int = 2) -> list[str]:
    """The command line of `python -m module arguments` in several processes."""
    launcher = ("torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m")
    return [sys.executable, "-m", *launcher, *map(str, arguments)]


def run_launched(*arguments: object, processes: int = 2) -> subprocess.CompletedProcess:
    command = launched(*arguments, processes=processes)
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize(
    "method", ["finetune", "rho_theta0+recadam+review", pytest.param("kl+surprisal", marks=pytest.mark.slow)]
)
def test_adaptation_in_two_processes_is_that_in_one(method, tiny_folder, sample_folder, tmp_path):
    shared = ("--method", method, *FLOAT32, "--recadam.t0", 2, "--recadam.coefficient", 100)
    one = run_module(*evaluate_arguments(tiny_folder, sample_folder, tmp_path / "one", *shared))
    two = run_launched(*evaluate_arguments(tiny_folder, sample_folder, tmp_path / "two", *shared))
    assert one.returncode == 0 and two.returncode == 0, two.stderr
    assert two.stdout.count("relation-majority") == 1  # one process prints
    single, double = (load_result(tmp_path / name / f"{method}_seed42.pkl") for name in ("one", "two"))
    assert double["loss_by_step"] == pytest.approx(single["loss_by_step"], abs=1e-5)
    for epoch, entry in single["eval_result"].items():
        other = double["eval_result"][epoch]
        for key, value in entry.items():
            if key.startswith(("acc_", "em_")):
                assert other[key] == value
            elif key.startswith("ppl_"):
                assert other[key] == pytest.approx(value, abs=1e-4)
        assert {uuid: outcome[0] for uuid, outcome in other["to_learn"].items()} == {
            uuid: outcome[0] for uuid, outcome in entry["to_learn"].items()
        }


def alone_and_sharded(tiny_folder, sample_folder, tmp_path, *shared) -> str:
    """Runs named run in one process (folder one) and in shards (two) have the same losses; what the latter print."""
    one = run_module(*evaluate_arguments(tiny_folder, sample_folder, tmp_path / "one", *shared))
    two = run_launched(
        *evaluate_arguments(tiny_folder, sample_folder, tmp_path / "two", *shared, "--model.shard", "true")
    )
    assert one.returncode == 0 and two.returncode == 0, two.stderr
    single, double = (load_result(tmp_path / name / "run.pkl") for name in ("one", "two"))
    assert double["loss_by_step"] == pytest.approx(single["loss_by_step"], abs=1e-5)
    return two.stdout


@pytest.mark.parametrize("adapter", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_sharded_adaptation_is_that_in_one_process_and_resumes_unsharded(adapter, tiny_folder, sample_folder, tmp_path):
    """RHO-1, RecAdam and Mix-review too; the adapter that is saved is whole."""
    shared = ("--method", f"rho_theta0+recadam+review+{adapter}", *FLOAT32, "--recadam.coefficient", 100,
              "--save_adapter", "true", "--name", "run")  # fmt: skip
    alone_and_sharded(tiny_folder, sample_folder, tmp_path, *shared)
    for file in ("state.safetensors", "adapter/*.safetensors"):
        ours, theirs = (load_file(next((tmp_path / name / "runs" / "run").glob(file))) for name in ("two", "one"))
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


def test_shards_are_asked_the_same_views_as_one_process(tiny_folder, sample_folder, tmp_path):
    shared = ("--method", "oracle+views", *FLOAT32, "--views.asked", "2", "--views.templates", "[]",
              "--views.documents", "false", "--name", "run")  # fmt: skip
    printed = alone_and_sharded(tiny_folder, sample_folder, tmp_path, *shared)
    assert "16 cloze views of 8 documents" in printed


def test_phi_in_three_processes_is_that_in_one(tiny_folder, sample_folder, tmp_path):
    """Batches of 5 documents in shares of 2, 2 and 1; a warm start, and steps with retention."""
    shared = ("--outer.steps", 6, "--outer.warm_start", 2, "--outer.batch_size", 5, "--inner.mode", "independent",
              "--theta.precision", "fp32", "--phi.precision", "fp32", "--objective.retention", 0.1)  # fmt: skip
    one = run_module(*train_arguments(tiny_folder, sample_folder, tmp_path / "one", *shared, "--name", "phi"))
    three = run_launched(
        *train_arguments(tiny_folder, sample_folder, tmp_path / "three", *shared, "--name", "phi"), processes=3
    )
    assert one.returncode == 0 and three.returncode == 0, three.stderr
    for ours, theirs in zip(losses(tmp_path / "three" / "phi"), losses(tmp_path / "one" / "phi"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    ours, theirs = (json.loads((tmp_path / name / "phi" / "report.json").read_text()) for name in ("three", "one"))
    assert ours["task_loss_after_learning"] == pytest.approx(theirs["task_loss_after_learning"], abs=1e-4)
    assert ours["held_out"]["object_ratio"] == pytest.approx(theirs["held_out"]["object_ratio"], rel=1e-3)


def test_a_lost_process_is_one_sentence(monkeypatch, capsys):
    """What the others say when an exchange fails under them; `os._exit` is caught here."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)

    def main(arguments: list[str]) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer\nmore")

    run_entry(main)
    said = capsys.readouterr().err
    assert ended == [1] and said.count("\n") == 1
    assert "process 1 lost another process of this run" in said and "run the same command again" in said


def test_raw_rows_are_split_by_all_processes_together(tiny_folder, sample_folder, tmp_path):
    rows = (sample_folder / "to_learn.jsonl").read_text() + (sample_folder / "ta_train.jsonl").read_text()
    (tmp_path / "raw" / "LAMA_ckl").mkdir(parents=True)
    for name in ("variant", "invariant_descriptive", "invariant_schematic"):
        (tmp_path / "raw" / "LAMA_ckl" / f"{name}.jsonl").write_text(rows)

    def split(name: str, launch) -> dict[str, str]:
        done = launch(
            "taalm.benchmarks.lama_ckl_split", "--data", tmp_path / "raw", "--model", tiny_folder, "--out",
            tmp_path / name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {file.name: file.read_text() for file in (tmp_path / name).iterdir()}

    assert split("two", run_launched) == split("one", run_module)


def children(pid: int) -> list[int]:
    """The worker processes of a launcher."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker processes in /proc")
def test_a_worker_that_dies_ends_the_run_with_a_message_and_the_run_goes_on(tiny_folder, sample_folder, tmp_path):
    def arguments(name: str) -> tuple:
        return evaluate_arguments(tiny_folder, sample_folder, tmp_path / name, *FLOAT32, "--adapt.epochs", 30)

    state = tmp_path / "two" / "runs" / "finetune_seed42" / "state.safetensors"
    process = subprocess.Popen(
        launched(*arguments("two")), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before a worker could be killed"
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, messages = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in messages  # the launcher says it where it ends the others before they notice
    assert not list((tmp_path / "two").glob("*.pkl"))
    assert run_module(*arguments("two")).returncode == 0  # one process goes on where two were
    assert run_module(*arguments("one")).returncode == 0
    ours, theirs = (load_result(tmp_path / name / "finetune_seed42.pkl") for name in ("two", "one"))
    assert ours["loss_by_step"] == pytest.approx(theirs["loss_by_step"], abs=1e-5)
