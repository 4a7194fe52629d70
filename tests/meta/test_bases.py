"""Run: pytest tests/meta/test_bases.py. phi trains for every base, by every hypergradient that the base permits."""

import json

import pytest
import torch

from taalm import train_ta
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.outer_config import OuterConfig
from taalm.meta.problem import Lesson, Theta
from taalm.meta.trainer import MetaTrainer
from taalm.models.base import ModelConfig, load_theta
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.text import collate, encode
from tests.conftest import ROOT, tiny_gpt2, tiny_llama
from tests.meta.test_hypergradient import lesson, relative, weights_for


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tokenizer, tmp_path_factory):
    model = tiny_llama(len(tokenizer), hidden_size=64) if request.param == "llama" else tiny_gpt2(len(tokenizer))
    place = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def trainer(folder, sample_folder, out, **theta) -> MetaTrainer:
    torch.manual_seed(0)
    model, tokenizer = load_theta(ModelConfig(name=str(folder), r=2, **theta))
    facts = read_facts(sample_folder / "ta_train.jsonl")[:4]
    lessons = Lessons(tokenizer, facts, "schematic", 60, torch.device("cpu"))
    phi = TrainAttention.create(TrainAttentionConfig(backbone=str(folder), r=2, precision="fp32"))
    outer = OuterConfig(steps=2, batch_size=2, hypergradient="finite_difference")
    return MetaTrainer(Theta(model, InnerConfig(), ObjectiveConfig()), phi, lessons, None, outer, out, 1, quiet=True)


@pytest.mark.parametrize("adapter", ["lora", "qlora", "kadapter", "full"])
def test_all_hypergradients_agree_in_float32(folder, adapter):
    torch.manual_seed(0)
    model, _ = load_theta(ModelConfig(name=str(folder), adapter=adapter, r=2, precision="fp32"))
    for parameter in model.parameters():  # away from LoRA's B = 0: Adam divides by the size of A's gradient, nearly 0
        if parameter.requires_grad:
            parameter.data += 0.03 * torch.randn_like(parameter)
    theta, taught = Theta(model, InnerConfig(lr=1e-2), ObjectiveConfig()), lesson("right")
    weights = weights_for(taught.documents).float()
    found = {
        name: theta.hypergradient(estimate, taught, weights).weight_gradient
        for name, estimate in HYPERGRADIENTS.items()
    }
    for name, bound in (("jvp", 1e-3), ("finite_difference", 3e-2)):
        assert relative(found[name], found["double_backward"]) < bound, name


def test_checkpointing_gives_the_same_hypergradients_and_is_refused_where_layers_cannot_run_alone(folder):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = ModelConfig(name=str(folder), r=2, precision="fp32", gradient_checkpointing=checkpointing)
        model, _ = load_theta(config)
        theta, taught = (
            Theta(model.train(), InnerConfig(lr=1e-2, eps=1e-3, steps=2), ObjectiveConfig()),
            lesson("right"),
        )
        if checkpointing and "gpt2" in str(folder):
            with pytest.raises(UserError, match="gradient_checkpointing of theta"):
                theta.problem(taught)
            return
        weights = weights_for(taught.documents).float()
        found.append(theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights).weight_gradient)
    assert relative(*found) < 1e-3


def test_a_phi_trains_on_kadapter_by_finite_differences(folder, sample_folder, tmp_path):
    training = trainer(folder, sample_folder, tmp_path, adapter="kadapter", precision="fp32")
    before = training.phi.head.weight.clone()
    training.run()
    assert training.skipped == 0 and not torch.equal(before, training.phi.head.weight)


def test_finite_differences_through_bfloat16_are_refused(tiny_folder, sample_folder, tmp_path):
    for adapter in ("lora", "kadapter"):
        with pytest.raises(UserError, match=r"bfloat16.*--theta\.precision fp32"):
            trainer(tiny_folder, sample_folder, tmp_path, adapter=adapter, precision="bf16")


@pytest.mark.parametrize("adapter", ["lora", "full", "modular", "kadapter"])
@pytest.mark.parametrize("steps", [1, 2])
def test_an_encoder_decoders_hypergradients_agree_too(t5_folder, adapter, steps):
    torch.manual_seed(0)
    model, tokenizer = load_theta(ModelConfig(name=str(t5_folder), adapter=adapter, r=2, precision="fp32"))
    theta = Theta(model, InnerConfig(lr=1e-2, steps=steps), ObjectiveConfig(form="descriptive"))
    given = (("Ana lives in", "Rome"), ("Bo works as a", "poet"), ("Cy", "sang here"))
    rows = [encode(tokenizer, f"{a} {b} .", (len(a) + 1, len(a) + 1 + len(b)), ends=True, source=a) for a, b in given]
    taught = Lesson(collate(rows, 0), collate(rows[::-1], 0))
    weights = weights_for(taught.documents).float()
    found = {
        name: theta.hypergradient(estimate, taught, weights).weight_gradient
        for name, estimate in HYPERGRADIENTS.items()
    }
    assert relative(found["jvp"], found["double_backward"]) < 5e-3
    # T5's ReLUs: a finite difference steps over kinks
    assert torch.cosine_similarity(found["finite_difference"].flatten(), found["double_backward"].flatten(), 0) > 0.8


def test_a_phi_trains_for_an_encoder_decoder_and_weighs_the_answers(t5_folder, tmp_path):
    facts = ROOT / "data" / "sample" / "online_wiki" / "ta"
    train_ta.main([
        "--theta.name", str(t5_folder), "--phi.backbone", str(t5_folder), "--theta.first_layer", "0",
        "--phi.layers", "0", "--data", str(facts), "--objective.form", "descriptive", "--ends", "true",
        "--outer.steps", "24",
        "--outer.warm_start", "20", "--outer.batch_size", "8", "--judged", "4", "--out", str(tmp_path),
        "--quiet", "true",
        "--theta.precision", "fp32", "--phi.precision", "fp32", "--name", "t5",
    ])  # fmt: skip
    report = json.loads((tmp_path / "t5" / "report.json").read_text())
    assert report["held_out"]["object_ratio"]["median"] > 1.2 and report["skipped_steps"] == 0
    assert TrainAttention.from_pretrained(tmp_path / "t5" / "phi").takes_positions is False
