"""Run: pytest tests/test_asking.py. What a document will be asked, learned from what TA-train's facts are asked."""

import math

import pytest
import torch

from taalm import asking
from taalm.asking import Asker, Pair, pooled_pairs, question_of
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.models.split import SplitModel
from taalm.names import names_apart
from taalm.shown import check_shown, show
from taalm.text import collate, encode, offsets
from taalm.views import ViewsConfig, check_questions, views_of
from tests.conftest import ROOT, tiny_llama

TEXT = "The first bishop Raymond Gam was ordained by Archbishop of Mandalay in St Patrick. He sang."
SAMPLE = ROOT / "data" / "sample" / "lama_ckl" / "ta_train.jsonl"
BISHOP = (TEXT.index("bishop"), TEXT.index("bishop") + 6)


@pytest.fixture(scope="module")
def split(tokenizer) -> SplitModel:
    return SplitModel(tiny_llama(len(tokenizer), hidden_size=64))


@pytest.fixture(scope="module")
def facts():
    return read_facts(SAMPLE)


@pytest.fixture(scope="module")
def asker(split, tokenizer, facts) -> Asker:
    return Asker(tokenizer, show(split, tokenizer, facts))


def test_a_question_is_a_probe_up_to_its_object(facts):
    asked = {question_of(fact) for fact in facts}
    assert "<subject> plays the" in asked and "The headquarters of <subject> is in" in asked
    assert None in asked  # its object stands before its subject


def test_what_enters_a_layer_is_the_models_state_there_and_the_layer_is_not_run(split, tokenizer, monkeypatch):
    batch = collate([encode(tokenizer, TEXT), encode(tokenizer, "he plays")], 2)
    expected = split.model(**batch.inputs(), output_hidden_states=True).hidden_states[1]
    monkeypatch.setattr(split.layers[1], "forward", None)
    assert torch.equal(split.entering(batch, 1)[batch.attention_mask.bool()], expected[batch.attention_mask.bool()])


def test_what_the_facts_are_asked_is_learned(asker, split, tokenizer, facts):
    """Of the facts that taught it the own pair is among the first three of some ten times as many, mostly."""
    named = [fact for fact in facts if question_of(fact) and fact.subject in fact.evidence][:60]
    texts = [fact.evidence for fact in named]
    rows = [encode(tokenizer, text) for text in texts]
    spans = [fact.object_span() for fact in named]
    ranked = asker.pairs(split, tokenizer, texts, rows, spans)
    own = [
        [pair[1:] for pair in pairs].index((fact.subject, question_of(fact)))
        for fact, pairs in zip(named, ranked, strict=True)
        if (fact.subject, question_of(fact)) in {pair[1:] for pair in pairs}
    ]
    assert len(own) > 40 and min(len(pairs) for pairs in ranked) >= 10
    assert sum(place < 3 for place in own) > 0.8 * len(own)
    alone = asker.pairs(split, tokenizer, texts[:1], rows[:1], spans[:1])[0]  # whatever is read beside it
    assert [pair[1:] for pair in alone[:5]] == [pair[1:] for pair in ranked[0][:5]]
    assert alone[0].score == pytest.approx(ranked[0][0].score, abs=1e-4)
    assert all(len({pair[1:] for pair in pairs}) == len(pairs) for pairs in ranked)


def test_another_object_of_the_document_is_asked_for_otherwise(asker, split, tokenizer, facts):
    fact = next(fact for fact in facts if question_of(fact) == "<subject> plays the")
    row = encode(tokenizer, fact.evidence)
    own, other = asker.pairs(
        split, tokenizer, [fact.evidence] * 2, [row] * 2, [fact.object_span(), (0, len(fact.evidence.split()[0]))]
    )
    assert own[0].question == "<subject> plays the" and own != other


def test_without_a_name_or_where_the_object_is_cut_off_nothing_is_asked(asker, split, tokenizer):
    for text, span, length in (("he plays the oboe.", (13, 17), None), (TEXT, (86, 90), 8)):
        assert asker.pairs(split, tokenizer, [text], [encode(tokenizer, text, max_length=length)], [span]) == [[]]


def test_views_ask_the_likeliest_pairs_and_no_pair_of_two_objects(asker, split, tokenizer):
    row = encode(tokenizer, TEXT)
    places = offsets(tokenizer, TEXT, row)
    weights = torch.tensor([0.0] + [float(a < BISHOP[1] and BISHOP[0] < b) for a, b in places])
    weights += torch.tensor([0.0] + [0.2 * float(a < 44 and b > 29) for a, b in places])  # "was ordained"
    config = ViewsConfig(templates=[], spans=2, asked=3)
    (views,), questions = views_of(tokenizer, [TEXT], [row], [weights], config, split, asker)
    (ranked,) = asker.pairs(split, tokenizer, [TEXT], [row], [BISHOP])
    heads = [pair.question.replace("<subject>", pair.name) for pair in ranked]
    assert [view.text for view in views[:3]] == [f"{head} bishop" for head in heads[:3]]
    assert len(views) == 6 and len({view[: span[0]] for view, span, _ in views}) == 6
    assert all(view[slice(*span)] in ("bishop", "was ordained", "ordained") for view, span, _ in views)
    config.templates, config.names, config.spans = ["{name}: {object}"], 1, 1
    (views,), questions = views_of(tokenizer, [TEXT], [row], [weights], config, split, asker)
    assert questions == [pair.question for pair in ranked[:3]]
    assert [view.text for view in views] == ["Raymond Gam: bishop", *(f"{head} bishop" for head in heads[:3])]


