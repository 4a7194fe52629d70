"""Run: pytest tests/meta/test_warm_start.py. Token scores against central differences, the weights made from them."""

import pytest
import torch

from taalm.facts import read_facts
from taalm.losses import token_nll
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Theta
from taalm.meta.warm_start import TokenScores, fit_loss, target_shares, token_scores
from taalm.models.base import ModelConfig, load_theta
from tests.meta.test_hypergradient import base, lesson


@pytest.fixture
def theta_and_lessons(tiny_folder, sample_folder):
    torch.manual_seed(0)
    model, tokenizer = load_theta(ModelConfig(name=str(tiny_folder), r=2, precision="fp32"))
    theta = Theta(model, InnerConfig(), ObjectiveConfig())
    facts = read_facts(sample_folder / "ta_train.jsonl")[:4]
    return theta, Lessons(tokenizer, facts, "descriptive", 60, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["llama-lora", "gpt2-lora"])
def test_scores_are_the_fall_of_the_token_losses_along_the_tasks_first_step(kind):
    theta = Theta(base(kind), InnerConfig(), ObjectiveConfig(name="change2"))
    for index in range(3):
        one = lesson("right").rows([index])
        parameters = {name: value.clone().requires_grad_() for name, value in theta.theta_0.items()}
        answer = one.probes.answer[:, 1:]
        nll = token_nll(theta.logits(parameters, one.probes), one.probes.input_ids)
        gradients = torch.autograd.grad((nll * answer).sum() / answer.sum(), list(parameters.values()))
        shifted = []
        for eps in (1e-6, -1e-6):
            moved = {n: p.detach() - eps * g.sign() for (n, p), g in zip(parameters.items(), gradients, strict=True)}
            shifted.append(token_nll(theta.logits(moved, one.documents), one.documents.input_ids).detach())
        found = token_scores(theta, one)
        assert found.abs().max() > 0
        torch.testing.assert_close(found, (shifted[1] - shifted[0]).squeeze(0) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_document_is_scored_once_and_theta_0_stays(theta_and_lessons, monkeypatch):
    theta, lessons = theta_and_lessons
    before = {name: value.clone() for name, value in theta.theta_0.items()}
    scores = TokenScores()
    first = scores.batch(theta, lessons.lesson([2, 0]), [2, 0])
    monkeypatch.setattr("taalm.meta.warm_start.token_scores", None)  # must not be asked again
    again = scores.batch(theta, lessons.lesson([0, 2]), [0, 2])
    assert torch.equal(first, again.flip(0))
    assert first.shape == lessons.lesson([2, 0]).documents.attention_mask[:, 1:].shape
    assert all(torch.equal(before[name], value) for name, value in theta.theta_0.items())


def test_shares_follow_the_standardised_scores_and_ignore_padding():
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    scores = torch.tensor([[1.0, 2, 3, 10], [5, 5, 99, -99]])
    shares = target_shares(scores, mask, temperature=0.5)
    assert torch.allclose(shares.sum(1), torch.ones(2)) and (shares[mask == 0] == 0).all()
    standard = (scores[0] - 4) / scores[0].std(correction=0)
    torch.testing.assert_close(shares[0], torch.softmax(standard / 0.5, 0))
    torch.testing.assert_close(shares[1, :2], torch.tensor([0.5, 0.5]))  # nothing to tell these tokens apart


def test_the_fit_is_best_at_the_shares_whatever_the_scale():
    mask = torch.tensor([[1.0, 1, 1, 0]])
    shares = torch.tensor([[0.7, 0.2, 0.1, 0]])
    at = fit_loss(shares * 30, shares, mask)
    torch.testing.assert_close(at, fit_loss(shares, shares, mask))
    torch.testing.assert_close(at, -(shares[:, :3] * shares[:, :3].log()).sum())
    for _ in range(5):
        assert fit_loss(torch.rand(1, 4), shares, mask) > at
