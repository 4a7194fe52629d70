"""Run: pytest tests/test_out_of_memory.py. No memory left: a sentence with flags that help, and the run goes on."""

import shlex
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from taalm import out_of_memory
from taalm.adapt import Adaptation
from taalm.config import parse, run_entry
from taalm.evaluate import EvaluateConfig
from taalm.meta.trainer import MetaTrainer
from taalm.models.base import ModelConfig
from taalm.online_config import OnlineConfig
from taalm.results import load_result
from taalm.train_ta import TrainTAConfig
from tests.conftest import run_module
from tests.test_commands import evaluate_arguments, losses, refusal, train_arguments

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.68 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


def advised(said: str) -> list[str]:
    """The flags that the sentence proposes for the same run."""
    return shlex.split(said.partition("to the same numbers, with ")[2].partition(";")[0])


@pytest.fixture(scope="module")
def whole(tiny_folder, sample_folder, tmp_path_factory) -> dict:
    """The result of an undisturbed run of four epochs."""
    out = tmp_path_factory.mktemp("whole")
    given = evaluate_arguments(tiny_folder, sample_folder, out, "--name", "run", "--adapt.epochs", 4)
    assert run_module(*given).returncode == 0
    return load_result(out / "run.pkl")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(CUDA), RuntimeError(CPU), MemoryError()])
def test_an_adaptation_without_memory_goes_on_with_what_is_proposed(
    error, whole, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys
):
    """The third epoch fails while it may take more than 512 tokens at once."""
    given = evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--name", "run", "--adapt.epochs", 4)
    update = Adaptation._update

    def limited(self, indices):
        if self.epoch == 2 and self.config.token_budget > 512:
            raise error
        return update(self, indices)

    with monkeypatch.context() as patched:
        patched.setattr(Adaptation, "_update", limited)
        said = refusal((*given, "--quiet", "true"), patched, capsys)
        assert said.startswith("error: out of memory") and said.count("\n") == 1
        assert ("2.00 GiB" in said) == (error.args == (CUDA,)) and ("8 bytes" in said) == (error.args == (CPU,))
        assert advised(said) == ["--adapt.token_budget", "512", "--model.gradient_checkpointing", "true"]
        assert "--model.adapter qlora" in said and "--outer" not in said
        patched.setattr(sys, "argv", ["", *map(str, given[1:]), *advised(said)])
        patched.delenv("TAALM_DATA", raising=False)
        run_entry(import_module(given[0]).main)
    assert "resuming at epoch 2" in "".join(capsys.readouterr())
    assert load_result(tmp_path / "run.pkl")["loss_by_step"] == pytest.approx(whole["loss_by_step"], abs=1e-3)


def test_phis_training_without_memory_goes_on_with_what_is_proposed(
    tiny_folder, sample_folder, tmp_path, monkeypatch, capsys
):
    given = train_arguments(tiny_folder, sample_folder, tmp_path, "--outer.steps", 8, "--outer.save_every", 2,
                            "--inner.mode", "independent", "--name", "phi", "--quiet", "true")  # fmt: skip
    learn = MetaTrainer._learn

    def limited(self, *rest):
        if self.step == 6 and self.theta.inner.token_budget > 128:
            raise torch.OutOfMemoryError(CUDA)
        return learn(self, *rest)

    monkeypatch.setattr(MetaTrainer, "_learn", limited)
    said = refusal(given, monkeypatch, capsys)
    assert "--inner.token_budget 128" in said and "--outer.batch_size 2" in said and "--adapt" not in said
    assert "--inner.mode" not in said and "--theta.adapter qlora" in said and "--phi.four_bit true" in said
    assert len(losses(tmp_path / "phi")) == 6
    monkeypatch.setattr(sys, "argv", ["", *map(str, given[1:]), *advised(said)])
    run_entry(import_module(given[0]).main)
    assert len(losses(tmp_path / "phi")) == 8


def test_an_allocation_that_cannot_be_had(tiny_folder, sample_folder, tmp_path):
    """LoRA of a rank for which 2^54 bytes are asked of the real allocator."""
    done = run_module(*evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--model.r", 2**48))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: out of memory (18014398509481984 bytes were asked for at once)" in done.stderr, done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_flags_that_the_command_has_and_that_can_be_less_are_proposed():
    least = EvaluateConfig()
    least.adapt = replace(least.adapt, token_budget=1, max_length=0)
    least.model = ModelConfig(gradient_checkpointing=True, adapter="full")
    assert "free memory" in out_of_memory.proposal(MemoryError(), least)
    assert "free memory" in out_of_memory.proposal(MemoryError(), None)
    for config, entry in ((EvaluateConfig, "evaluate/lama_ckl"), (TrainTAConfig, "train_ta/lama_ckl"),
                          (OnlineConfig, None)):  # fmt: skip
        told = out_of_memory.proposal(MemoryError(), config())
        for part in told.split(" --")[1:]:
            flag, value, *_ = part.rstrip(";").split()
            parse(config, entry, [f"--{flag}", value.rstrip(";")], "x")  # it can be given
    told = out_of_memory.proposal(MemoryError(), TrainTAConfig())
    assert "--inner.mode independent" in told and "--inner.token_budget" not in told  # they all go together now
    assert not out_of_memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory.is_out_of_memory(ValueError("out of memory"))
