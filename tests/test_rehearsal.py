"""Run: pytest tests/test_rehearsal.py. Mix-review's and KL replay's losses by hand; review texts."""

import json

import pytest
import torch
import torch.nn.functional as F

from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.models.base import ModelConfig, add_lora, load_theta
from taalm.models.split import SplitModel
from taalm.rehearsal import KLReplay, MixReview, ReviewConfig
from taalm.review_text import read_texts, sample_texts, without_probes
from taalm.text import Encoded, encode
from taalm.weighters.documents import keys
from tests.conftest import tiny_llama

TEXTS = ("the cat sat on the mat .", "a dog ran .", "Marie Curie was born in Warsaw .", "rain fell .")


@pytest.fixture
def split(tokenizer):
    torch.manual_seed(1)
    return SplitModel(add_lora(tiny_llama(len(tokenizer)).requires_grad_(False), r=2, alpha=4, dropout=0.0))


@pytest.fixture
def rows(tokenizer):
    return [encode(tokenizer, text) for text in TEXTS]


def move(split: SplitModel) -> None:
    """Somewhere away from theta_0."""
    generator = torch.Generator().manual_seed(9)
    for parameter in split.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def log_probabilities(split: SplitModel, row) -> torch.Tensor:
    with torch.no_grad():
        return split.model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)


def drawn(review, count: int, step: int) -> list[tuple[int, ...]]:
    found = []
    for batch, _ in review.parts(count, step):
        found += keys(batch)
    return found


def test_the_review_is_joined_in_the_ratio_and_decays(split, rows):
    review = MixReview(split, rows, 2, ReviewConfig(ratio=2.0, decay=0.5), 1024, 0)
    assert [review.count(8, epoch, step=5) for epoch in range(4)] == [16, 8, 4, 2]
    fixed = MixReview(split, rows, 2, ReviewConfig(batch_size=6, decay=0.5), 1024, 0)  # a batch size of its own
    assert [fixed.count(documents, 1, step=5) for documents in (8, 3)] == [3, 3]
    assert review.document_share(8, 0, 0) == pytest.approx(1 / 3)
    assert review.document_share(8, 1, 0) == pytest.approx(1 / 2)


