"""Run: pytest tests/test_recadam.py. RecAdam against AdamW, its annealing and its recall by hand."""

import math

import pytest
import torch

from taalm.checkpoint import load_optimizer, optimizer_tensors
from taalm.errors import UserError
from taalm.optimizers.recadam import RecAdam


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,))]


def train(optimizer: torch.optim.Optimizer, values: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(100 + step)
        for value in values:
            value.grad = torch.randn(value.shape, generator=generator)
        optimizer.step()


def test_without_recall_it_is_torchs_adamw():
    one, two = parameters(), parameters()
    train(torch.optim.AdamW(one, lr=1e-2, weight_decay=0.1), one, range(6))
    train(RecAdam(two, lr=1e-2, weight_decay=0.1, t0=-1000, coefficient=0), two, range(6))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_annealing_is_the_papers_sigmoid():
    optimizer = RecAdam(parameters(), lr=1e-4, k=0.5, t0=250)
    for update in (1, 249, 250, 251, 400):
        assert optimizer.annealed(update) == pytest.approx(1 / (1 + math.exp(-0.5 * (update - 250))))
    assert optimizer.annealed(-(10**6)) == pytest.approx(0)


def test_every_parameter_is_recalled_as_the_formula_says():
    """Two updates against the formula written out, with torch's AdamW for the task's step."""
    values, free = parameters(), parameters()
    start = [value.detach().clone() for value in values]
    lr, k, t0, coefficient = 1e-3, 0.5, 2.0, 500.0
    optimizer = RecAdam(values, lr=lr, k=k, t0=t0, coefficient=coefficient)
    plain = torch.optim.AdamW(free, lr=lr, weight_decay=0.0)
    for update in (1, 2):
        before = [value.detach().clone() for value in values]
        with torch.no_grad():
            for own, now in zip(free, before, strict=True):
                own.copy_(now)
        train(plain, free, range(update, update + 1))
        train(optimizer, values, range(update, update + 1))
        share = 1 / (1 + math.exp(-k * (update - t0)))
        for value, now, own, first in zip(values, before, free, start, strict=True):
            expected = now + share * (own - now) - lr * (1 - share) * coefficient * (now - first)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


def test_a_recall_that_diverges_is_refused():
    with pytest.raises(UserError, match="diverges"):
        RecAdam(parameters(), lr=4e-4, coefficient=5000)


def test_its_state_survives_a_checkpoint():
    whole, cut = parameters(), parameters()
    train(RecAdam(whole, lr=1e-3, t0=3, coefficient=100), whole, range(6))
    first = RecAdam(cut, lr=1e-3, t0=3, coefficient=100)
    train(first, cut, range(3))
    resumed = RecAdam(cut, lr=1e-3, t0=3, coefficient=100)  # its start is wrong until the state is loaded
    load_optimizer(resumed, optimizer_tensors(first))
    train(resumed, cut, range(3, 6))
    for a, b in zip(whole, cut, strict=True):
        assert torch.equal(a, b)
