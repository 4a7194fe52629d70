"""Run: pytest tests/test_names.py. Names in a text: what is one, what a run of words may name, which are nearest."""

import pytest

from taalm.names import find_names, names_apart, nearest_names

TEXT = "The first bishop Raymond Gam was ordained by Archbishop of Mandalay in St Patrick. He sang."


def said(text: str, spans) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_names_are_runs_of_capitalised_words_without_sentence_openers():
    assert said(TEXT, find_names(TEXT)) == ["Raymond Gam", "Mandalay", "St Patrick"]
    assert said("In Paris The Who played. It", find_names("In Paris The Who played. It")) == ["Paris The Who"]
    assert find_names("nothing here. A") == []


@pytest.mark.parametrize(("text", "names"), [
    ("On May 24 Pope Leo XIII and Bishop Mathias Loras met.", ["Leo XIII", "Mathias Loras"]),
    ("In 1978 John McCririck left TSAR Publications 2014.", ["John McCririck", "TSAR Publications"]),
    ("Mario Pieri's works, Windows Phone 8 (April 1958)", ["Mario Pieri", "Windows Phone 8"]),
    ("Sir Robert Gordon of Lochinvar & Sons, Rue de la Paix", ["Robert Gordon of Lochinvar & Sons", "Rue de la Paix"]),
    ("a Monday, the President of the King; Mr. Noh", ["Noh"]),
    ("12 May 1958 A. B. Roe and E. T. Moe of St. Louis", ["A. B. Roe", "E. T. Moe of St. Louis"]),
    ("his iPhone: U.S. R.-M. Roe", ["iPhone", "U.S. R.-M. Roe"]),
])  # fmt: skip
def test_what_only_stands_before_or_after_a_name_is_left_out(text, names):
    assert said(text, find_names(text)) == names


@pytest.mark.parametrize(("text", "answer", "names"), [
    ("by Yasutaka Nakata of Perfume.", "by", {"Yasutaka Nakata of Perfume", "Yasutaka Nakata", "Perfume"}),
    ("with Ross Perot's EDS.", "with", {"Ross Perot's EDS", "Ross Perot", "EDS"}),
    ("his play The Voyevoda ran.", "play", {"Voyevoda", "The Voyevoda"}),
    ("The play ran. The Voyevoda ran.", "play", {"Voyevoda"}),
    ("near Prince Charles Mountains", "near", {"Charles Mountains", "Prince Charles Mountains"}),
    ("had Windows 95 then, in May 1995", "had", {"Windows 95", "Windows"}),
    ("doge of Venice Francesco Foscari sat", "Venice", {"Francesco Foscari"}),
    ("the Foreign Minister Laurent Fabius sat", "Minister", {"Foreign", "Laurent Fabius"}),
])  # fmt: skip
def test_names_apart_are_all_that_a_run_may_name_beside_the_answer(text, answer, names):
    start = text.index(answer)
    assert set(said(text, names_apart(text, (start, start + len(answer))))) == names


def test_the_nearest_names_lead_and_none_overlaps_the_object():
    bishop = (TEXT.index("bishop"), TEXT.index("bishop") + 6)
    assert nearest_names(TEXT, bishop, 2) == ["Raymond Gam", "Mandalay"]
    patrick = (TEXT.index("Patrick"), TEXT.index("Patrick") + 7)
    assert "St Patrick" not in nearest_names(TEXT, patrick, 9)
