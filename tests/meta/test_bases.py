"""Run: pytest tests/meta/test_bases.py. phi trains for every base, by every hypergradient that the base permits."""

import pytest
import torch

from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Theta
from taalm.meta.trainer import MetaTrainer, OuterConfig
from taalm.models.base import ModelConfig, load_theta
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from tests.conftest import tiny_gpt2, tiny_llama
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
    theta, taught = Theta(model, InnerConfig(lr=1e-2), ObjectiveConfig()), lesson("right")
    weights = weights_for(taught.documents).float()
    found = {
        name: theta.hypergradient(estimate, taught, weights).weight_gradient
        for name, estimate in HYPERGRADIENTS.items()
    }
    for name, bound in (("jvp", 1e-3), ("finite_difference", 3e-2)):
        assert relative(found[name], found["double_backward"]) < bound, name


def test_a_phi_trains_on_kadapter_by_finite_differences(folder, sample_folder, tmp_path):
    training = trainer(folder, sample_folder, tmp_path, adapter="kadapter", precision="fp32")
    before = training.phi.head.weight.clone()
    training.run()
    assert training.skipped == 0 and not torch.equal(before, training.phi.head.weight)


def test_finite_differences_through_bfloat16_are_refused(tiny_folder, sample_folder, tmp_path):
    for adapter in ("lora", "kadapter"):
        with pytest.raises(UserError, match=r"bfloat16.*--theta\.precision fp32"):
            trainer(tiny_folder, sample_folder, tmp_path, adapter=adapter, precision="bf16")
