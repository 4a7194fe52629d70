"""Run: pytest tests/test_views.py. Names, heaviest words, cloze views, and what a run with views learns."""

import json
import math

import pytest
import torch

from taalm.asking import question_of
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.held import GAP, fact_heads, known_heads, read_questions, review_views
from taalm.known_answers import known_questions
from taalm.models.base import ModelConfig
from taalm.models.split import SplitModel
from taalm.rehearsal import ReviewConfig
from taalm.text import collate, encode, offsets, pad_token
from taalm.views import View, ViewsConfig, cloze_views, describe_views, heaviest_spans, views_of, with_views
from tests.conftest import ROOT, tiny_llama
from tests.test_names import TEXT, said


def untouched(tokenizer) -> SplitModel:
    return SplitModel(tiny_llama(len(tokenizer)))


def test_the_heaviest_span_takes_whole_words_and_heavy_neighbours():
    text = "the jazzed rock."
    places = [(0, 3), (3, 7), (7, 10), (10, 15), (15, 16)]  # "the", " jaz", "zed", " rock", "."
    assert said(text, heaviest_spans(text, places, [0.1, 0.2, 0.9, 0.3, 0.9], 1)) == ["jazzed"]
    assert said(text, heaviest_spans(text, places, [0.1, 0.2, 0.9, 0.5, 0.9], 1)) == ["jazzed rock"]
    assert said(text, heaviest_spans(text, places, [0.1, 0.2, 0.9, 0.3, 0.9], 2)) == ["jazzed", "rock"]
    assert said(text, heaviest_spans(text, places, [0.1] * 5, 9)) == ["the jazzed rock"]  # and no more than there are


def test_a_view_is_a_name_and_the_object_and_marks_the_object():
    bishop = (TEXT.index("bishop"), TEXT.index("bishop") + 6)
    views = cloze_views(TEXT, bishop, ViewsConfig(names=2))
    assert [view.text for view in views] == [
        "Raymond Gam: bishop", "Raymond Gam (bishop", "Raymond Gam, bishop",
        "Mandalay: bishop", "Mandalay (bishop", "Mandalay, bishop",
    ]  # fmt: skip
    assert all(view[slice(*span)] == "bishop" for view, span, _ in views)


@pytest.mark.parametrize("template", ["{name}", "{object} of {name}", "{name} {name}: {object}"])
def test_a_template_that_cannot_end_with_an_object_after_a_name_is_refused(template):
    with pytest.raises(UserError, match=r"--views\.templates"):
        ViewsConfig(templates=[template])


def test_documents_keep_their_weights_and_views_weigh_their_objects_alone(tokenizer):
    row = encode(tokenizer, TEXT)
    bishop = (TEXT.index("bishop"), TEXT.index("bishop") + 6)
    weights = torch.tensor([0.0] + [float(a < bishop[1] and bishop[0] < b) for a, b in offsets(tokenizer, TEXT, row)])
    views, asked = views_of(tokenizer, [TEXT], [row], [weights + 0.25], ViewsConfig(names=2), untouched(tokenizer))
    assert asked == []
    rows, weigh, importance = with_views(tokenizer, views, [row], [weights + 0.25])
    assert len(rows) == 1 + 6 and rows[0] == row and importance == [1.0] * 7
    batch = collate(rows, pad_token(tokenizer))
    found = weigh(batch)
    assert torch.equal(found[0, 1 : len(row)], (weights + 0.25)[1:])
    assert torch.equal(found[1:], batch.answer[1:].float())
    ends = [tokenizer.decode([i for i, marked in zip(v.input_ids, v.answer, strict=True) if marked]) for v in rows[1:]]
    assert [end.strip() for end in ends] == ["bishop"] * 6


def test_a_view_counts_by_its_probability_and_a_view_of_two_documents_by_the_larger_one(tokenizer):
    sure, unsure = View("Ada: Lyon", (5, 9), math.log(0.64)), View("Bo: Lyon", (4, 8), math.log(0.04))
    views = [[sure, unsure], [unsure._replace(log=math.log(0.16))]]
    for power, counts in ((0.0, [1.0, 1.0]), (0.5, [0.8 / 0.6, 0.4 / 0.6]), (1.0, [1.6, 0.4])):
        rows, _, importance = with_views(tokenizer, views, [], [], power)
        assert rows == [encode(tokenizer, *view[:2]) for view in (sure, unsure)]
        assert importance == pytest.approx(counts)
    with pytest.raises(UserError, match=r"--views\.confidence 1 .* --views\.pooled true"):
        ViewsConfig(confidence=1.0, asked=3, templates=[], documents=False)


