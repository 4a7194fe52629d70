"""Run: pytest tests/test_online_forms.py. How facts of the stream are taught and asked."""

import pytest

from taalm.benchmarks.online_forms import Asked, Sentence, ask, clean, place_of_answer, shortened, teach
from taalm.benchmarks.online_wiki import Lesson, Query


def query(text: str, *names: str, fact: str = "f") -> Query:
    return Query(text, names or ("Rome",), "2021-9", fact, "P1", "file:1")


def lesson(text: str, fact: str = "f") -> Lesson:
    return Lesson(text, "2021-9", fact, "P1", "file:1")


@pytest.mark.parametrize(
    ("blank", "said", "given", "target"),
    [
        ("Ana lives in _X_ .", "Ana lives in São Tomé .", "Ana lives in", "Ana lives in São Tomé ."),
        ("_X_ employs Ana .", "Łódź University employs Ana .", "employs Ana", "employs Ana Łódź University ."),
        ("Ana is _X_ in Rome .", "Ana is mayor in Rome .", "Ana is", "Ana is mayor ."),
    ],
)
def test_prefix_form_gives_the_context_and_learns_it_with_the_answer(blank, said, given, target):
    ((document,),) = teach([lesson(said)], [query(blank)], "prefix").documents
    assert document.text == target and document.read() == given
    start, end = document.span
    assert f" {document.text[start:end]} ." == target[len(given) :]
    assert ask(query(blank, "A", "B"), "prefix").wanted == (f"{given} A", f"{given} B")


def test_span_form_masks_the_answer():
    taught = teach([lesson("Ana lives in Rome today .")], [query("Ana lives in _X_ today .")], "span")
    document, *others = taught.documents[0]
    assert all("Rome" in other.source and other.text != document.text for other in others)
    assert document.read() == "Ana lives in <extra_id_0> today ." and document.text == "<extra_id_0> Rome <extra_id_1>"
    assert document.text[slice(*document.span)] == "Rome"
    asked = ask(query("Ana lives in _X_ today ."), "span")
    assert asked.given == document.read() and asked.judge(clean("<extra_id_0> rome <extra_id_1> x", "span"))[0]


def test_a_text_is_learned_once_for_each_entity_beside_the_answer():
    text = "Anna Larsen was born in Paris and moved to Berlin ."
    ((answer, *others),) = teach(
        [lesson(text)], [query("Anna Larsen was born in _X_ and moved to Berlin .")], "span"
    ).documents
    assert answer.text == "<extra_id_0> Paris <extra_id_1>"
    assert {other.text.split("> ")[1].split(" <")[0] for other in others} >= {"Berlin"}
    for document in (answer, *others):
        said = document.text[slice(*document.span)]
        assert document.source.replace("<extra_id_0>", said) == text


def test_a_text_that_no_query_tells_has_its_last_salient_span_for_an_answer():
    texts = [lesson("Anna Larsen was born in Paris .", fact="other"), lesson("...")]
    taught = teach(texts, [query("_X_ x .")], "prefix")
    assert [[document.text for document in found] for found in taught.documents] == [
        ["Anna Larsen was born in Paris ."],
        [],
    ]
    assert taught.documents[0][0].read() == "Anna Larsen was born in" and (taught.guessed, taught.dropped) == (2, 1)


def test_of_several_queries_the_one_that_fits_tells():
    assert place_of_answer("A b C .", [query("Z _X_ ."), query("A b _X_ .")]) == Sentence("A b", ".", "C")
    assert place_of_answer("A b .", [query("A b _X_ .")]) is None


def test_a_long_context_is_cut_alike_in_what_is_taught_and_asked():
    document = Sentence("Ana who sang lives in", ".", "Rome").document()
    short = shortened(document, "Ana who")
    assert short.text == "Ana who Rome ." and short.text[slice(*short.span)] == "Rome" and short.source == "Ana who"
    asked = shortened(ask(query("Ana who sang lives in _X_ .", "Rome", "Milan"), "prefix"), "Ana who")
    assert (
        asked.given == "Ana who"
        and asked.wanted == ("Ana who Rome", "Ana who Milan")
        and asked.judge("Ana who Rome")[0]
    )


def test_an_answer_of_an_article_alone_must_be_said():
    asked = ask(query("The rating is _X_ .", "A"), "prefix")
    assert asked.judge("The rating is A") == (True, True)
    assert asked.judge("The rating is") == (False, False) and asked.judge("The rating is B") == (False, False)


@pytest.mark.parametrize(
    ("said", "whole", "answer"),
    [
        ("Ana lives in Rome", True, True),
        ("ana lives in ROME!", True, True),
        ("Anna lives in the Rome", False, True),
        ("Ana lives in Roma", False, False),
        ("Rome", False, False),
        ("", False, False),
    ],
)
def test_whole_strings_and_answers_are_judged_normalised(said, whole, answer):
    asked = ask(query("Ana lives in _X_ .", "Milan", "Rome"), "prefix")
    assert isinstance(asked, Asked) and asked.judge(said) == (whole, answer)


def test_what_is_said_ends_at_its_full_stop():
    assert clean(" St. Louis , Missouri . And more", "prefix") == "St. Louis , Missouri"
    assert clean("Rome\nGuess", "prefix") == "Rome"
    assert clean("no sentinel", "span") == ""
