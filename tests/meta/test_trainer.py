"""Run: pytest tests/meta/test_trainer.py. The outer loop on a tiny model: resume, order, bad gradients, lessons."""

import json
from contextlib import nullcontext

import pytest
import torch

from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.meta.hypergradient import Hypergradient
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.observe import object_ratios, uncommon
from taalm.meta.outer_config import OuterConfig
from taalm.meta.problem import Theta
from taalm.meta.trainer import MetaTrainer
from taalm.models.base import ModelConfig, load_theta
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.text import Batch
from taalm.train_ta import some_documents


@pytest.fixture
def make(tiny_folder, sample_folder, tmp_path):
    """make(mode, **OuterConfig fields) builds a trainer; the same name, the same folder."""

    def build(name="run", mode="independent", restriction=0.0, **fields) -> MetaTrainer:
        torch.manual_seed(0)
        model, tokenizer = load_theta(ModelConfig(name=str(tiny_folder), r=2, precision="fp32"))
        theta = Theta(model, InnerConfig(lr=1e-2, mode=mode), ObjectiveConfig(restriction=restriction))
        phi = TrainAttention.create(TrainAttentionConfig(backbone=str(tiny_folder), r=2, dropout=0.1, precision="fp32"))
        facts = read_facts(sample_folder / "ta_train.jsonl")[:10]
        lessons = Lessons(
            tokenizer, facts, "schematic", 150, torch.device("cpu"), needs_unrelated=bool(restriction)
        )  # fmt: skip
        config = OuterConfig(**{"steps": 6, "batch_size": 4, "save_every": 1, "eval_every": 0, **fields})
        valid = lessons if config.starts > 1 else None
        return MetaTrainer(theta, phi, lessons, valid, config, tmp_path / name, seed=3, quiet=True)

    return build


