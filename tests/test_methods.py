"""Run: pytest tests/test_methods.py. Every method by name: its update is its own, combinations run, cells resume."""

import itertools

import pytest
import torch

from taalm.adapt import AdaptConfig
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.methods import METHODS, Method, get_method
from taalm.models.base import ModelConfig
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig

COMBINATIONS = (
    "targeted+recadam", "targeted+review", "rho_theta0+recadam+review", "oracle+kl", "targeted+kadapter",
    "targeted+kadapter+recadam+review", "targeted+readout", "ner+readout+kl",
)  # fmt: skip


@pytest.fixture(scope="module")
def phi_folder(tiny_folder, tmp_path_factory):
    torch.manual_seed(0)
    phi = TrainAttention.create(TrainAttentionConfig(backbone=str(tiny_folder), r=2, precision="fp32"))
    torch.nn.init.normal_(phi.head.weight, std=3.0)
    folder = tmp_path_factory.mktemp("phi")
    phi.save_pretrained(folder)
    return folder


@pytest.fixture
def adapted(tiny_folder, sample_folder, phi_folder, tmp_path):
    """adapted(method) -> the trainable tensors after three updates."""

    def run(method: str, folder: str = "run", epochs: int = 3) -> dict[str, torch.Tensor]:
        config = CellConfig(
            method=method, model=ModelConfig(name=str(tiny_folder), r=2, precision="fp32"), phi=str(phi_folder),
            adapt=AdaptConfig(epochs=epochs, batch_size=4, lr=3e-3, max_length=60, save_every=1), quiet=True,
        )  # fmt: skip
        config.readout.facts = str(sample_folder / "ta_train.jsonl")
        config.recadam.t0, config.recadam.coefficient = 0.5, 100.0
        facts = read_facts(sample_folder / "to_learn.jsonl")[:4]
        others = [Document(f.evidence, None, f.where) for f in read_facts(sample_folder / "ta_train.jsonl")[:6]]
        cell = Cell(config, lambda: others, [(fact.subject, fact.object) for fact in facts])
        split, tokenizer = cell.load()
        documents = [Document(fact.evidence, fact.object_span(), fact.where, fact.subject) for fact in facts]
        adaptation = cell.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / folder / "state")
        adaptation.run()
        return {name: value.detach().clone() for name, value in adaptation.trainable.items()}

    return run


SAME_AS_FINETUNE = {"finetune", "lora"}  # LoRA is the default base
ENCODERS_ONLY = {"modular"}  # see tests/test_online_models.py
NEEDS_WEIGHTS = {"views", "given"}  # see tests/test_views.py, tests/test_ceiling.py


@pytest.mark.parametrize("method", sorted(set(METHODS) - SAME_AS_FINETUNE - ENCODERS_ONLY - NEEDS_WEIGHTS))
def test_a_methods_update_differs_from_finetunes(adapted, method):
    plain, other = adapted("finetune", "plain"), adapted(method, "other")
    if set(plain) != set(other):  # another base: other tensors train
        start = adapted(method, "start", epochs=0)
        assert any(not torch.equal(start[name], other[name]) for name in other)
        return
    difference = max(float((plain[name] - other[name]).abs().max()) for name in plain)
    assert difference > 1e-5, f"{method} is finetune"


@pytest.mark.parametrize("method", COMBINATIONS)
def test_a_combination_runs_and_differs_from_each_of_its_parts(adapted, method):
    whole = adapted(method, "whole")
    for number, part in enumerate(method.split("+")):
        single = adapted(part, f"part{number}")
        if set(single) != set(whole):  # another base: other tensors train
            continue
        assert max(float((whole[name] - single[name]).abs().max()) for name in whole) > 1e-6


PRODUCT = list(
    itertools.product(
        [m for m in METHODS if METHODS[m].weighter != "uniform" and m not in NEEDS_WEIGHTS] + ["finetune"],
        ["finetune", "recadam"],
        ["finetune", "review", "kl"],
        ["lora", "qlora", "kadapter", "full"],
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("parts", PRODUCT, ids="+".join)
def test_every_cell_of_the_product_trains(adapted, parts):
    before, after = adapted("+".join(parts), "before", epochs=0), adapted("+".join(parts), "after", epochs=1)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("method", ["rho", "targeted+recadam+review", "kl"])
def test_a_resumed_cell_is_the_uninterrupted_one(adapted, method):
    whole = adapted(method, "whole")
    adapted(method, "cut", epochs=1)
    resumed = adapted(method, "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_names_and_combinations():
    assert get_method("finetune") == Method()
    assert get_method("targeted+recadam+review") == Method("train_attention", "recadam", "mix_review")
    with pytest.raises(UserError, match="two weighters"):
        get_method("targeted+rho")
    with pytest.raises(UserError, match="'nothing' is unknown; the methods are finetune"):
        get_method("targeted+nothing")
