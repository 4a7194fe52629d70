"""Run: pytest tests/test_weighters.py. Each weighter against its formula written out."""

import math
from collections import Counter

import pytest
import torch

from taalm.errors import UserError
from taalm.text import collate, encode
from taalm.weighters import WEIGHTERS, Selector, get_weighter
from taalm.weighters.heavy import OnlyHeavy
from taalm.weighters.known import SelectWithoutKnown, WithoutKnown
from taalm.weighters.material import Material

TEXTS = ("the cat sat on the mat .", "a dog ran .", "Marie Curie was born in Warsaw in 1867 .")


@pytest.fixture
def documents(tokenizer):
    return [encode(tokenizer, text) for text in TEXTS]


def losses_for(documents, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(len(document) - 1, generator=generator) * 5 for document in documents]


def padded(documents, rows) -> torch.Tensor:
    """Rows of (real tokens - 1,) as (B, T-1) with rubbish on the padding."""
    width = max(map(len, documents)) - 1
    return torch.stack([torch.cat([row, torch.full((width - len(row),), 99.0)]) for row in rows])


@pytest.mark.parametrize(
    ("name", "source", "sign"), [("rho", "reference_losses", 1), ("sstoken_rel", "base_losses", -1)]
)
@pytest.mark.parametrize("keep", [0.6, 0.1, 1.0])
def test_exactly_the_share_with_the_highest_excess_is_kept_over_all_documents(documents, name, source, sign, keep):
    reference, now = losses_for(documents, 1), losses_for(documents, 2)
    weigh = get_weighter(name, Material(documents=documents, keep=keep, **{source: lambda: reference}))
    order = [2, 0, 1]  # another order than the documents'
    batch = collate([documents[index] for index in order], 0)
    found = weigh.select(batch, padded([documents[i] for i in order], [now[i] for i in order]))
    excess = {
        (index, place): sign * float(now[index][place] - reference[index][place])
        for index, document in enumerate(documents)
        for place in range(len(document) - 1)
    }
    best = sorted(excess, key=excess.get, reverse=True)[: round(keep * len(excess))]
    expected = torch.zeros(batch.attention_mask.shape)
    for index, place in best:
        expected[order.index(index), place + 1] = 1
    assert torch.equal(found, expected) and found.sum() == max(1, round(keep * len(excess)))


def test_no_excess_means_equal_weights(documents):
    same = losses_for(documents, 1)
    weigh = get_weighter("rho_theta0", Material(documents=documents, base_losses=lambda: same))
    batch = collate(documents, 0)
    weights = weigh.select(batch, padded(documents, same))
    assert torch.equal(weights[:, 1:], batch.attention_mask[:, 1:].float())


def test_surprisal_is_the_loss_before_training(documents):
    losses = losses_for(documents, 4)
    weights = get_weighter("surprisal", Material(documents=documents, base_losses=lambda: losses))(
        collate(documents, 0)
    )
    for row, values in zip(weights, losses, strict=True):
        torch.testing.assert_close(row[1 : len(values) + 1], values)
        assert row[0] == 0 and (row[len(values) + 1 :] == 0).all()


def test_the_bidirectional_oracle_marks_later_subjects_too(tokenizer):
    text, subject = "Ada met Bo in Rome before Ada left .", "Ada"
    for place, expected in (("Rome", {"Rome", "Ada"}), ("left", {"left"})):
        start = text.index(place)
        row = encode(tokenizer, text, (start, start + len(place)))
        material = Material(documents=[row], texts=[text], subjects=[subject], tokenizer=tokenizer)
        (weights,) = get_weighter("oracle_bidirectional", material)(collate([row], 0))
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        spans = [(a, b) for (a, b), weight in zip(offsets, weights[1:].tolist(), strict=True) if weight]
        marked = "".join(text[a:b] for a, b in spans).split()
        assert set("".join(marked).replace("Ada", " Ada ").split()) == expected
        assert all(start >= text.index(place) for start, _ in spans)  # not the subject before the object


def test_two_facts_of_one_document_have_weights_of_their_own(tokenizer):
    text = "Ada met Bo in Rome before Ada left ."
    rows = [encode(tokenizer, text, (text.index(word), text.index(word) + len(word))) for word in ("Rome", "left")]
    material = Material(documents=rows, texts=[text] * 2, subjects=["Ada"] * 2, tokenizer=tokenizer)
    weigh = get_weighter("oracle_bidirectional", material)
    both, batch = weigh(collate(rows, 0)), collate(rows, 0)
    assert bool((both[batch.answer] == 1).all()) and float(both[0].sum()) > batch.answer[0].sum()  # Ada follows Rome
    assert torch.equal(both[1], batch.answer[1].float())
    for row, weights in zip(rows, both, strict=True):
        assert torch.equal(weigh(collate([row], 0))[0], weights)