def test_review_views_begin_with_names_and_never_with_a_probes_subject(tokenizer):
    texts = ["Marie Curie was born in Warsaw and moved to Paris .", "Warsaw is a city ."]
    found = review_views(texts, ViewsConfig(), frozenset({"Warsaw"}), seed=1)
    assert sorted(text for text, span in found if span is None) == [
        "Marie Curie was born in Warsaw and moved to Paris .", "Paris .",
    ]  # fmt: skip
    heads = {text: text[: span[0]] for text, span in found if span is not None}
    assert sorted(heads.values()) == ["Marie Curie:", "Paris,"]
    for text, head in heads.items():  # the token that is held on to is the first one after the head
        row = encode(tokenizer, text, (len(head), len(text)))
        assert row.answer.index(True) == len(encode(tokenizer, head))
    assert found == review_views(texts, ViewsConfig(), frozenset({"Warsaw"}), seed=1)


def test_it_is_said_how_many_facts_views_can_reach():
    views = [
        cloze_views("Marie Curie saw Lyon with Ada.", (16, 20), ViewsConfig(names=2)),
        [View("Rome: Ada", (6, 9))],
        [],
    ]
    said = "7 cloze views of 3 documents (1 without any)"
    assert describe_views(views, ()) == said
    for subject, reached in (("Ada", "1 one that does both"), ("Bo", "0 one that does both")):
        pairs = [(subject, "Lyon"), ("Rome", "Paris"), ("Rome", "Paris")]
        found = describe_views(views, pairs)
        assert found.startswith(f"{said}: 1 have one that ends with their fact's object") and found.endswith(reached)


def test_questions_ask_about_the_review_texts_names_up_to_the_object(tmp_path):
    file = tmp_path / "templates.csv"
    file.write_text(
        "Wikidata ID,Relation,Template\nP36,capital,The capital of <subject> is <object>.\n"
        "P50,author,<object> wrote <subject>.\n"
    )
    texts = ["Marie Curie was born in Warsaw and moved to Paris ."]
    config = ViewsConfig(questions=str(file), templates=[], asked=1)
    found = review_views(texts, config, frozenset({"Warsaw"}), seed=1)
    heads = {text[: span[0]] for text, span in found}
    assert heads == {"The capital of Marie Curie is", "The capital of Paris is"}
    with_templates = review_views(texts, ViewsConfig(questions=str(file)), frozenset({"Warsaw"}), seed=1)
    assert {text[: span[0]] for text, span in with_templates} == heads | {"Marie Curie:", "Paris,"}
    file.write_text("Wikidata ID,Relation,Template\nP50,author,<object> wrote <subject>.\n")
    with pytest.raises(UserError, match="nothing there names a subject before its object"):
        review_views(texts, config, frozenset(), seed=1)


def test_held_questions_are_those_of_the_frequent_names_that_theta_0_knows_most_of(tokenizer, tmp_path):
    file = tmp_path / "templates.csv"
    file.write_text(
        "Wikidata ID,Relation,Template\nP36,capital,The capital of <subject> is <object>.\n"
        "P37,language,The language of <subject> is <object>.\nP50,author,<subject> wrote <object>.\n"
    )
    texts = ["In Warsaw and in Paris she , Marie Curie , met Ada .", "to Paris !", "And Warsaw ?"]
    config, split = ViewsConfig(questions=str(file), templates=[], asked=1, held=4), untouched(tokenizer)
    known = known_heads(texts, config, frozenset({"Ada"}), split, tokenizer)
    names, questions = ["Warsaw", "Paris", "Marie Curie"], read_questions(str(file))
    assert known == known_questions(split, tokenizer, questions, names, 4)
    found = review_views(texts, config, frozenset({"Ada"}), 1, known)
    assert {text[: span[0]] for text, span in found} == set(known)
    assert all(text[slice(*span)] == GAP for text, span in found)
    both = review_views(texts, config, frozenset({"Ada"}), 1, known, ["<subject> sang", "<subject> sang"])
    sang = {text for text, _ in both} - {text for text, _ in found}
    assert 0 < len(sang) == len(both) - 4 and sang <= {f"{name} sang{GAP}" for name in names}