@pytest.mark.parametrize("budget", [1024, 20])
def test_mix_reviews_loss_is_the_mean_over_documents_and_texts(split, rows, budget):
    """Sum over its parts = (texts / all) * mean loss of the texts that were drawn."""
    review = MixReview(split, rows, 2, ReviewConfig(ratio=1.5), budget, 0)
    total = sum(loss.item() for loss in review.losses(4, 0, 7))
    chosen, expected = drawn(review, 6, 7), []
    for ids, _ in chosen:
        logs = log_probabilities(split, next(row for row in rows if row.input_ids == ids))
        expected.append(-logs[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean().item())
    assert len(chosen) == 6 and total == pytest.approx(6 / 10 * sum(expected) / 6, rel=1e-4)


def test_another_step_draws_other_texts_and_the_same_step_the_same(split, rows):
    review = MixReview(split, rows, 2, ReviewConfig(), 1024, 0)
    assert drawn(review, 8, 3) == drawn(review, 8, 3) != drawn(review, 8, 4)


@pytest.mark.parametrize("direct", [True, False])  # without logits, and as for a head that is no plain matrix
def test_kl_replay_is_0_at_theta_0_and_the_kl_elsewhere(split, rows, direct):
    split._direct = direct
    review = KLReplay(split, rows, 2, ReviewConfig(batch_size=3, weight=0.5), 1024, 0)
    assert sum(loss.item() for loss in review.losses(8, 0, 1)) == pytest.approx(0, abs=1e-6)
    before = {row.input_ids: log_probabilities(split, row) for row in rows}
    move(split)
    chosen, total = drawn(review, 3, 1), 0.0
    for ids, _ in chosen:
        now = log_probabilities(split, next(row for row in rows if row.input_ids == ids))
        total += float(F.kl_div(now[:-1], before[ids][:-1], reduction="sum", log_target=True)) / (len(ids) - 1)
    found = sum(loss.item() for loss in review.losses(8, 0, 1))
    assert found == pytest.approx(0.5 * total / 3, rel=1e-4) and found > 1e-4


@pytest.mark.parametrize("direct", [True, False])
def test_kl_replay_of_a_text_with_an_answer_is_that_of_the_answer_alone(split, tokenizer, direct):
    """What stands in the answer's place makes no difference: the expectation before it is what is held on to."""
    split._direct = direct
    question = "Marie Curie was born in"
    rows = [encode(tokenizer, question + gap, (len(question), len(question) + 1)) for gap in "_?"]
    reviews = [KLReplay(split, [row], 2, ReviewConfig(batch_size=1), 1024, 0) for row in rows]
    asked = encode(tokenizer, question)
    before = log_probabilities(split, asked)[-1]
    move(split)
    now = log_probabilities(split, asked)[-1]
    expected = float((before.exp() * (before - now)).sum())
    assert [float(sum(review.losses(1, 0, 0))) for review in reviews] == pytest.approx([expected] * 2, rel=1e-4)
    assert expected > 1e-4


def test_review_texts_come_from_jsonl_text_and_extracted_wikipedia(tmp_path):
    long = [f"Paragraph {number} " + "of some plain text about nothing much " * 4 for number in range(4)]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": long[0]}) + "\n" + json.dumps({"evidence": long[1]}) + "\n")
    (tmp_path / "b.txt").write_text(f"= Heading =\n\n {long[2]} \n")
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text(json.dumps({"title": "x", "text": f"x\n{long[3]}\n"}) + "\n")
    found = read_texts(tmp_path)
    assert sorted(found) == sorted(text.strip() for text in long)
    (tmp_path / "c.jsonl").write_text('{"title": "no text"}\n')
    with pytest.raises(UserError, match=r"c\.jsonl:1"):
        read_texts(tmp_path)


def test_a_sample_of_a_large_folder_reads_only_as_many_files_as_it_needs(tmp_path):
    for file in range(20):
        lines = [f"File {file}, line {line}: " + "plain text about nothing much " * 5 for line in range(15)]
        (tmp_path / f"wiki_{file:02}").write_text("\n".join(lines))
    found = sample_texts(tmp_path, 3, seed=1)
    assert len(set(found)) == 3 and found == sample_texts(tmp_path, 3, seed=1) != sample_texts(tmp_path, 3, seed=2)
    assert len(sample_texts(tmp_path, 5000, seed=1)) == 300
    (tmp_path / "wiki_20").write_bytes(b"\xff\xfe not text")
    with pytest.raises(UserError, match="wiki_20"):
        sample_texts(tmp_path, 5000, seed=1)


def test_no_text_that_states_a_probes_fact_is_reviewed(sample_folder):
    facts = read_facts(sample_folder / "to_learn.jsonl")
    told = f"It is said that {facts[0].subject} has something to do with {facts[0].object}."
    only_subject = f"{facts[0].subject} is a name."
    pairs, documents = [(fact.subject, fact.object) for fact in facts], [fact.evidence for fact in facts]
    assert without_probes([facts[1].evidence, told, only_subject], pairs, documents) == [only_subject]
    with pytest.raises(UserError, match=r"--review\.data"):
        without_probes([told], pairs)


def test_a_share_that_is_no_whole_number_holds_over_the_updates(tiny_folder):
    split = SplitModel(load_theta(ModelConfig(name=str(tiny_folder), precision="fp32"))[0])
    review = MixReview(split, [Encoded((0, 5, 6), (False,) * 3)], 2, ReviewConfig(ratio=0.1), 100, 0)
    counts = [review.count(4, 0, step) for step in range(50)]
    assert sum(counts) == 20 and set(counts) == {0, 1}
