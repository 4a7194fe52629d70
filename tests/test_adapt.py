"""Run: pytest tests/test_adapt.py. A tiny Llama with LoRA learns a few documents: resume, batches, weights, rates."""

import math

import pytest
import torch

from taalm.adapt import Adaptation, AdaptConfig, learning_rate
from taalm.checkpoint import load_state
from taalm.errors import UserError
from taalm.head_loss import head_nll
from taalm.losses import document_means, target_mask, token_nll
from taalm.models import split
from taalm.models.base import add_lora
from taalm.models.split import SplitModel
from taalm.text import by_tokens, collate, encode
from taalm.weighters import get_weighter
from tests.conftest import tiny_llama

TEXTS = [
    ("The capital of France is Paris .", "Paris"),
    ("Libya maintains diplomatic relations with Brazil .", "Brazil"),
    ("She was born in Lyon and worked as an architect at Siemens until the firm moved .", "Siemens"),
    ("Laurie Anderson is a poet .", "poet"),
    ("The firm moved to Berlin .", "Berlin"),
]
UNIFORM = get_weighter("uniform")


class Killed(Exception):
    pass


@pytest.fixture
def documents(tokenizer):
    return [encode(tokenizer, text, (text.index(part), text.index(part) + len(part))) for text, part in TEXTS]


def theta(vocabulary: int, dropout: float = 0.0, first_layer: int = 0) -> torch.nn.Module:
    model = tiny_llama(vocabulary).requires_grad_(False)
    torch.manual_seed(1)
    return add_lora(model, r=4, alpha=8, dropout=dropout, first_layer=first_layer)


@pytest.fixture
def learn(tokenizer, documents, tmp_path):
    """learn(**AdaptConfig fields, ...) makes an Adaptation of a fresh model; its state file is tmp_path/<state>."""

    def make(
        weigh=UNIFORM, dropout=0.0, first_layer=0, evaluate=None, state="state", importance=(), **fields
    ) -> Adaptation:
        config = AdaptConfig(**{"epochs": 2, "batch_size": 2, "lr": 1e-2, "save_every": 1, **fields})
        model = SplitModel(theta(len(tokenizer), dropout, first_layer))
        return Adaptation(
            model, documents, tokenizer.pad_token_id, weigh, config, evaluate or (lambda epoch: {"epoch": epoch}),
            tmp_path / state, 5, quiet=True, importance=importance,
        )  # fmt: skip

    return make


def killed_at(n: int, weigh=UNIFORM):
    """A weigher that dies at its n-th call (from 0)."""
    calls = iter(range(n + 1))

    def weights(batch):
        if next(calls) == n:
            raise Killed
        return weigh(batch)

    return weights


def weights_of(adaptation: Adaptation) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in adaptation.trainable.items()}


def assert_equal(a: Adaptation, b: Adaptation) -> None:
    assert a.losses_by_step == b.losses_by_step
    without_time = [{e: {**entry, "seconds": 0} for e, entry in each.history.items()} for each in (a, b)]
    assert without_time[0] == without_time[1]
    assert weights_of(a).keys() == weights_of(b).keys()
    assert all(torch.equal(value, weights_of(b)[name]) for name, value in weights_of(a).items())


UPDATES = 6  # 5 documents in batches of 2, 2 epochs


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("save_every", "saved"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 0, 2, 3, 3, 5])])
@pytest.mark.parametrize("first_layer", [0, 1])  # 1: a frozen layer, whose states are kept
def test_a_run_killed_at_any_update_ends_as_if_never_killed(learn, dropout, save_every, saved, first_layer):
    settings = {"dropout": dropout, "first_layer": first_layer, "schedule": "cosine", "save_every": save_every}
    straight = learn(**settings, state="straight")
    straight.run()
    assert len(straight.losses_by_step) == UPDATES
    for n in range(UPDATES):
        with pytest.raises(Killed):
            learn(killed_at(n), **settings, state=f"killed{n}").run()
        redone = []
        again = learn(lambda batch, note=redone: (note.append(1), UNIFORM(batch))[1], **settings, state=f"killed{n}")
        torch.manual_seed(n)  # what the new process's generator holds does not matter
        again.run()
        assert_equal(straight, again)
        assert len(redone) == UPDATES - saved[n]  # it went on, it did not start afresh


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_run_killed_while_it_evaluates_ends_as_if_never_killed(learn, epoch):
    def dies(now):
        if now == epoch:
            raise Killed
        return {"epoch": now}

    straight = learn(dropout=0.1, state="straight")
    straight.run()
    with pytest.raises(Killed):
        learn(dropout=0.1, evaluate=dies).run()
    again = learn(dropout=0.1)
    again.run()
    assert_equal(straight, again)


