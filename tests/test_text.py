"""Run: pytest tests/test_text.py. Answer spans by characters, collation, length buckets, messages."""

import copy
import re
from dataclasses import replace

import pytest
import torch

from taalm.config import parse
from taalm.errors import UserError
from taalm.evaluate import EvaluateConfig
from taalm.text import (
    Encoded,
    by_length,
    by_tokens,
    check_length,
    collate,
    describe_truncation,
    encode,
    pad_token,
    shuffled_buckets,
    start_token,
)


def marked(tokenizer, row: Encoded) -> str:
    """The text of the marked tokens."""
    return tokenizer.decode([token for token, hit in zip(row.input_ids, row.answer, strict=True) if hit])


def place(text: str, part: str, which: int = 0) -> tuple[int, int]:
    start = -1
    for _ in range(which + 1):
        start = text.index(part, start + 1)
    return start, start + len(part)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She moved to Zanzibar City in May.", "Zanzibar City"),  # unknown words: many tokens
        ("Paris is the capital of France.", "Paris"),  # at the very start, no space before it
        ("The capital of France is Paris", "Paris"),  # at the very end
        ("Er wohnt in Köln-Mülheim.", "Köln-Mülheim"),  # characters of two bytes
        ("首都は東京です。", "東京"),  # three bytes each
        ("He likes 🎻 music", "🎻"),  # four
    ],
)
def test_the_marked_tokens_are_exactly_the_object(tokenizer, text, answer):
    row = encode(tokenizer, text, place(text, answer))
    assert marked(tokenizer, row).strip() == answer
    assert tokenizer.decode(row.input_ids[1:]) == text and row.input_ids[0] == tokenizer.bos_token_id
    assert not row.answer[0] and len(row.answer) == len(row.input_ids) == len(row)


def test_an_object_of_many_tokens_is_marked_whole(tokenizer):
    row = encode(tokenizer, "x Zanzibar y", (2, 10))
    assert sum(row.answer) > 1
    first = row.answer.index(True)
    assert row.answer[first : first + sum(row.answer)] == (True,) * sum(row.answer)


def test_the_span_chooses_between_two_occurrences(tokenizer):
    text = "Berlin , then the capital Berlin ."
    first, second = (encode(tokenizer, text, place(text, "Berlin", which)) for which in (0, 1))
    assert first.answer.index(True) == 1 and second.answer.index(True) > sum(first.answer)
    assert marked(tokenizer, first).strip() == marked(tokenizer, second).strip() == "Berlin"
    assert not any(a and b for a, b in zip(first.answer, second.answer, strict=True))


def test_without_a_span_nothing_is_marked(tokenizer):
    assert not any(encode(tokenizer, "The capital").answer)


def test_a_span_that_no_token_covers_is_an_error(tokenizer):
    with pytest.raises(UserError, match="no token of 'Paris' covers the characters 7 to 9"):
        encode(tokenizer, "Paris", (7, 9))


def test_encode_cuts_to_max_length_and_says_so(tokenizer):
    text = "The capital of France is Paris ."
    whole = encode(tokenizer, text, place(text, "Paris"))
    cut = encode(tokenizer, text, place(text, "Paris"), max_length=4)
    assert cut.input_ids == whole.input_ids[:4] and cut.answer == whole.answer[:4] and cut.truncated
    fits = encode(tokenizer, text, place(text, "Paris"), max_length=len(whole))
    assert fits == whole and not fits.truncated
    assert describe_truncation([whole, cut, cut], 4) == "2 documents were cut to 4 tokens"
    assert describe_truncation([whole], 4) is None


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast, name_or_path = False, "old"

    with pytest.raises(UserError, match="'old' is not a fast one"):
        encode(Slow(), "text")


def test_texts_start_with_bos_else_eos_else_it_is_an_error(tokenizer):
    other = copy.deepcopy(tokenizer)
    assert start_token(other) == other.convert_tokens_to_ids("<s>")
    other.bos_token = None
    assert start_token(other) == other.convert_tokens_to_ids("</s>")
    assert encode(other, "Paris").input_ids[0] == other.convert_tokens_to_ids("</s>")
    other.eos_token = None
    with pytest.raises(UserError, match="neither a BOS nor an EOS"):
        start_token(other)


def test_padding_falls_back_to_the_start_token(tokenizer):
    other = copy.deepcopy(tokenizer)
    assert pad_token(other) == other.convert_tokens_to_ids("<pad>")
    other.pad_token = None
    assert pad_token(other) == start_token(other)


LONG = Encoded((0, 5, 6, 7), (False, False, True, True))
SHORT = Encoded((0, 9), (False, True))


