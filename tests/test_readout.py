"""Run: pytest tests/test_readout.py. Linear probes, and the weights that one reads from theta_0's states."""

import pytest
import torch
import torch.nn.functional as F

from taalm import evaluate, readout
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.linear_probe import Classifier
from taalm.models.base import ModelConfig
from taalm.models.split import SplitModel
from taalm.readout import Readout, ReadoutConfig
from taalm.results import load_result
from taalm.shown import Shown, middle_states, show
from taalm.text import collate, encode
from taalm.weighters import get_weighter
from taalm.weighters.documents import fixed
from taalm.weighters.readout import TimesReadout
from tests.conftest import tiny_llama


@pytest.fixture(scope="module")
def split(tokenizer) -> SplitModel:
    return SplitModel(tiny_llama(len(tokenizer), hidden_size=64))


@pytest.fixture(scope="module")
def facts(sample_folder):
    return read_facts(sample_folder / "ta_train.jsonl")


def test_a_classifier_is_at_the_minimum_of_its_loss():
    torch.manual_seed(0)
    features, classes, weights = torch.randn(40, 5) * 3 + 2, torch.randint(3, (40,)), torch.rand(40)
    probe = Classifier(features, classes, weights, count=3, decay=1e-2)
    x = (features - features.mean(0)) / (features.std(0, correction=0) + 1e-6) / 5**0.5
    matrix, bias = (part.detach().double().requires_grad_() for part in (probe.matrix, probe.bias))
    losses = F.cross_entropy(x.double() @ matrix + bias, classes, reduction="none")
    total = (losses * weights).sum() / weights.sum() + 1e-2 * (matrix**2).sum()
    for gradient in torch.autograd.grad(total, (matrix, bias)):
        assert gradient.abs().max() < 1e-3
    assert torch.allclose(probe(features), (x @ probe.matrix + probe.bias).log_softmax(-1), atol=1e-5)
    assert torch.allclose(probe(features).exp().sum(1), torch.ones(40))


def test_the_states_are_the_models_half_way_up_whatever_is_read_beside_a_document(split, tokenizer, facts):
    rows = [encode(tokenizer, fact.evidence) for fact in facts[:5]]
    together = middle_states(split, rows, 2)
    for row, states in zip(rows, together, strict=True):
        own = split.model(**collate([row], 2).inputs(), output_hidden_states=True).hidden_states[1][0, 1:]
        assert torch.allclose(states, own, atol=1e-5)


def test_the_probe_is_at_the_minimum_of_the_objects_cross_entropy(split, tokenizer, facts, monkeypatch):
    """In float64, document by document; relations weigh n^-0.7 together with their n facts."""
    monkeypatch.setattr(readout, "DECAY", 1e-2)
    shown = show(split, tokenizer, facts[:12])
    probe = Readout(shown).probe
    states = torch.cat(list(shown.states))
    x = [(own - states.mean(0)) / (states.std(0, correction=0) + 1e-6) / 64**0.5 for own in shown.states]
    matrix = probe.matrix.detach().double().requires_grad_()
    relations = [fact.relation_code for fact in shown.facts]
    counts = [relations.count(relation) ** -0.7 for relation in relations]
    total = 1e-2 * matrix.square().sum()
    for own, row, weight in zip(x, shown.rows, counts, strict=True):
        logs = (own.double() @ matrix).squeeze(1).log_softmax(0)
        total = total - weight / sum(counts) * logs[torch.tensor(row.answer[1:])].mean()
    (gradient,) = torch.autograd.grad(total, matrix)
    assert gradient.abs().max() < 1e-3 and matrix.abs().max() > 0.1


def test_the_objects_of_the_facts_that_taught_it_weigh_most(split, tokenizer, facts, monkeypatch):
    monkeypatch.setattr(readout, "DECAY", 1e-6)  # a random model says little of a word
    shown = show(split, tokenizer, facts)
    weights = Readout(shown)(shown.states)
    marked = [torch.tensor(row.answer[1:]) for row in shown.rows]
    on_objects = [float(own[answer].mean()) for own, answer in zip(weights, marked, strict=True)]
    assert sum(on_objects) / len(on_objects) > 1.8 and sum(weight > 1 for weight in on_objects) > 0.8 * len(marked)
    assert all(float(own.mean()) == pytest.approx(1, abs=1e-4) and bool((own > 0).all()) for own in weights)


