"""Run: bash scripts/test.sh -m gpu. What a CUDA device must agree on with the CPU, and what only it has."""

import json

import pytest
import torch

from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Lesson, Theta
from taalm.models.base import ModelConfig, load_theta
from taalm.models.precision import rounds_to_bf16
from taalm.results import load_result
from tests.conftest import run_module
from tests.meta.test_hypergradient import base, lesson, relative, weights_for
from tests.test_commands import evaluate_arguments, losses, train_arguments

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def hypergradient(estimator: str, mode: str, device: str, dtype: torch.dtype) -> torch.Tensor:
    inner = InnerConfig(lr=1e-2, warmup_steps=2, steps=2, mode=mode)
    theta = Theta(base("llama-lora").to(device, dtype), inner, ObjectiveConfig())
    taught = lesson("right")
    taught = Lesson(taught.documents.to(device), taught.probes.to(device))
    weights = weights_for(taught.documents).to(device, dtype)
    return theta.hypergradient(HYPERGRADIENTS[estimator], taught, weights).weight_gradient.cpu().double()


@pytest.mark.parametrize("mode", ["joint", "independent"])
@pytest.mark.parametrize(("estimator", "bound"), [("jvp", 1e-8), ("finite_difference", 1e-4)])
def test_hypergradients_on_the_device_equal_double_backward_and_the_cpu(estimator, bound, mode):
    there = hypergradient("double_backward", mode, "cuda", torch.float64)
    assert relative(hypergradient(estimator, mode, "cuda", torch.float64), there) < bound
    here = hypergradient("double_backward", mode, "cpu", torch.float64)
    assert relative(there, here) < 1e-5  # rotary angles are float32 on either


def test_commands_give_the_same_losses_on_both_devices(tiny_folder, sample_folder, tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        common = ("--model.device", device, "--model.precision", "fp32", "--method", "finetune", "--name", "run")
        done = run_module(*evaluate_arguments(tiny_folder, sample_folder, out, *common))
        assert done.returncode == 0, done.stderr
        found[device] = load_result(out / "run.pkl")
    pairs = zip(found["cpu"]["loss_by_step"], found["cuda"]["loss_by_step"], strict=True)
    assert all(cuda == pytest.approx(cpu, rel=1e-3) for cpu, cuda in pairs)
    assert 0 < found["cuda"]["summary"]["peak_gib"] < 1  # the device's, not the process's


def test_phi_trains_on_the_device_and_resumes_there(tiny_folder, sample_folder, tmp_path):
    for out, stops in (("whole", (8,)), ("halves", (5, 8))):
        for steps in stops:
            more = ("--outer.steps", steps, "--outer.save_every", 1, "--name", "phi")
            done = run_module(*train_arguments(tiny_folder, sample_folder, tmp_path / out, *more))
            assert done.returncode == 0, done.stderr
    whole, halves = losses(tmp_path / "whole" / "phi"), losses(tmp_path / "halves" / "phi")
    assert len(whole) == len(halves) == 8
    for one, other in zip(whole, halves, strict=True):
        assert all(a == b or a == pytest.approx(b, rel=1e-4) for a, b in zip(one, other, strict=True))
    assert json.loads((tmp_path / "whole" / "phi" / "report.json").read_text())["steps"] == 8


def test_frozen_layers_round_to_bfloat16_where_the_device_multiplies_it(tiny_folder):
    model, _ = load_theta(ModelConfig(name=str(tiny_folder)))
    assert next(model.parameters()).device.type == "cuda"
    assert rounds_to_bf16(model) == torch.cuda.is_bf16_supported(including_emulation=False)


def test_forward_mode_goes_through_four_bit_layers(tiny_folder):
    config = ModelConfig(name=str(tiny_folder), adapter="qlora", r=2, precision="fp32")
    model, _ = load_theta(config)
    theta = Theta(model, InnerConfig(lr=1e-2, warmup_steps=1, eps=1e-4), ObjectiveConfig())
    taught = lesson("right")
    taught = Lesson(taught.documents.to("cuda"), taught.probes.to("cuda"))
    weights = weights_for(taught.documents).float().to("cuda")
    found = {
        name: theta.hypergradient(HYPERGRADIENTS[name], taught, weights).weight_gradient
        for name in ("jvp", "double_backward")
    }
    assert relative(found["jvp"], found["double_backward"]) < 1e-2


def test_qlora_learns_on_the_device(tiny_folder, sample_folder, tmp_path):
    done = run_module(*evaluate_arguments(tiny_folder, sample_folder, tmp_path, "--method", "qlora", "--name", "run"))
    assert done.returncode == 0, done.stderr
    history = load_result(tmp_path / "run.pkl")["eval_result"]
    assert history[2]["loss"] < history[1]["loss"]
