"""Run: pytest tests/test_known_answers.py. What theta_0 knows of names, which KL replay holds on to."""

import pytest
import torch

from taalm.known_answers import expectations, known_of, known_questions
from taalm.models.split import SplitModel
from taalm.text import encode
from tests.conftest import tiny_llama

NAMES = ["Ada", "Marie Curie", "the Kingdom of Bavaria", "Lyon"]
QUESTIONS = ["<subject> plays", "The capital of <subject> is", "<subject> was born in the city of"]


@pytest.fixture(scope="module")
def split(tokenizer) -> SplitModel:
    return SplitModel(tiny_llama(len(tokenizer)))


def alone(split: SplitModel, tokenizer, head: str) -> torch.Tensor:
    """log p(next token), the head alone, through the whole model."""
    with torch.no_grad():
        return split.model(torch.tensor([encode(tokenizer, head).input_ids])).logits[0, -1].double().log_softmax(-1)


def test_what_is_known_is_the_divergence_from_what_is_expected_of_any_name(split, tokenizer):
    for question in QUESTIONS:
        heads = [question.replace("<subject>", name) for name in NAMES]
        each = torch.stack([alone(split, tokenizer, head).exp() for head in heads])
        assert torch.allclose(expectations(split, tokenizer, heads).exp().double(), each, atol=1e-6)
        mean = each.mean(0)
        divergence = torch.tensor([float((p * (p / mean).log()).sum()) for p in each])
        assert torch.allclose(known_of(expectations(split, tokenizer, heads)), divergence, atol=1e-5)


def test_of_a_single_name_nothing_is_known_and_what_is_sure_and_rare_counts_most():
    sure, same = torch.tensor([0.98, 0.01, 0.01]), torch.tensor([0.01, 0.01, 0.98])
    assert float(known_of(sure.log()[None])) == pytest.approx(0.0, abs=1e-6)
    known = known_of(torch.stack([sure, same, same, same]).log())
    assert known[0] > known[1] == known[2] == known[3] > 0


def test_the_questions_of_which_most_is_known_come_first(split, tokenizer):
    heads = [[question.replace("<subject>", name) for name in NAMES] for question in QUESTIONS]
    known = {}
    for some in heads:
        each = torch.stack([alone(split, tokenizer, head).exp() for head in some])
        known |= {head: float((p * (p / each.mean(0)).log()).sum()) for head, p in zip(some, each, strict=True)}
    order = sorted(known, key=known.get, reverse=True)
    for count in (1, 5, 100):
        assert known_questions(split, tokenizer, QUESTIONS, NAMES, count) == order[:count]