def test_it_learns_from_facts_whose_object_was_read(split, tokenizer, facts):
    shown = show(split, tokenizer, facts[:4])
    unread = [row.__class__(row.input_ids, (False,) * len(row)) for row in shown.rows]
    some = Shown(shown.facts, [*shown.rows[:2], *unread[2:]], shown.states)
    alone = Shown(shown.facts[:2], shown.rows[:2], shown.states[:2])
    assert torch.equal(Readout(some).probe.matrix, Readout(alone).probe.matrix)
    with pytest.raises(UserError, match="readout: no fact has its object among the first 512 tokens"):
        Readout(Shown(shown.facts, unread, shown.states))


def test_it_multiplies_another_weighters_weights_to_a_power(tokenizer):
    rows = [encode(tokenizer, "he plays"), encode(tokenizer, "she sings jazz")]
    other, own = ([torch.rand(len(row) - 1) + 0.1 for row in rows] for _ in range(2))
    batch = collate(rows, 2)
    found = TimesReadout(fixed(rows, other), rows, own, 0.25)(batch)
    assert torch.allclose(found[1, 1:], other[1] ** 0.25 * own[1]) and float(found[:, 0].abs().max()) == 0
    alone = TimesReadout(get_weighter("uniform"), rows, own, 0.25)(batch)
    assert torch.allclose(alone[1, 1:], own[1]) and not bool(alone[batch.attention_mask == 0].any())


def made(tiny_folder, sample_folder, method: str, facts: str = "ta_train.jsonl", probes=()) -> Cell:
    config = CellConfig(method=method, model=ModelConfig(name=str(tiny_folder), precision="fp32"), quiet=True)
    config.readout = ReadoutConfig(facts=facts and str(sample_folder / facts))
    return Cell(config, list, probes)


def test_a_cells_weights_are_the_readouts_and_views_take_them(tiny_folder, sample_folder, tmp_path, facts):
    cell = made(tiny_folder, sample_folder, "readout+views")
    split, tokenizer = cell.load()
    documents = [Document(fact.evidence, None, fact.where) for fact in read_facts(sample_folder / "to_learn.jsonl")[:3]]
    rows, weights = cell.weights(split, tokenizer, documents, tmp_path)
    expected = Readout(show(split, tokenizer, facts))(middle_states(split, rows, 2))
    for own, found in zip(expected, weights, strict=True):
        assert torch.allclose(found[1:], own) and float(found[0]) == 0
    adaptation = cell.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / "state.safetensors")
    assert len(adaptation.documents) > len(documents)


@pytest.mark.parametrize(
    ("method", "facts", "said"),
    [
        ("readout", "", "--readout.facts"),
        ("readout", "absent.jsonl", "absent.jsonl"),
        ("rho_theta0+readout", "ta_train.jsonl", "readout needs a decoder and weights that are known beforehand"),
    ],
)
def test_what_cannot_be_read_out_is_refused(tiny_folder, sample_folder, tmp_path, facts, method, said):
    cell = made(tiny_folder, sample_folder, method, facts)
    split, tokenizer = cell.load()
    with pytest.raises(UserError, match=said):
        cell.weights(split, tokenizer, [Document("Ada sang.", None, "here")], tmp_path)


def test_no_evaluated_fact_teaches_it(tiny_folder, sample_folder, tmp_path, facts):
    cell = made(tiny_folder, sample_folder, "readout", probes=[(facts[2].subject, facts[2].object)])
    split, tokenizer = cell.load()
    with pytest.raises(UserError, match=r"ta_train\.jsonl:3: --readout\.facts .* evaluated"):
        cell.weights(split, tokenizer, [Document("Ada sang.", None, "here")], tmp_path)


def test_the_command_takes_ta_train(tiny_folder, sample_folder, tmp_path):
    flags = ["--model.name", str(tiny_folder), "--model.first_layer", "0", "--method", "readout"]
    flags += ["--data", str(sample_folder), "--limit", "3"]
    flags += ["--adapt.epochs", "2", "--adapt.lr", "1e-2", "--quiet", "true", "--out", str(tmp_path)]
    evaluate.main(flags)
    result = load_result(tmp_path / "readout_seed42.pkl")
    assert result["config"]["readout"] == {"facts": str(sample_folder / "ta_train.jsonl"), "power": 0.25}
    assert list(result["eval_result"]) == [0, 1, 2]
    assert result["eval_result"][2]["loss"] < result["eval_result"][1]["loss"]