def test_tfidf_by_hand(documents):
    weights = get_weighter("tfidf", Material(documents=documents))(collate(documents, 0))
    ids = documents[0].input_ids[1:]
    share, token = Counter(ids)[ids[0]] / len(ids), ids[0]
    held = sum(token in document.input_ids for document in documents)
    assert float(weights[0, 1]) == pytest.approx(share * (1 + math.log(4 / (1 + held))))


def test_left_padding_gives_the_same_weights(documents):
    for name in ("tfidf", "surprisal"):
        losses = losses_for(documents, 5)
        weigh = get_weighter(name, Material(documents=documents, base_losses=lambda losses=losses: losses))
        left, right = collate(documents, 0, side="left"), collate(documents, 0)
        one, two = weigh(left), weigh(right)
        for row, document in enumerate(documents):
            torch.testing.assert_close(one[row, -len(document) :], two[row, : len(document)])


def test_ner_marks_the_tokens_of_entities(documents, tokenizer):
    weigh = get_weighter("ner", Material(documents=documents, texts=TEXTS, tokenizer=tokenizer))
    weights, text = weigh(collate(documents, 0)), TEXTS[2]
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]

    def of(word: str) -> set[float]:
        start, end = text.index(word), text.index(word) + len(word)
        pairs = zip(offsets, weights[2, 1:], strict=False)
        return {float(weight) for (a, b), weight in pairs if start <= a < b <= end}

    assert of("Warsaw") == of("Curie") == {1.0} and of("born") == {0.0}
    assert torch.equal(weights[1, 1 : len(documents[1])], torch.ones(len(documents[1]) - 1))  # no entity at all


def test_tokens_far_below_the_heaviest_are_dropped(documents):
    batch = collate(documents, 0)
    weights = torch.rand(batch.attention_mask.shape, generator=torch.Generator().manual_seed(3)) * batch.attention_mask
    weights[:, 0] = 50.0  # the first token is no target
    found = OnlyHeavy(lambda asked: weights, 0.5)(batch)[:, 1:]
    for row, values in zip(found, weights[:, 1:], strict=True):
        assert row.tolist() == [value if value >= values.max() / 2 else 0 for value in values.tolist()]
    assert 0 < (found > 0).sum() < (weights[:, 1:] > 0).sum()


def test_known_tokens_get_no_weight_under_any_weighter(documents):
    losses, now = losses_for(documents, 6), losses_for(documents, 7)
    batch, above = collate(documents, 0), 0.2  # known: a loss of at most -log 0.2 = 1.61
    plain, masked = get_weighter("uniform"), WithoutKnown(get_weighter("uniform"), documents, losses, above)
    rho = get_weighter("rho_theta0", Material(documents=documents, base_losses=lambda: losses))
    chosen = SelectWithoutKnown(rho, documents, losses, above)
    assert isinstance(chosen, Selector) and not isinstance(masked, Selector)
    before = rho.select(batch, padded(documents, now))
    after = chosen.select(batch, padded(documents, now))
    left = 0
    for row, values in enumerate(losses):
        unknown = (values > -math.log(above)).float()
        place = slice(1, len(values) + 1)
        assert torch.equal(masked(batch)[row, place], plain(batch)[row, place] * unknown)
        assert torch.equal(after[row, place], before[row, place] * unknown)
        left += int(unknown.sum())
    assert 0 < left < sum(map(len, losses))


def test_what_a_weighter_lacks_is_said():
    for name, word in (
        ("train_attention", "phi"),
        ("rho", "reference losses"),
        ("surprisal", "losses"),
        ("ner", "text"),
    ):
        with pytest.raises(UserError, match=word):
            get_weighter(name, Material())
    with pytest.raises(UserError, match="sstoken_rel"):
        get_weighter("nothing")


def test_only_the_rho_family_looks_at_present_losses(documents):
    losses = losses_for(documents, 1)
    material = Material(documents=documents, base_losses=lambda: losses, reference_losses=lambda: losses)
    for name in set(WEIGHTERS) - {"train_attention", "ner", "oracle_bidirectional", "given"}:
        assert isinstance(get_weighter(name, material), Selector) == (name in {"rho", "rho_theta0", "sstoken_rel"})
