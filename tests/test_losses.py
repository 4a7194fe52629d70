"""Run: pytest tests/test_losses.py. Mask, per-token loss and weighted mean against the formula written out."""

import pytest
import torch

from taalm.losses import cross_entropy, document_means, target_mask, token_nll, weighted_mean

EPS = 1e-6


def test_bos_and_padding_never_count_on_either_side():
    right = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    left = right.flip(1)
    assert target_mask(right).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]  # BOS at 0 is no target: T - 1 columns
    assert target_mask(left).tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]  # BOS at 2: its target, column 1, is out


def test_a_text_of_bos_alone_has_no_target():
    assert target_mask(torch.tensor([[0, 0, 1], [1, 0, 0]])).sum() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_token_nll_is_minus_the_log_softmax_of_the_next_token(dtype):
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 6, 11, dtype=dtype) * 5, torch.randint(11, (3, 6))
    found = token_nll(logits, ids)
    exact = logits.double().log_softmax(-1)
    expected = [[-exact[b, t, ids[b, t + 1]].item() for t in range(5)] for b in range(3)]
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_half_precision_logits_is_computed_in_float32():
    logits = torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16)
    expected = torch.log1p(torch.exp(torch.tensor(-8.0, dtype=torch.float64))).item()  # about 3e-4: bfloat16 gives 0
    assert cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def drawn():
    """values, weights, mask (B, T-1) in float64."""
    torch.manual_seed(1)
    values, weights = torch.rand(4, 7, dtype=torch.float64) * 9, torch.rand(4, 7, dtype=torch.float64)
    attention = torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [0] * 4 + [1] * 4, [1] * 2 + [0] * 6])
    return values, weights, target_mask(attention).double()


def test_weighted_mean_is_the_formula_of_design_3(drawn):
    values, weights, mask = drawn
    means = []
    for b in range(4):
        above = sum(float(weights[b, t] * mask[b, t] * values[b, t]) for t in range(7))
        below = sum(float(weights[b, t] * mask[b, t]) for t in range(7))
        means.append(above / (below + EPS))
    assert document_means(*drawn).tolist() == pytest.approx(means, rel=1e-12)
    assert weighted_mean(*drawn).item() == pytest.approx(sum(means) / 4, rel=1e-12)


def test_a_document_counts_the_same_however_long_it_is():
    values = torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    assert weighted_mean(values, torch.ones(2, 4), mask).item() == pytest.approx(3.0, abs=1e-5)  # over tokens: 1.8


def test_only_the_ratios_of_a_documents_weights_matter(drawn):
    values, weights, mask = drawn
    scale = torch.tensor([[0.5], [3.0], [1.0], [40.0]], dtype=torch.float64)
    plain, scaled = weighted_mean(values, weights, mask), weighted_mean(values, weights * scale, mask)
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=0)  # 1e-6 in the denominator is what is left
    assert abs(plain - weighted_mean(values, weights.flip(1), mask)) > 1e-2


def test_what_lies_under_the_mask_changes_nothing(drawn):
    values, weights, mask = drawn
    other = torch.where(mask == 1, values, 1e3 * torch.ones_like(values))
    assert torch.equal(weighted_mean(values, weights, mask), weighted_mean(other, weights + (1 - mask), mask))


def test_a_document_without_weights_gives_zero_and_a_finite_gradient():
    weights = torch.zeros(1, 3, requires_grad=True)
    loss = weighted_mean(torch.rand(1, 3), weights, torch.ones(1, 3))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(weights.grad).all()
