"""Run: pytest tests/test_scoring.py. Scores against a plain loop over single probes with all logits, no padding."""

import math

import pytest
import torch

from taalm.facts import fact_from_row
from taalm.losses import token_nll
from taalm.models.base import add_lora
from taalm.models.split import SplitModel
from taalm.scoring import ProbeBatches, ProbeScore, answers, encode_probe, score_batches, score_facts, score_probes
from taalm.text import Encoded, collate
from tests.conftest import tiny_gpt2, tiny_llama

VOCABULARY, PAD = 30, 2
MODELS = {"llama": tiny_llama, "gpt2": tiny_gpt2}


def probe(ids: list[int], answer: list[int]) -> Encoded:
    return Encoded(tuple(ids), tuple(place in answer for place in range(len(ids))))


@torch.no_grad()
def expected(model, row: Encoded) -> ProbeScore:
    """One probe by the definition."""
    log_p = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
    places = [place for place, hit in enumerate(row.answer) if hit]
    hits = [int(log_p[place - 1].argmax()) == row.input_ids[place] for place in places]
    nll = [-float(log_p[place - 1, row.input_ids[place]]) for place in places]
    return ProbeScore(sum(hits) / len(hits), all(hits), sum(nll) / len(nll), len(places))


@torch.no_grad()
def probes(model) -> list[Encoded]:
    """20 probes of several lengths; some answers are the model's own predictions, so that accuracies differ."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(20):
        length = 3 + index * 7 % 11
        ids = [0, *torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()]
        first = 1 if index % 5 == 0 else 1 + index % (length - 1)  # at the very start of the probe, or later
        last = min(length, first + index % 4)
        for place in range(first, last + 1):
            if (index % 3 == 1 and place % 2) or index % 3 == 0:  # right by half, or wholly, or (nearly) by chance
                ids[place] = int(model(torch.tensor([ids[:place]])).logits[0, -1].argmax())
        rows.append(probe(ids, list(range(first, last + 1))))
    return rows


def assert_same(found: list[ProbeScore], wanted: list[ProbeScore]) -> None:
    assert [(s.exact_match, s.tokens) for s in found] == [(s.exact_match, s.tokens) for s in wanted]
    assert [s.accuracy for s in found] == pytest.approx([s.accuracy for s in wanted], abs=1e-12)
    assert [s.nll for s in found] == pytest.approx([s.nll for s in wanted], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("token_budget", [1, 40, 1024])
@pytest.mark.parametrize("kind", MODELS)
def test_scores_equal_those_of_single_probes_without_padding(kind, token_budget, side):
    model = MODELS[kind](VOCABULARY).eval()
    rows = probes(model)
    wanted = [expected(model, row) for row in rows]
    assert {0.0, 1.0} < {score.accuracy for score in wanted}  # the cases are there: wrong, partly right, right
    assert_same(score_probes(model, rows, PAD, token_budget, side), wanted)


@pytest.mark.parametrize("kind", MODELS)
def test_the_answers_losses_are_those_of_token_nll(kind):
    model = MODELS[kind](VOCABULARY).eval()
    batch = collate(probes(model), PAD)
    found = answers(SplitModel(model).logits, batch)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(found.nll(), token_nll(logits, batch.input_ids)[batch.answer[:, 1:]])
    assert found.rows.tolist() == batch.answer.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_probes_kept_with_the_states_of_frozen_layers_score_the_same_as_theta_learns(kind, side):
    model = add_lora(MODELS[kind](VOCABULARY).requires_grad_(False), r=2, alpha=4, dropout=0.0, first_layer=1).eval()
    rows, split = probes(model), SplitModel(model)
    kept = ProbeBatches.make(rows, PAD, split, 40, side)
    assert all((batch.states is not None) == (kind == "llama") for batch in kept.batches)
    first = score_batches(split, kept)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(parameter.requires_grad * torch.randn_like(parameter))
    assert_same(score_batches(split, kept), [expected(model, row) for row in rows])
    assert score_batches(split, kept) != first


def always(token: int) -> torch.nn.Module:
    """A Llama that predicts one token everywhere."""
    model = tiny_llama(VOCABULARY).eval()
    model.lm_head = torch.nn.Linear(16, VOCABULARY)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()[token] = 5.0
    return model


def test_token_id_0_is_an_answer_like_any_other():
    rows = [probe([1, 4, 0], [2]), probe([1, 4, 0, 6], [2, 3]), probe([1, 4, 6], [2])]
    zero = score_probes(always(0), rows, pad_id=0)
    assert [score.accuracy for score in zero] == [1.0, 0.5, 0.0]
    assert [score.tokens for score in zero] == [1, 2, 1]
    six = score_probes(always(6), rows, pad_id=0)
    assert [score.accuracy for score in six] == [0.0, 0.5, 1.0]


def test_exact_match_needs_every_token_right():
    rows = [probe([1, 7, 7, 7], [1, 2, 3]), probe([1, 7, 7, 8], [1, 2, 3]), probe([1, 8, 8, 7], [3])]
    scores = score_probes(always(7), rows, PAD)
    assert [score.exact_match for score in scores] == [True, False, True]
    assert [score.accuracy for score in scores] == pytest.approx([1, 2 / 3, 1])
    right = math.log1p((VOCABULARY - 1) * math.exp(-5.0))
    assert [score.nll for score in scores] == pytest.approx([right, right + 5 / 3, right], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_weights_and_gradients_are_left_alone(training):
    model = tiny_llama(VOCABULARY).train(training)
    model.lm_head.eval()  # a mode of its own
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    score_probes(model, probes(model), PAD)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_nothing_to_score_gives_nothing():
    assert score_probes(tiny_llama(VOCABULARY), [], PAD) == []


def test_facts_are_scored_on_the_tokens_of_their_object(tokenizer):
    model = tiny_llama(len(tokenizer)).eval()
    row = {
        "relation_code": "P36", "uuid": "u", "subject": "France", "relation_label": "capital", "object": "Paris",
        "task_descriptive": "Paris is the capital of France .",
        "task_schematic": "Guess the object. \n  subject is France , relation is capital , object is Paris",
        "masked_evidence": "The capital is [MASK].", "evidence": "The capital is Paris.",
    }  # fmt: skip
    fact = fact_from_row(row, "here:1")
    for form, start in (("descriptive", 1), ("schematic", None)):
        ids = encode_probe(tokenizer, fact, form).input_ids
        if start is None:  # the fewest tokens at the end that spell the object
            start = next(place for place in range(len(ids) - 1, 0, -1) if "Paris" in tokenizer.decode(ids[place:]))
        end = next(place for place in range(start, len(ids) + 1) if "Paris" in tokenizer.decode(ids[start:place]))
        (score,) = score_facts(model, tokenizer, [fact], form)
        assert_same([score], [expected(model, probe(list(ids), list(range(start, end))))])