def test_a_finished_run_is_not_run_again(learn):
    done = learn()
    done.run()
    again = learn(killed_at(0), evaluate=lambda epoch: pytest.fail("evaluated again"))
    again.run()
    assert_equal(done, again)
    assert again.seconds == done.seconds > 0


def test_the_state_of_another_model_is_refused(learn, tokenizer, documents, tmp_path):
    learn().run()
    model = add_lora(tiny_llama(len(tokenizer)).requires_grad_(False), r=2, alpha=8, dropout=0.0)
    other = Adaptation(
        SplitModel(model), documents, 2, UNIFORM, AdaptConfig(), lambda epoch: {}, tmp_path / "state", 5, quiet=True
    )
    with pytest.raises(UserError, match="state: the checkpoint of another model"):
        other.run()


def test_history_holds_the_mean_loss_over_documents_and_what_was_evaluated(learn):
    run = learn(epochs=1)
    history = run.run()
    sizes = [2, 2, 1]  # in some order: the losses are per batch
    assert list(history) == [0, 1] and history[0]["loss"] is None and history[1]["epoch"] == 1
    possible = [
        sum(loss * size for loss, size in zip(run.losses_by_step, order, strict=True)) / 5
        for order in (sizes, [2, 1, 2], [1, 2, 2])
    ]
    assert any(history[1]["loss"] == pytest.approx(value, rel=1e-9) for value in possible)


@pytest.mark.parametrize(
    ("weighter", "importance"), [("uniform", ()), ("oracle", ()), ("oracle", (0.5, 2.0, 1.0, 0.0, 1.5))]
)
def test_the_first_update_is_clipped_adamw_on_the_weighted_loss(weighter, importance, learn, documents, tokenizer):
    """Written out with torch alone: one batch of all documents, or (where some count more) two parts of it."""
    weigh = get_weighter(weighter)
    shared = {"epochs": 1, "batch_size": 5, "token_budget": 60 if importance else 10_000}
    run = learn(weigh, importance=importance, **shared, lr=1e-2, weight_decay=0.1, clip_norm=0.3)
    run.run()
    model = theta(len(tokenizer)).train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    batch = collate(documents, tokenizer.pad_token_id)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    mask = target_mask(batch.attention_mask)
    means = document_means(token_nll(logits, batch.input_ids), weigh(batch)[:, 1:], mask)
    loss = (means * torch.tensor(importance or [1.0] * 5)).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable, 0.3)
    assert norm > 0.3  # the clipping matters
    torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.1).step()
    assert run.losses_by_step == [pytest.approx(loss.item(), rel=1e-5)]
    for ours, reference in zip(run.trainable.values(), trainable, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


def test_a_target_whose_loss_is_below_the_threshold_adds_nothing_to_the_update(learn, documents, tokenizer):
    """The mean's denominator still has its weight: what is left to learn does not count more for it."""
    batch = collate(documents, tokenizer.pad_token_id)
    mask = target_mask(batch.attention_mask)
    model = theta(len(tokenizer)).train()
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    losses = token_nll(logits, batch.input_ids)
    middle = float(losses.detach()[mask.bool()].median()) + 1e-4
    loss = document_means(torch.where(losses < middle, 0.0, losses), mask, mask).mean()
    loss.backward()
    run = learn(epochs=1, batch_size=5, token_budget=10_000, clip_norm=1e9, learned_below=middle)
    run.run()
    assert run.losses_by_step == [pytest.approx(loss.item(), rel=1e-5)]
    wanted = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in run.trainable.items():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)
    none = learn(epochs=1, learned_below=1e9, state="none")
    before = {name: value.detach().clone() for name, value in none.trainable.items()}
    none.run()
    assert all(value.equal(before[name]) for name, value in none.trainable.items())


@pytest.mark.parametrize("budget", [1, 60, 120])
def test_parts_of_a_batch_give_the_update_of_the_whole_batch(learn, documents, budget):
    assert len(by_tokens(range(5), [len(row) for row in documents], budget)) > 1

    def gradients(budget: int) -> tuple[Adaptation, dict[str, torch.Tensor]]:
        run = learn(epochs=1, batch_size=5, token_budget=budget, state=f"budget{budget}")
        run.run()
        return run, {name: p.grad for name, p in run.trainable.items()}

    (whole, wanted), (parts, found) = gradients(10_000), gradients(budget)
    assert parts.losses_by_step == pytest.approx(whole.losses_by_step, rel=1e-6)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
        # Adam divides by the gradient's size: compare the weights where that is no rounding error
        sure = (gradient.abs() > 1e-4) | (gradient == 0)
        torch.testing.assert_close(parts.trainable[name][sure], whole.trainable[name][sure], rtol=0, atol=1e-6)