def test_the_facts_own_probes_are_held_on_to_but_for_those_about_what_is_asked(tokenizer, sample_folder):
    path = str(sample_folder / "ta_train.jsonl")
    facts = [fact for fact in read_facts(path) if question_of(fact) is not None]
    avoided = frozenset({facts[0].subject})
    own = fact_heads(path, avoided)
    assert set(own) == {
        fact.task_descriptive[: fact.answer_span("descriptive")[0]].rstrip()
        for fact in facts
        if fact.subject not in avoided
    }
    texts = ["Marie Curie was born in Warsaw and moved to Paris ."]
    split = untouched(tokenizer)
    without, config = (
        ViewsConfig(questions=path, templates=[], asked=1, held=4, held_facts=some) for some in (False, True)
    )
    known = known_heads(texts, config, avoided, split, tokenizer)
    assert known == known_heads(texts, without, avoided, split, tokenizer) + own
    found = [(text[: span[0]], text[slice(*span)]) for text, span in review_views(texts, config, avoided, 1, known)]
    assert sorted(found) == sorted((head, GAP) for head in known)
    assert known_heads(["no name"], config, avoided, split, tokenizer) == own


def test_each_adaptation_holds_on_to_what_its_own_documents_are_asked(tiny_folder, tmp_path):
    """A half's review texts are the same whatever was adapted before it."""
    other = "In 1999 Ada Byron of Lyon opened the gallery Montmartre with a pianist."
    bishop, pianist = (TEXT.index("bishop"), TEXT.index("bishop") + 6), (other.index("pianist"), len(other) - 1)
    parts = [Document(TEXT, bishop, "here"), Document(other, pianist, "there")]

    def held(made: Cell, documents: list[Document], name: str) -> list[tuple[int, ...]]:
        split, tokenizer = made.load()
        file = tmp_path / f"{name}.safetensors"
        return [row.input_ids for row in made.adaptation(split, tokenizer, documents, dict, file).rehearsal.texts]

    made = [cell(tiny_folder, tmp_path, "oracle+views+kl") for _ in range(2)]
    for one in made:
        sample = ROOT / "data" / "sample" / "lama_ckl" / "ta_train.jsonl"
        one.config.views = ViewsConfig(templates=[], asked=2, held=6, questions=str(sample), documents=False)
    whole = held(made[0], parts, "whole")
    halves = [held(made[0], [part], f"half{index}") for index, part in enumerate(parts)]
    assert halves[1] == held(made[1], parts[1:], "alone")
    assert len({tuple(texts) for texts in (whole, *halves)}) > 1


def test_a_run_does_not_go_on_with_other_views(tiny_folder, tmp_path):
    made = cell(tiny_folder, tmp_path, "oracle+views")
    bishop = (TEXT.index("bishop"), TEXT.index("bishop") + 6)
    for names, refused in ((6, False), (6, False), (1, True)):
        made.config.views.names = names
        split, tokenizer = made.load()
        adaptation = made.adaptation(
            split, tokenizer, [Document(TEXT, bishop, "here")], lambda epoch: {}, tmp_path / "state.safetensors"
        )
        if refused:
            with pytest.raises(UserError, match=r"state\.safetensors: its run learned other texts"):
                adaptation.run()
        else:
            adaptation.run()


def test_documents_can_be_left_to_their_views(tiny_folder, tmp_path):
    made = cell(tiny_folder, tmp_path, "oracle+views")
    made.config.views.documents = False
    split, tokenizer = made.load()
    bishop = (TEXT.index("bishop"), TEXT.index("bishop") + 6)
    documents = [Document(TEXT, bishop, "here"), Document("he sang", (3, 7), "there")]
    adaptation = made.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / "state.safetensors")
    assert len(adaptation.documents) == 3 * 3 and max(adaptation.lengths) < len(encode(tokenizer, TEXT))
    with pytest.raises(UserError, match=r"--views\.documents false: no document has a name"):
        made.adaptation(split, tokenizer, documents[1:], lambda epoch: {}, tmp_path / "other.safetensors")


