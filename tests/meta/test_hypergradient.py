"""Run: pytest tests/meta/test_hypergradient.py. In float64: the three estimators and plain numerical derivatives."""

from dataclasses import replace

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from taalm.losses import target_mask
from taalm.meta.hypergradient import HYPERGRADIENTS, InnerProblem, adapt
from taalm.meta.inner import AdamW, InnerConfig
from taalm.meta.objectives import ObjectiveConfig, kl_loss
from taalm.meta.problem import Lesson, Theta
from taalm.models.base import add_lora
from taalm.models.precision import freeze_linears
from taalm.text import Encoded, collate
from tests.conftest import tiny_gpt2, tiny_llama

VOCABULARY = 64


class Float64Norm(torch.nn.Module):
    """RMSNorm in the type of its input; transformers' computes in float32, which would hide errors below 1e-7."""

    def __init__(self, norm: LlamaRMSNorm):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def base(kind: str) -> torch.nn.Module:
    """A tiny float64 theta: all of a Llama or GPT-2 (full), or LoRA on frozen linears."""
    model = tiny_gpt2(VOCABULARY) if kind.startswith("gpt2") else tiny_llama(VOCABULARY)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, LlamaRMSNorm):
                setattr(parent, name, Float64Norm(child))
    model.double().eval()
    if kind.endswith("lora"):
        model.requires_grad_(False)
        freeze_linears(model, bf16=False)
        torch.manual_seed(3)
        model = add_lora(model, r=2, alpha=4, dropout=0.0).double()
    return model


def lesson(side: str, batch: int = 3) -> Lesson:
    """Documents and probes of unequal lengths, padded on `side`."""
    generator = torch.Generator().manual_seed(5)

    def rows(shortest: int) -> list[Encoded]:
        lengths = range(shortest, shortest + 2 * batch, 2)
        ids = [(0, *torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]
        return [Encoded(row, tuple(i >= len(row) - 2 for i in range(len(row)))) for row in ids]

    return Lesson(collate(rows(5), 2, side), collate(rows(4), 2, side))


def weights_for(documents) -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    shape = documents.attention_mask[:, 1:].shape
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup_steps", [0, 1, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "llama-lora", "gpt2-lora"])
def test_jvp_and_finite_differences_equal_double_backward(kind, warmup_steps, steps, side):
    theta = Theta(base(kind), InnerConfig(lr=1e-2, warmup_steps=warmup_steps, steps=steps), ObjectiveConfig())
    taught = lesson(side)
    weights = weights_for(taught.documents)
    found = {name: theta.hypergradient(estimate, taught, weights) for name, estimate in HYPERGRADIENTS.items()}
    reference = found["double_backward"]
    assert torch.isfinite(reference.weight_gradient).all()
    for name, bound in (("jvp", 1e-8), ("finite_difference", 1e-4)):
        assert relative(found[name].weight_gradient, reference.weight_gradient) < bound, name
        torch.testing.assert_close(found[name].task_loss, reference.task_loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.3), ("adamw_frozen", 1e-2)])
def test_another_inner_rule_has_the_same_three_hypergradients(optimizer, lr, steps):
    inner = InnerConfig(optimizer=optimizer, lr=lr, weight_decay=0.1, warmup_steps=0, steps=steps)
    theta, taught = Theta(base("llama-lora"), inner, ObjectiveConfig()), lesson("right")
    weights = weights_for(taught.documents)
    found = {
        name: theta.hypergradient(estimate, taught, weights).weight_gradient
        for name, estimate in HYPERGRADIENTS.items()
    }
    for name, bound in (("jvp", 1e-8), ("finite_difference", 1e-4)):
        assert relative(found[name], found["double_backward"]) < bound, name