def test_facts_that_show_what_is_asked_are_needed_and_none_may_be_evaluated(split, tokenizer, facts):
    for questions in ("", "templates.csv"):
        with pytest.raises(UserError, match=r"--views\.asked 3 learns .*--views\.questions"):
            check_questions(ViewsConfig(asked=3, questions=questions))
    for held, subjects in (({facts[4].evidence}, ()), ((), {facts[4].subject})):
        with pytest.raises(UserError, match=r"ta_train\.jsonl:5: --views\.questions .* evaluated"):
            check_shown(facts, "views.questions", held, subjects)
    with pytest.raises(UserError, match=r"--views\.held 9: name the questions"):
        check_questions(ViewsConfig(held=9))
    for held, questions in ((0, "facts.jsonl"), (9, "templates.csv")):
        with pytest.raises(UserError, match=r"--views\.held_facts goes with --views\.held and facts"):
            check_questions(ViewsConfig(held=held, held_facts=True, questions=questions))
    unasked = [fact for fact in facts if question_of(fact) is None]
    with pytest.raises(UserError, match="names its subject before its object"):
        Asker(tokenizer, show(split, tokenizer, unasked))


def test_pooled_pairs_are_the_likeliest_of_all_documents():
    """Two documents; one has two objects, of .9 and .1 of its weight, which the same pair could ask for."""
    first, other, only = (0, (0, 1)), (0, (5, 6)), (1, (0, 1))

    def pairs(**chances: float) -> list[Pair]:
        return [Pair(7.0 + math.log(chance), "Ada", question) for question, chance in chances.items()]

    ranked = {
        first: pairs(plays=0.8, sings=0.15, owns=0.05),
        other: pairs(plays=0.9, lives=0.1),
        only: pairs(plays=0.4, sings=0.3, owns=0.2, lives=0.1),
    }
    logs = {first: math.log(0.9), other: math.log(0.1), only: 0.0}

    def asked(count: int) -> list[list[str]]:
        found = pooled_pairs(ranked, logs, count)
        return [[pair.question for pair in found[place]] for place in (first, other, only)]

    assert asked(1) == [["plays"], [], ["plays"]]  # .72, .4
    assert asked(2) == [["plays"], [], ["plays", "sings", "owns"]]  # then .3, .2
    # .135, .1; the other object's .09 is asked for already
    assert asked(3) == [["plays", "sings"], [], ["plays", "sings", "owns", "lives"]]
    assert asked(9) == [["plays", "sings", "owns"], ["lives"], ["plays", "sings", "owns", "lives"]]  # there are no more
    likeliest = pooled_pairs(ranked, logs, 2)
    assert [math.exp(pair.score) for pair in likeliest[first] + likeliest[only]] == pytest.approx([0.72, 0.4, 0.3, 0.2])
    logs[other] = -math.inf
    assert asked(9)[1] == []  # what weighs nothing is not asked for
    assert pooled_pairs({first: []}, logs, 2) == {first: []}


def test_pooled_views_are_as_many_on_average(asker, split, tokenizer, facts):
    texts = [TEXT, "he plays the oboe.", facts[0].evidence]
    rows = [encode(tokenizer, text) for text in texts]
    weights = [
        torch.tensor([0.0, *torch.rand(len(row) - 1, generator=torch.Generator().manual_seed(0))]) for row in rows
    ]
    config = ViewsConfig(templates=[], spans=2, asked=3, pooled=True)
    views, questions = views_of(tokenizer, texts, rows, weights, config, split, asker)
    assert len(questions) == sum(map(len, views)) == 9 and views[1] == []  # without a name
    assert all(len({view[: span[0]] for view, span, _ in some}) == len(some) for some in views)  # no question twice
    nothing = [torch.zeros(len(row)) for row in rows]  # weighs anything: nothing is asked
    assert views_of(tokenizer, texts, rows, nothing, config, split, asker)[1] == []
    with pytest.raises(UserError, match=r"--views\.pooled .*--views\.asked"):
        ViewsConfig(pooled=True)


def test_pairs_are_the_same_every_time(asker, split, tokenizer, facts):
    again = Asker(tokenizer, show(split, tokenizer, facts))
    row = encode(tokenizer, TEXT)
    found = [one.pairs(split, tokenizer, [TEXT], [row], [BISHOP]) for one in (asker, again)]
    assert found[0] == found[1] and isinstance(found[0][0][0], Pair)


def test_a_part_of_the_subject_teaches_neither_that_it_is_asked_about_nor_that_it_is_not(
    split, tokenizer, facts, monkeypatch
):
    fact = next(fact for fact in facts if question_of(fact) and fact.evidence.count(fact.subject) == 1)
    subject = fact.evidence.index(fact.subject), fact.evidence.index(fact.subject) + len(fact.subject)
    apart = next(
        place
        for place in names_apart(fact.evidence, fact.object_span())
        if place[0] >= subject[1] or place[1] <= subject[0]
    )
    within = (subject[0], subject[1] - 1)
    taught = []
    monkeypatch.setattr(asking, "Classifier", lambda *given: taught.append(given))
    monkeypatch.setattr(asking, "names_apart", lambda text, span: [subject, within, apart])
    Asker(tokenizer, show(split, tokenizer, [fact]))
    _, names = taught
    assert names[1].tolist() == [0, 1]  # its subject, then none
    assert names[2].tolist() == pytest.approx([1, asking.UNASKED])
