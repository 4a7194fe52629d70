"""Run: pytest tests/test_online_forms.py. How facts of the stream are taught and asked."""

import pytest

from taalm.benchmarks.online_forms import Asked, ask, clean, place_of_answer, teach
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
    (document,) = teach([lesson(said)], [query(blank)], "prefix").documents
    assert document.text == target and document.read() == given
    start, end = document.span
    assert f" {document.text[start:end]} ." == target[len(given) :]
    assert ask(query(blank, "A", "B"), "prefix").wanted == (f"{given} A", f"{given} B")


def test_span_form_masks_the_answer():
    (document,) = teach([lesson("Ana lives in Rome today .")], [query("Ana lives in _X_ today .")], "span").documents
    assert document.read() == "Ana lives in <extra_id_0> today ." and document.text == "<extra_id_0> Rome <extra_id_1>"
    assert document.text[slice(*document.span)] == "Rome"
    asked = ask(query("Ana lives in _X_ today ."), "span")
    assert asked.given == document.read() and asked.judge(clean("<extra_id_0> rome <extra_id_1> x", "span"))[0]


def test_a_text_that_no_query_tells_has_its_last_salient_span_for_an_answer():
    taught = teach(
        [lesson("Anna Larsen was born in Paris .", fact="other"), lesson("...")], [query("_X_ x .")], "prefix"
    )
    assert [document.text for document in taught.documents] == ["Anna Larsen was born in Paris ."]
    assert taught.documents[0].read() == "Anna Larsen was born in" and (taught.guessed, taught.dropped) == (2, 1)


def test_of_several_queries_the_one_that_fits_tells():
    assert place_of_answer("A b C .", [query("Z _X_ ."), query("A b _X_ .")]) == ("A b", ".", "C")
    assert place_of_answer("A b .", [query("A b _X_ .")]) is None


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
