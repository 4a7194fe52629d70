"""Run: pytest tests/meta/test_at_theta_0.py. What theta_0 makes of a text: right, computed once, used, bounded."""

import pytest
import torch

from taalm.losses import target_mask, token_nll
from taalm.meta import at_theta_0
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Theta
from taalm.models.base import add_lora
from taalm.models.precision import freeze_linears
from tests.conftest import tiny_llama
from tests.meta.test_hypergradient import VOCABULARY, lesson, relative, weights_for


@pytest.fixture
def theta() -> Theta:
    """LoRA in the upper of two layers, B not 0."""
    model = tiny_llama(VOCABULARY).requires_grad_(False)
    freeze_linears(model, bf16=False)
    model = add_lora(model, r=2, alpha=4, dropout=0.0, first_layer=1).double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return Theta(model, InnerConfig(lr=1e-2, mode="independent"), ObjectiveConfig())


@pytest.mark.parametrize("side", ["right", "left"])
def test_states_and_losses_are_the_models_own(theta, side):
    documents = lesson(side).documents
    ready = theta.at_start.with_states(documents)
    assert ready.states is not None
    real, targets = documents.attention_mask.bool(), target_mask(documents.attention_mask).bool()
    torch.testing.assert_close(theta.split.logits(ready)[real], theta.model(**documents.inputs()).logits[real])
    expected = token_nll(theta.model(**documents.inputs()).logits, documents.input_ids)[targets]
    torch.testing.assert_close(theta.at_start.known(documents).values, expected)


def test_a_text_is_computed_once_whatever_batch_it_comes_in(theta, monkeypatch):
    taught = lesson("right")
    first = theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights_for(taught.documents))
    before = theta.at_start.known(taught.documents.rows([1])).slope
    asked = []
    monkeypatch.setattr(theta.at_start, "_losses", lambda text: asked.append(text))
    monkeypatch.setattr(theta.split, "entering", lambda text, layer: asked.append(text))
    again = theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights_for(taught.documents))
    assert not asked and torch.equal(first.weight_gradient, again.weight_gradient)
    assert torch.equal(before, theta.at_start.known(taught.documents.rows([1])).slope)


def test_nothing_is_kept_beyond_the_limit_and_no_number_changes(theta, monkeypatch):
    taught = lesson("right")
    weights = weights_for(taught.documents)
    kept = theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights).weight_gradient
    assert theta.at_start.bytes > 0
    monkeypatch.setattr(at_theta_0, "MOST_BYTES", 0)
    other = Theta(theta.model, theta.inner, theta.task)
    found = other.hypergradient(HYPERGRADIENTS["jvp"], taught, weights).weight_gradient
    assert other.at_start.bytes == 0 and relative(found, kept) < 1e-12
    reference = other.hypergradient(HYPERGRADIENTS["double_backward"], taught, weights).weight_gradient
    assert relative(kept, reference) < 1e-8