def test_keeping_the_states_of_a_frozen_layer_changes_nothing(learn):
    kept, whole = learn(first_layer=1, state="kept"), learn(first_layer=1, state="whole")
    whole.split.with_states = lambda batch: batch
    kept.run()
    whole.run()
    assert len(kept.states) == 5 and not whole.states
    assert kept.losses_by_step == pytest.approx(whole.losses_by_step, rel=1e-4)


def test_each_epoch_has_an_order_of_its_own_and_every_document_counts_once(learn, documents):
    seen = []

    def note(batch):
        seen.extend(tuple(batch.rows([i]).input_ids[0].tolist()) for i in range(len(batch.input_ids)))
        return UNIFORM(batch)

    learn(note, epochs=6).run()
    epochs = [seen[start : start + 5] for start in range(0, 30, 5)]
    assert all(sorted(epoch) == sorted(d.input_ids for d in documents) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) > 3


def test_the_oracles_update_differs_from_the_uniform_one(learn):
    uniform, oracle = learn(state="u"), learn(get_weighter("oracle"), state="o")
    uniform.run()
    oracle.run()
    moved = [(weights_of(uniform)[name] - value).abs().max() for name, value in weights_of(oracle).items()]
    assert max(moved) > 1e-3
    assert abs(uniform.losses_by_step[0] - oracle.losses_by_step[0]) > 1e-3


def test_only_the_objects_tokens_count_for_the_oracle(learn, documents, tokenizer):
    run = learn(get_weighter("oracle"), epochs=1, batch_size=5)
    run.run()
    expected = []
    for document in documents:
        logits = theta(len(tokenizer))(torch.tensor([document.input_ids])).logits[0].log_softmax(-1)
        places = [place for place, hit in enumerate(document.answer) if hit]
        nll = [-logits[place - 1, document.input_ids[place]].item() for place in places]
        expected.append(sum(nll) / len(nll))
    assert run.losses_by_step[0] == pytest.approx(sum(expected) / 5, rel=1e-4)


def test_tokens_that_weigh_nothing_never_reach_the_head(learn, documents, monkeypatch):
    asked = []
    monkeypatch.setattr(split, "head_nll", lambda hidden, *rest: asked.append(len(hidden)) or head_nll(hidden, *rest))
    run = learn(get_weighter("oracle"), epochs=1, batch_size=5, token_budget=10_000)
    run.run()
    assert asked[-1] == sum(sum(document.answer) for document in documents) < sum(map(len, documents)) - 5


def test_a_constant_factor_on_a_documents_weights_changes_nothing(learn):
    def scaled(batch):
        factor = 0.5 + 7 * (batch.input_ids.sum(1, keepdim=True) % 5)  # another one for each document
        return UNIFORM(batch) * factor

    plain, other = learn(state="plain", epochs=1), learn(scaled, state="scaled", epochs=1)
    plain.run()
    other.run()
    assert other.losses_by_step == pytest.approx(plain.losses_by_step, rel=1e-4)


def test_the_losses_fall(learn):
    run = learn(epochs=8)
    history = run.run()
    assert history[8]["loss"] < 0.8 * history[1]["loss"]


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [0.5, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("linear", 0.5, [0.5, 1, 1, 0.5]),
        ("cosine", 0.0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("cosine", 0.25, [1, 1, 0.75, 0.25]),
        ("linear", 1.0, [0.25, 0.5, 0.75, 1]),
        ("linear", 0.3, [0.5, 1, 1, 0.5]),  # 1.2 steps of 4, rounded up
    ],
)
def test_the_learning_rate_warms_up_and_falls(schedule, warmup, rates):
    config = AdaptConfig(lr=0.2, schedule=schedule, warmup_ratio=warmup)
    assert [learning_rate(config, step, 4) / 0.2 for step in range(4)] == pytest.approx(rates)


def test_the_optimizer_uses_the_scheduled_rate(learn):
    rates = []
    run = learn(lambda batch: (rates.append(run.optimizer.param_groups[0]["lr"]), UNIFORM(batch))[1], schedule="linear")
    run.run()
    assert rates == pytest.approx([1e-2 * left / UPDATES for left in range(UPDATES, 0, -1)])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_state(learn, tmp_path):
    calls = iter(range(99))

    def breaks(batch):
        return UNIFORM(batch) * (math.nan if next(calls) == 2 else 1.0)

    with pytest.raises(UserError, match=r"the loss is nan at update 3; lower the learning rate"):
        learn(breaks).run()
    tensors, values = load_state(tmp_path / "state")
    assert len(values["losses_by_step"]) == 2 and all(tensor.isfinite().all() for tensor in tensors.values())


def test_gradients_that_are_no_numbers_never_reach_the_weights(learn):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    run = learn(epochs=1, batch_size=5)
    norm = run.model.get_decoder().norm
    norm.register_forward_hook(lambda module, inputs, output: Broken.apply(output))
    with pytest.raises(UserError):
        run.run()
    assert all(value.isfinite().all() for value in run.trainable.values())
