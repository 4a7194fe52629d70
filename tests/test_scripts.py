"""Run: pytest tests/test_scripts.py. Every script as a user runs it, from another folder, on a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from taalm.results import load_result
from tests.conftest import ROOT, two_at_once

TINY_TRAIN = (
    "--outer.steps 2 --outer.batch_size 4 --outer.max_length 200 --phi.layers 0 --theta.first_layer 0 --judged 2"
)


def run_script(script: str, folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("TAALM_DATA", "PRESET")}
    return subprocess.run(
        ["bash", str(ROOT / "scripts" / script), *map(str, arguments)],
        cwd=folder,
        env={**clean, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_every_script_is_valid_bash_and_strict():
    for script in (ROOT / "scripts").rglob("*.sh"):
        assert subprocess.run(["bash", "-n", script]).returncode == 0, script
        if script.name != "env.sh":
            assert "set -euo pipefail" in script.read_text(), script


def test_the_main_job_trains_phi_and_evaluates_every_method_from_any_folder(tiny_folder, sample_folder, tmp_path):
    """scripts/train_TA/lama_ckl.sh, then every script of scripts/eval/lamackl."""
    trained = run_script(
        "train_TA/lama_ckl.sh", tmp_path, *TINY_TRAIN.split(), "--theta.name", tiny_folder, "--phi.backbone",
        tiny_folder, "--out", "phis", TAALM_DATA=str(sample_folder),
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    methods = sorted(script.stem for script in (ROOT / "scripts" / "eval" / "lamackl").glob("*.sh"))
    assert methods == ["finetune", "kadapter", "oracle", "readout", "recadam", "review", "rho", "targeted", "views"]

    def evaluate(method: str) -> subprocess.CompletedProcess:
        return run_script(
            f"eval/lamackl/{method}.sh", tmp_path, "--model.name", tiny_folder, "--adapt.epochs", 1,
            "--adapt.batch_size", 4, "--model.first_layer", 0, "--out", "results",
            "--phi_runs", "phis", TAALM_DATA=str(sample_folder),
        )  # fmt: skip

    for script, done in zip(methods, two_at_once(evaluate, methods), strict=True):
        assert done.returncode == 0, done.stderr
        method = {"views": "targeted+views+kl", "readout": "targeted+readout+views+kl"}.get(script, script)
        assert load_result(tmp_path / "results" / f"{method}_seed42.pkl")["method"] == method
        if method == "targeted":
            assert "phi from phis/seed42/phi" in done.stdout


@pytest.mark.parametrize("preset", ["llama2-7b", "tinyllama"])
def test_a_published_preset_reaches_its_model_through_the_environment(preset, tmp_path, sample_folder):
    """No hub here: the preset is read, and the sentence names the hub id that could not be loaded."""
    done = run_script("eval/lamackl/finetune.sh", tmp_path, "--out", "out", PRESET=preset, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert {"llama2-7b": "meta-llama/Llama-2-7b-hf", "tinyllama": "TinyLlama/"}[preset] in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_script_runs_in_two_processes(tiny_folder, sample_folder, tmp_path):
    done = run_script(
        "eval/lamackl/finetune.sh", tmp_path, "--model.name", tiny_folder, "--model.first_layer", 0,
        "--adapt.epochs", 1, "--out", "results", TAALM_DATA=str(sample_folder), PROCESSES="2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1:") == 1  # the main process prints


@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(config):
    read = load_config_from_file(str(config))
    assert read.distributed_type == "MULTI_GPU" and read.num_processes == 8 * read.num_machines


def test_the_slurm_example_starts_the_script_on_every_machine(tmp_path):
    """With stand-ins for Slurm's commands and for Python: what would be run, on the second of two machines."""
    commands = {
        "scontrol": "echo first-host; echo second-host",
        "srun": 'SLURM_NODEID=1 "$@"',
        "fake-python": 'echo "ran: $*"',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = run_script(
        "slurm/two_machines.sbatch", ROOT, ROOT / "scripts" / "eval" / "lamackl" / "finetune.sh", "--seed", 7,
        PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=str(tmp_path / "fake-python"), SLURM_JOB_NODELIST="two",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--machine_rank 1 --main_process_ip first-host --module taalm.evaluate --method finetune" in done.stdout
    assert done.stdout.rstrip().endswith("--seed 7")


def test_quickstart_ends_with_a_table_and_a_picture(tiny_folder, tmp_path):
    """The committed sample set, a tiny model in place of the packaged one."""
    done = run_script(
        "quickstart.sh", tmp_path,
        QUICKSTART_OUT=str(tmp_path),
        QUICKSTART_TRAIN=f"{TINY_TRAIN} --theta.name {tiny_folder} --phi.backbone {tiny_folder}",
        QUICKSTART_EVAL=f"--limit 6 --adapt.epochs 1 --model.first_layer 0 --model.name {tiny_folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("do-nothing", "relation-majority", "finetune", "targeted", "oracle"))
    assert (tmp_path / "results" / "quickstart" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_script_without_an_environment_says_how_to_make_it(tmp_path):
    done = run_script("train_TA/lama_ckl.sh", tmp_path, PYTHON=str(tmp_path / "no-python"))
    assert done.returncode == 2 and "scripts/setup.sh" in done.stderr