def same_weights(one: MetaTrainer, two: MetaTrainer) -> bool:
    pairs = zip(one.phi.trainable().values(), two.phi.trainable().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def losses(trainer: MetaTrainer) -> list[tuple]:
    return [(entry.get("fit_loss"), entry.get("task_loss")) for entry in trainer.log]


class Cut(Exception):
    """In place of kill -9."""


@pytest.mark.parametrize(("warm_start", "balance", "starts"), [(0, 0.0, 1), (3, 0.7, 1), (2, 0.0, 3)])
def test_training_cut_anywhere_and_resumed_is_the_uninterrupted_one(make, monkeypatch, warm_start, balance, starts):
    fields = {"warm_start": warm_start, "balance": balance, "starts": starts}
    whole = make("whole", **fields)
    whole.run()
    assert whole.step == 6 + (starts - 1) * warm_start
    for cut in (1, 3, 4, 5, 7):
        with monkeypatch.context() as patch, pytest.raises(Cut) if cut < whole.step else nullcontext():
            one = make(f"cut{cut}", **fields)
            step = one.outer_step

            def until(indices, one=one, step=step, cut=cut):
                if one.step == cut:
                    raise Cut
                return step(indices)

            patch.setattr(one, "outer_step", until)
            one.run()
        resumed = make(f"cut{cut}", **fields)
        resumed.run()
        assert losses(resumed) == losses(whole)
        assert same_weights(resumed, whole)


def test_training_goes_on_from_the_best_of_its_warm_starts(make, monkeypatch):
    trainer = make(warm_start=2, starts=3, steps=4)
    shares, before, after = iter([0.2, 0.5, 0.5]), [], []
    monkeypatch.setattr(trainer, "observe", lambda lessons: {"object_heaviest": next(shares, 0.0)})
    end = trainer._end_start

    def watched(found: float) -> dict:
        before.append(copies(trainer))
        found = end(found)
        after.append(copies(trainer))
        assert not trainer.optimizer.state
        return found

    monkeypatch.setattr(trainer, "_end_start", watched)
    first = copies(trainer)
    trainer.run()
    assert trainer.step == 8
    assert after == [first, first, before[1]]  # each from the first phi; of equal ones the earlier
    assert before[0] != before[1] != before[2] != before[0]
    assert [entry["start"] for entry in trainer.log if "start" in entry] == [
        {"object_heaviest": 0.2, "best": 0.2},
        {"object_heaviest": 0.5, "best": 0.5},
        {"object_heaviest": 0.5, "best": 0.5},
    ]
    assert ["fit_loss" in entry for entry in trainer.log] == [True] * 6 + [False] * 2


def copies(trainer: MetaTrainer) -> list[list]:
    return [value.detach().tolist() for value in trainer.phi.trainable().values()]


@pytest.mark.parametrize("fields", [{"warm_start": 0}, {"warm_start": 7}])
def test_choosing_among_starts_without_a_warm_start_is_refused(make, fields):
    with pytest.raises(UserError, match=r"--outer\.starts 2: choosing among warm starts needs validation facts"):
        make(starts=2, **fields)


def test_every_epoch_has_another_order_and_holds_every_fact_once(make):
    batches, trainer = [], make()
    stream = trainer._batches()
    for _ in range(6):
        batches.append(next(stream))
    first, second = (sorted(i for batch in part for i in batch) for part in (batches[:3], batches[3:]))
    assert first == second == list(range(10)) and batches[:3] != batches[3:]


def test_balance_draws_rare_relations_more_often(make):
    trainer = make(balance=1.0)
    for index, fact in enumerate(trainer.train.facts):
        object.__setattr__(fact, "relation_code", "P1" if index == 0 else "P2")
    stream = trainer._batches()
    drawn = [index for _ in range(300) for index in next(stream)]
    assert 0.4 < drawn.count(0) / len(drawn) < 0.6  # two relations, each half of the draws


def not_finite(calls: list, bad) -> object:
    """An estimator whose n-th result is NaN when bad(n)."""

    def estimate(problem, theta, weights):
        calls.append(1)
        value = float("nan") if bad(len(calls)) else 1.0
        return Hypergradient(torch.tensor(value), torch.full_like(weights, value))

    return estimate


def test_a_gradient_that_is_no_number_is_skipped_and_counted(make):
    trainer = make(mode="joint")
    trainer.estimate = not_finite([], lambda n: n in (2, 4, 5))
    trainer.run()
    assert trainer.skipped == 3
    assert all(torch.isfinite(p).all() for p in trainer.phi.parameters())


def test_five_such_gradients_in_a_row_stop_the_run_with_an_explanation(make):
    trainer = make(mode="joint", steps=20)
    trainer.estimate = not_finite([], lambda n: n > 3)
    with pytest.raises(UserError, match=r"five outer steps in a row.*lower --inner\.lr"):
        trainer.run()
    assert trainer.step == 7  # the eighth step was the fifth bad one


def test_an_unrelated_probe_shares_neither_subject_nor_object_nor_document(make):
    lessons = make(restriction=1.0).train
    for index, fact in enumerate(lessons.facts):
        for number in range(3):
            other = lessons.facts[lessons._unrelated(index, number)]
            assert other.subject != fact.subject and other.object != fact.object and other.evidence != fact.evidence


def test_every_document_has_a_retained_text_that_is_not_its_own(make):
    lessons = make().train
    lessons.retained = list(lessons.documents)
    for number in range(3):
        retained = lessons.lesson([4, 7, 1], number).retained
        for index, ids, real in zip((4, 7, 1), retained.input_ids, retained.attention_mask.bool(), strict=True):
            text = tuple(ids[real].tolist())
            assert text != lessons.documents[index].input_ids
            assert text in {document.input_ids for document in lessons.documents}
    lessons.retained = [lessons.documents[4]]
    with pytest.raises(UserError, match="a text that is not the document; --retention_data has none"):
        lessons.lesson([4])


def test_the_log_is_json_lines_with_the_step_numbers(make, tmp_path):
    make().run()
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(1, 7))


def test_object_ratio_is_the_objects_mean_weight_over_that_of_all_targets():
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    answer = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    weights = torch.tensor([[9.0, 1.0, 4.0, 1.0, 7.0], [9.0, 1.0, 1.0, 2.0, 4.0]])
    batch = Batch(torch.zeros_like(mask), mask, answer)
    torch.testing.assert_close(object_ratios(weights, batch), torch.tensor([2.0, 1.5]))


def test_the_commonest_object_of_a_relation_is_no_uncommon_one(sample_folder):
    facts = read_facts(sample_folder / "ta_train.jsonl")[:3]
    same = [facts[0], facts[0], facts[1]]
    assert uncommon(same)[:2] == [False, False]


def test_a_part_of_the_documents_is_drawn_by_the_seed_with_all_their_facts(sample_folder):
    facts = read_facts(sample_folder / "ta_train.jsonl")
    some, again, others = (some_documents(facts, 5, seed) for seed in (1, 1, 2))
    drawn = {fact.evidence for fact in some}
    assert len(drawn) == 5 and some == again != others
    assert some == [fact for fact in facts if fact.evidence in drawn]