@pytest.mark.parametrize("steps", [1, 3])
def test_a_frozen_preconditioner_moves_as_adamw_and_has_another_hypergradient(steps):
    taught = lesson("right")
    weights, found = weights_for(taught.documents), {}
    for optimizer in ("adamw", "adamw_frozen"):
        inner = InnerConfig(optimizer=optimizer, lr=1e-2, warmup_steps=1, steps=steps)
        theta = Theta(base("llama-lora"), inner, ObjectiveConfig())
        found[optimizer] = theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights)
    assert torch.equal(found["adamw_frozen"].task_loss, found["adamw"].task_loss)
    assert relative(found["adamw_frozen"].weight_gradient, found["adamw"].weight_gradient) > 1e-3


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("budget", [1, 18, 512])
@pytest.mark.parametrize(("warmup_steps", "steps"), [(0, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize(
    ("kind", "estimator"),
    [*(("llama-lora", estimator) for estimator in HYPERGRADIENTS), ("gpt2-lora", "jvp"), ("llama", "jvp")],
)
def test_independent_mode_is_the_mean_over_documents_learned_alone(kind, estimator, warmup_steps, steps, budget, side):
    taught = lesson(side)
    weights = weights_for(taught.documents)
    inner = InnerConfig(
        lr=1e-2, mode="independent", warmup_steps=warmup_steps, steps=steps, token_budget=budget * steps
    )
    theta = Theta(base(kind), inner, ObjectiveConfig())
    found = theta.hypergradient(HYPERGRADIENTS[estimator], taught, weights)
    at_once = {1: 1, 18: 2, 512: 3}[budget] if kind != "llama" else 1  # whole models learn one document at a time
    assert max(len(part.rows) for part in theta._parts(taught, weights)) == at_once
    bound, losses = 1e-4 if estimator == "finite_difference" else 1e-8, []
    for index in range(len(weights)):
        real = taught.documents.attention_mask[index].bool()
        start = int(real.nonzero()[0])
        own = weights[index][start : start + int(real.sum()) - 1][None]
        alone = theta.hypergradient(HYPERGRADIENTS["double_backward"], taught.rows([index]), own)
        there = found.weight_gradient[index][start : start + own.shape[1]]
        assert relative(there * len(weights), alone.weight_gradient[0]) < bound
        losses.append(alone.task_loss)
    torch.testing.assert_close(found.task_loss, torch.stack(losses).mean(), rtol=1e-10, atol=0)
    assert abs(theta.post_step_loss(taught, weights) - float(found.task_loss)) < 1e-10


def test_padding_side_changes_no_number():
    theta = Theta(base("llama-lora"), InnerConfig(lr=1e-2), ObjectiveConfig())
    left, right = lesson("left"), lesson("right")
    ones = torch.ones_like(right.documents.attention_mask[:, 1:], dtype=torch.float64)
    by_side = [theta.hypergradient(HYPERGRADIENTS["jvp"], taught, ones) for taught in (left, right)]
    torch.testing.assert_close(by_side[0].task_loss, by_side[1].task_loss, rtol=1e-10, atol=0)
    for index in range(len(ones)):
        real = [found.weight_gradient[index][found.weight_gradient[index] != 0] for found in by_side]
        torch.testing.assert_close(real[0], real[1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_hypergradient_equals_numerical_derivatives_of_the_whole_adaptation(steps):
    """Independent of autograd: nudge a weight, run all inner steps, see the task loss. eps 1e-3 keeps Adam smooth."""
    theta = Theta(base("llama-lora"), InnerConfig(lr=1e-2, eps=1e-3, warmup_steps=0, steps=steps), ObjectiveConfig())
    taught = lesson("right", batch=2)
    weights, problem = weights_for(taught.documents), theta.problem(taught)
    found = HYPERGRADIENTS["jvp"](problem, theta.theta_0, weights).weight_gradient

    def outcome(nudged: torch.Tensor) -> float:
        return float(problem.task_loss(adapt(problem, theta.theta_0, nudged)))

    for place in [(0, 0), (0, 3), (1, 1), (1, 5)]:
        step = torch.zeros_like(weights)
        step[place] = 1e-5
        numerical = (outcome(weights + step) - outcome(weights - step)) / 2e-5
        assert abs(numerical - float(found[place])) < 1e-5 * float(found.abs().max()) + 1e-3 * abs(numerical)


def test_dropping_the_moment_adjoints_would_be_seen():
    """A regression guard for K > 1: the exact recursion is not the one that forgets both moments between steps."""
    taught = lesson("right")
    weights = weights_for(taught.documents)
    exact = Theta(base("llama-lora"), InnerConfig(lr=1e-2, steps=3), ObjectiveConfig())
    forgetful = AdamW(1e-2)
    object.__setattr__(forgetful, "betas", (0.0, 0.999))  # no memory in the first moment
    problem = exact.problem(taught)
    other = InnerProblem(
        problem.token_losses, problem.task_loss, target_mask(taught.documents.attention_mask), forgetful, 1, 3
    )
    one = HYPERGRADIENTS["jvp"](problem, exact.theta_0, weights).weight_gradient
    two = HYPERGRADIENTS["jvp"](other, exact.theta_0, weights).weight_gradient
    assert relative(two, one) > 0.05


@pytest.mark.parametrize("name", ["change2", "change3"])
def test_change_objectives_and_optional_terms_are_differentiated_too(name):
    taught = lesson("right")
    taught = Lesson(taught.documents, taught.probes, unrelated=lesson("right").probes, retained=taught.documents)
    objective = ObjectiveConfig(name=name, restriction=0.5, retention=0.7)
    theta = Theta(base("llama-lora"), InnerConfig(lr=1e-2), objective)
    weights = weights_for(taught.documents)
    reference, found = (
        theta.hypergradient(HYPERGRADIENTS[key], taught, weights).weight_gradient for key in ("double_backward", "jvp")
    )
    assert relative(found, reference) < 1e-8


@pytest.mark.parametrize("side", ["right", "left"])
def test_documents_learned_together_have_their_own_unrelated_probe_and_retained_text(side):
    taught = lesson(side)
    taught = replace(taught, unrelated=taught.probes.rows([1, 2, 0]), retained=taught.documents.rows([2, 0, 1]))
    objective = ObjectiveConfig(restriction=0.5, retention=0.7)
    theta = Theta(base("llama-lora"), InnerConfig(lr=1e-2, mode="independent", token_budget=512), objective)
    weights = weights_for(taught.documents)
    assert len(list(theta._parts(taught, weights))) == 1
    found = theta.hypergradient(HYPERGRADIENTS["jvp"], taught, weights)
    for index in range(len(weights)):
        own = taught.documents.attention_mask[index].bool().nonzero()[1:, 0] - 1  # its targets
        alone = theta.hypergradient(HYPERGRADIENTS["double_backward"], taught.rows([index]), weights[index, own][None])
        assert relative(found.weight_gradient[index, own] * len(weights), alone.weight_gradient[0]) < 1e-8


def test_retention_is_the_mean_over_texts_of_the_divergence_per_token():
    theta, texts = Theta(base("llama-lora"), InnerConfig(lr=1e-2), ObjectiveConfig()), lesson("right").documents
    moved = {name: value + 0.05 for name, value in theta.theta_0.items()}
    found = kl_loss(theta.logits, texts, theta.theta_0)(moved)
    expected = []
    for row, length in enumerate(texts.attention_mask.sum(1).tolist()):
        before, after = (theta.logits(p, texts)[row, : length - 1].softmax(-1) for p in (theta.theta_0, moved))
        expected.append(sum((b * (b / a).log()).sum() for b, a in zip(before, after, strict=True)) / (length - 1))
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-6, atol=0)
    assert found > 0


def test_theta_0_and_the_model_are_never_changed():
    model = base("llama-lora")
    theta = Theta(model, InnerConfig(lr=1e-2), ObjectiveConfig())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copies = {name: value.clone() for name, value in theta.theta_0.items()}
    taught = lesson("right")
    weights = weights_for(taught.documents)
    for estimate in HYPERGRADIENTS.values():
        theta.hypergradient(estimate, taught, weights)
    theta.post_step_loss(taught, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, copies[name]) for name, value in theta.theta_0.items())
    assert all(value.grad is None for value in model.parameters())


@pytest.mark.parametrize(("kind", "expected"), [("llama-lora", True), ("llama", False), ("gpt2-lora", False)])
def test_second_order_passes_go_layer_by_layer_where_the_model_can(kind, expected, monkeypatch):
    theta, taught = Theta(base(kind), InnerConfig(lr=1e-2, steps=2), ObjectiveConfig()), lesson("left")
    weights = weights_for(taught.documents)
    problem = theta.problem(taught)
    assert (problem.by_layers is not None) is expected
    found = HYPERGRADIENTS["jvp"](problem, theta.theta_0, weights).weight_gradient
    for changed in (replace(problem, by_layers=None), replace(problem, checkpoint=True)):
        other = HYPERGRADIENTS["jvp"](changed, theta.theta_0, weights).weight_gradient
        assert relative(other, found) < 1e-10