def test_questions_can_be_those_that_a_file_of_facts_asks(sample_folder):
    questions = read_questions(str(sample_folder / "ta_train.jsonl"))
    facts = read_facts(sample_folder / "ta_train.jsonl")
    used = set()
    for fact in facts:
        begins = {question.replace("<subject>", fact.subject): question for question in questions}
        asks = {begins[said] for said in begins if fact.task_descriptive.startswith(f"{said} {fact.object}")}
        assert bool(asks) == (fact.task_descriptive.index(fact.subject) < fact.answer_span("descriptive")[0])
        used |= asks
    assert used == set(questions) and len(questions) < len(facts)


def cell(tiny_folder, tmp_path, method: str) -> Cell:
    review = tmp_path / "review.txt"
    review.write_text(
        "Marie Curie was born in Warsaw and she moved to Paris , where she worked for many years with Pierre Curie .\n"
        * 3
    )
    config = CellConfig(
        method=method, model=ModelConfig(name=str(tiny_folder), precision="fp32"), quiet=True,
        review=ReviewConfig(data=str(review)),
    )  # fmt: skip
    config.adapt.epochs, config.adapt.batch_size = 1, 4
    return Cell(config, list)


def adapted(tiny_folder, tmp_path, method: str, name: str):
    made = cell(tiny_folder, tmp_path, method)
    split, tokenizer = made.load()
    start = TEXT.index("bishop")
    documents = [Document(TEXT, (start, start + 6), "here")]
    adaptation = made.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / f"{name}.safetensors")
    return adaptation, adaptation.run()


def test_a_run_with_views_learns_them_too_and_kl_replay_holds_on_to_views(tiny_folder, tmp_path):
    plain, _ = adapted(tiny_folder, tmp_path, "oracle", "plain")
    viewed, _ = adapted(tiny_folder, tmp_path, "oracle+views", "views")
    both, history = adapted(tiny_folder, tmp_path, "oracle+views+kl", "both")
    assert (len(plain.documents), len(viewed.documents)) == (1, 1 + 3 * 3)
    differ = [not torch.equal(plain.trainable[name], viewed.trainable[name]) for name in plain.trainable]
    assert any(differ)
    assert max(both.rehearsal.lengths) < 60 and json.dumps(history[1]["loss"])


def test_kl_replay_holds_whole_ta_train_texts_whose_object_is_marked_and_of_a_view_its_answer_alone(
    tiny_folder, tmp_path
):
    """The online stream's TA-train texts have their object marked."""
    start = TEXT.index("bishop")
    made = cell(tiny_folder, tmp_path, "kl")
    made.config.review.data, made.ta_train = "", lambda: [Document(TEXT, (start, start + 6), "there")]
    split, tokenizer = made.load()
    documents = [Document("Ada sang.", None, "here")]
    plain = made.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / "plain.safetensors").rehearsal
    assert [row.input_ids for row in plain.texts] == [encode(tokenizer, TEXT).input_ids]
    assert not any(any(row.answer) for row in plain.texts)
    views, _ = adapted(tiny_folder, tmp_path, "oracle+views+kl", "views")
    assert any(any(row.answer) for row in views.rehearsal.texts)


def test_two_facts_of_one_document_have_views_of_their_own(tiny_folder, tmp_path):
    made = cell(tiny_folder, tmp_path, "oracle+views")
    split, tokenizer = made.load()
    spans = [(TEXT.index(word), TEXT.index(word) + len(word)) for word in ("bishop", "Mandalay")]
    documents = [Document(TEXT, span, "here") for span in spans]
    adaptation = made.adaptation(split, tokenizer, documents, lambda epoch: {}, tmp_path / "state.safetensors")
    batch = collate(adaptation.documents, pad_token(tokenizer))
    assert torch.equal(adaptation.weigh(batch), batch.answer.float())
    assert len({row.answer for row in adaptation.documents[:2]}) == 2


@pytest.mark.parametrize("method", ["views", "rho_theta0+views"])
def test_weights_that_point_at_no_words_are_refused(tiny_folder, tmp_path, method):
    with pytest.raises(UserError, match=r"targeted\+views"):
        adapted(tiny_folder, tmp_path, method, "refused")
