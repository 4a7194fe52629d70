"""Run: pytest tests/test_head_loss.py. The head's loss by chunks: values and every kind of derivative."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

from taalm import head_loss
from taalm.head_loss import head_kl, head_nll

N, H, V = 7, 5, 11


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks, the last one short."""
    monkeypatch.setattr(head_loss, "CHUNK_BYTES", 0)
    monkeypatch.setattr(head_loss, "SMALLEST_CHUNK", 3)


def plain(hidden, weight, targets):
    return torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="none")


@pytest.fixture
def made():
    torch.manual_seed(0)
    hidden, weight = torch.randn(N, H, dtype=torch.float64), torch.randn(V, H, dtype=torch.float64)
    return hidden, weight, torch.randint(0, V, (N,)), torch.rand(N, dtype=torch.float64), torch.randn_like(hidden)


def test_values_with_and_without_a_graph(made):
    hidden, weight, targets, *_ = made
    expected = plain(hidden, weight, targets)
    torch.testing.assert_close(head_nll(hidden, weight, targets), expected)
    torch.testing.assert_close(head_nll(hidden.requires_grad_(), weight, targets).detach(), expected)


def derivatives(loss, made):
    """Backward, forward, forward over reverse, reverse over reverse."""
    hidden, weight, targets, scale, direction = made

    def gradient(h):
        return torch.autograd.grad((scale * loss(h, weight, targets) ** 2).sum(), h, create_graph=True)[0]

    leaf = hidden.clone().requires_grad_()
    found = [gradient(leaf)]
    found.append(torch.autograd.grad((found[0] * direction).sum(), leaf)[0])
    with forward_ad.dual_level(), torch.no_grad():
        found.append(forward_ad.unpack_dual(loss(forward_ad.make_dual(hidden, direction), weight, targets)).tangent)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(hidden.clone().requires_grad_(), direction)
        found.append(forward_ad.unpack_dual(gradient(dual)).tangent)
    return found


def test_every_derivative_is_the_plain_losss(made):
    for found, expected in zip(derivatives(head_nll, made), derivatives(plain, made), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(derivatives(head_nll, made)[1], derivatives(head_nll, made)[3], rtol=1e-9, atol=1e-12)


def test_no_tensor_of_all_logits_is_made(made, monkeypatch):
    monkeypatch.setattr(head_loss, "CHUNK_BYTES", 16 * 4 * V)
    monkeypatch.setattr(head_loss, "SMALLEST_CHUNK", 1)
    hidden = torch.randn(100, H, dtype=torch.float64, requires_grad=True)
    targets, weight = torch.randint(0, V, (100,)), made[1]
    sizes = [len(rows_logits[1]) for rows_logits in head_loss._chunks(hidden, weight, targets)]
    assert sizes == [16] * 6 + [4]
    torch.testing.assert_close(head_nll(hidden, weight, targets), plain(hidden, weight, targets))


def test_the_divergence_and_its_gradient_are_the_plain_ones(made):
    hidden, weight, _, scale, shift = made
    before, leaf, again = hidden + shift, hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found = head_kl(leaf, before, weight)
    log_before, log_p = ((states @ weight.t()).log_softmax(1) for states in (before, again))
    expected = torch.nn.functional.kl_div(log_p, log_before, reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    slopes = torch.autograd.grad((scale * found).sum(), leaf) + torch.autograd.grad((scale * expected).sum(), again)
    torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-14)
    assert head_kl(hidden, hidden, weight).abs().max() < 1e-12