@pytest.mark.parametrize(
    ("side", "ids", "mask", "answer"),
    [
        ("right", [0, 9, 2, 2], [1, 1, 0, 0], [False, True, False, False]),
        ("left", [2, 2, 0, 9], [0, 0, 1, 1], [False, False, False, True]),
    ],
)
def test_collate_pads_on_either_side(side, ids, mask, answer):
    batch = collate([LONG, SHORT], pad_id=2, side=side)
    assert batch.input_ids.tolist() == [[0, 5, 6, 7], ids]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], mask]
    assert batch.answer.tolist() == [list(LONG.answer), answer]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_of_a_batch_is_the_document_without_its_padding(side):
    batch = collate([LONG, SHORT], 2, side)
    for index, row in enumerate((LONG, SHORT)):
        alone = batch.rows([index])
        assert alone.input_ids.tolist() == [list(row.input_ids)] and alone.answer.tolist() == [list(row.answer)]
        assert torch.equal(alone.attention_mask, torch.ones(1, len(row), dtype=torch.long))


@pytest.mark.parametrize("side", ["right", "left"])
def test_positions_count_real_tokens_on_either_side(side):
    batch = collate([LONG, SHORT], 2, side)
    for index, row in enumerate((LONG, SHORT)):
        positions = batch.inputs()["position_ids"][index, batch.attention_mask[index].bool()]
        assert positions.tolist() == list(range(len(row)))


def test_a_row_of_a_batch_keeps_its_states():
    batch = collate([LONG, SHORT], 2, "left")
    states = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    assert torch.equal(replace(batch, states=states).rows([1]).states, states[1:, 2:])
    assert torch.equal(replace(batch, states=states).to("cpu").states, states) and batch.rows([1]).states is None


LENGTHS = [7, 3, 9, 3, 5, 8, 2, 2, 6, 4, 9, 1, 5, 7, 3, 8, 6, 2, 4]  # 19: batches of 4 leave 3 over


@pytest.mark.parametrize(("count", "size"), [(19, 4), (19, 1), (19, 50), (3, 4), (16, 4), (0, 4)])
def test_an_epoch_holds_every_index_exactly_once_and_the_last_short_batch(count, size):
    for seed in range(5):
        batches = shuffled_buckets(LENGTHS[:count], size, seed)
        assert sorted(index for batch in batches for index in batch) == list(range(count))
        assert sorted(map(len, batches)) == sorted([size] * (count // size) + [count % size] * (count % size > 0))


def test_the_same_seed_gives_the_same_batches_and_other_epochs_differ():
    epochs = [shuffled_buckets(LENGTHS, 4, seed) for seed in range(6)]
    assert epochs == [shuffled_buckets(LENGTHS, 4, seed) for seed in range(6)]
    assert len({str(epoch) for epoch in epochs}) == 6
    company = [frozenset(map(frozenset, shuffled_buckets(LENGTHS, 4, seed, pool=2))) for seed in range(6)]
    assert len(set(company)) == 6  # other texts share a batch, not only another order of the same batches


def test_batches_hold_texts_of_similar_length():
    lengths = list(range(64))
    spread = [max(batch) - min(batch) for batch in shuffled_buckets(lengths, 4, seed=0, pool=16)]
    assert max(spread) == 3  # one pool of everything: sorted


def test_by_length_puts_the_longest_first_and_loses_none():
    batches = by_length(LENGTHS, 4)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(19)) and len(batches[-1]) == 3
    assert [LENGTHS[index] for index in flat] == sorted(LENGTHS, reverse=True)


def test_a_document_longer_than_the_model_is_an_error_that_says_what_to_do():
    check_length(256, 256, "f.jsonl:3")
    check_length(10**6, None, "f.jsonl:3")
    with pytest.raises(UserError) as error:
        check_length(257, 256, "f.jsonl:3")
    message = str(error.value)
    assert message.startswith("f.jsonl:3: the document has 257 tokens, the model reads 256; shorten it or set ")
    assert message.endswith("max_length 256 to cut documents")


def test_the_key_that_the_length_error_names_exists():
    with pytest.raises(UserError) as error:
        check_length(257, 256, "f.jsonl:3")
    key = re.search(r"set (\w+) 256", str(error.value))[1]
    with pytest.raises(UserError, match="Not of type"):  # known, or the message would be "unknown key"
        parse(EvaluateConfig, None, [f"--adapt.{key}", "no number"], "prog")


@pytest.mark.parametrize("budget", [1, 10, 24, 1000])
def test_parts_by_tokens_hold_every_text_once_and_stay_in_the_budget(budget):
    lengths = [7, 3, 12, 5, 5, 9, 1]
    parts = by_tokens([0, 2, 3, 4, 5, 6], lengths, budget)
    assert sorted(index for part in parts for index in part) == [0, 2, 3, 4, 5, 6]
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[index] for index in part) <= budget
    assert len(parts) == {1: 6, 10: 5, 24: 3, 1000: 1}[budget]
