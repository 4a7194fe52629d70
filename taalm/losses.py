"""Shift, mask, per-token loss and the weighted mean: the only place where these are written.

Letters: B documents, T tokens, V vocabulary. Position t of a shifted tensor (B, T-1) belongs to target token t+1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6


def target_mask(attention_mask: Tensor) -> Tensor:
    """Which targets count: m_t of docs/method.md, (B, T) -> (B, T-1) float.

    A target counts if it and the token before it are real. So BOS (the first real token) and padding
    never count, on whichever side the padding lies.
    """
    return (attention_mask[:, 1:] * attention_mask[:, :-1]).float()


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precision is too coarse for a softmax over a vocabulary."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target): logits (N, V), targets (N,) -> (N,) in at least float32.

    Flat on purpose: forward mode through a transposed (B, V, T) view is 30 times slower on CPU.
    """
    return F.cross_entropy(at_least_float32(logits), targets, reduction="none")


def token_nll(logits: Tensor, input_ids: Tensor) -> Tensor:
    """l_t = -log p(x_t | x_<t): logits (B, T, V), input_ids (B, T) -> (B, T-1), padding not masked."""
    batch, length, vocabulary = logits.shape
    flat = logits[:, :-1].reshape(-1, vocabulary)
    return cross_entropy(flat, input_ids[:, 1:].reshape(-1)).view(batch, length - 1)


def document_means(values: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """sum_t w m v / (sum_t w m + 1e-6) per document; all (B, T-1) -> (B,)."""
    weighted = weights * mask
    return (weighted * values).sum(1) / (weighted.sum(1) + EPS)


def weighted_mean(values: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """L(theta; D, w) of docs/method.md: the mean over documents of each document's weighted mean, a scalar."""
    return document_means(values, weights, mask).mean()


def mean_over_texts(values: Tensor, chosen: Tensor) -> Tensor:
    """values (N,) at the places `chosen`, (B, T-1) bool, -> the mean over texts of each text's mean, a scalar."""
    spread = values.new_zeros(chosen.shape).masked_scatter(chosen, values)
    return weighted_mean(spread, torch.ones_like(spread), chosen)
