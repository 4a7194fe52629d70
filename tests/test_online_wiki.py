"""Run: pytest tests/test_online_wiki.py. The online stream's rows, dates and numbers, by hand."""

import json

import pytest

from taalm.benchmarks.online_metrics import StreamScores, exact_match, fuar, normalised
from taalm.benchmarks.online_wiki import date_key, dates_of, read_lessons, read_queries
from taalm.errors import UserError


def write(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    )
    return path


LESSON = {"corpus": ["Zoë Łuczak plays for FC Ångström."], "date": "2021-9", "id": "Q1_P54_2021-9", "relation": "P54"}
QUERY = {
    "query": "Zoë Łuczak plays for _X_ .",
    "answer": [{"wikidata_id": "Q2", "name": "FC Ångström"}, {"wikidata_id": "Q3", "name": "Ångström"}],
    "date": "2021-9",
    "id": "Q1_P54_2021-9",
    "relation": "P54",
}


def test_dates_go_by_their_numbers_across_years(tmp_path):
    dates = ["2021-12", "2021-2", "2022-1", "2021-10"]
    path = write(tmp_path / "train.jsonl", *({**LESSON, "date": date} for date in [*dates, "2021-2"]))
    assert dates_of(read_lessons(path)) == ["2021-2", "2021-10", "2021-12", "2022-1"]
    assert date_key("2019-Q4") < date_key("2020-Q1") and date_key("2019-1-9") < date_key("2019-1-31")
    mixed = write(tmp_path / "mixed.jsonl", LESSON, {**LESSON, "date": "2021-Q1"})
    with pytest.raises(UserError, match=r"month \(.*mixed\.jsonl:1\), quarter \(.*mixed\.jsonl:2\)"):
        dates_of(read_lessons(mixed))


def test_rows_are_read_in_order_the_last_one_too(tmp_path):
    lessons = read_lessons(write(tmp_path / "t.jsonl", {**LESSON, "corpus": ["one", "two"]}, LESSON))
    assert [lesson.text for lesson in lessons] == ["one", "two", "Zoë Łuczak plays for FC Ångström."]
    (query,) = read_queries(write(tmp_path / "q.jsonl", QUERY))
    assert query.text == "Zoë Łuczak plays for _X_ ." and query.names == ("FC Ångström", "Ångström")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**QUERY, "query": "no blank"}, "_X_ once"),
        ({**QUERY, "answer": []}, "'answer' must be list and not empty"),
        ({**QUERY, "answer": [{"wikidata_id": "Q1"}]}, "'name' must be str"),
        ({**QUERY, "date": "2021-13"}, "is no 2019-1-31"),
        ({**QUERY, "date": "2021-2-30"}, "is no 2019-1-31"),
        ({key: value for key, value in QUERY.items() if key != "id"}, "'id' must be str"),
        ("{broken", "JSON"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=rf"bad\.jsonl:2.*{message}"):
        read_queries(write(tmp_path / "bad.jsonl", QUERY, row))


def test_exact_match_is_normalised():
    assert normalised("The  U.S. Open, a tournament") == "u s open tournament"
    assert exact_match("the Ångström", ["FC Ångström", "Ångström"]) and not exact_match("Angstrom", ["Ångström"])


def test_numbers_on_a_small_matrix_by_hand():
    """Three dates of 4, 2 and 5 facts; asked before, and about the last, this and the next date."""
    scores = StreamScores({-1: {0: 1}, 0: {0: 3, 1: 0}, 1: {0: 2, 1: 2, 2: 1}, 2: {1: 1, 2: 4}}, [4, 2, 5])
    found = scores.summary(tokens=1000, seconds=10.0)
    em, fwt, bwt = [3 / 4, 2 / 2, 4 / 5], [3 / 4 - 1 / 4, 1 - 0, 4 / 5 - 1 / 5], [2 / 4 - 3 / 4, 1 / 2 - 1]
    assert found["em"] == pytest.approx(sum(em) / 3)
    assert found["fwt"] == pytest.approx(sum(fwt) / 3)
    assert found["bwt"] == pytest.approx(sum(bwt) / 2)
    known = [3, 2 + 2, 2 + 1 + 4]
    gaps = [(world - model) / world for world, model in zip((4, 6, 11), known, strict=True)]
    assert found["kg"] == pytest.approx(sum(gaps) / 3)
    assert found["kar"] == pytest.approx((sum(fwt) / 3 + sum(bwt) / 2) * 1000 / 10)
    assert found["fuar"] == pytest.approx((0.25 + 0.5) / sum(fwt))


def test_a_date_without_facts_is_left_out_and_no_gain_has_no_fuar():
    scores = StreamScores({-1: {0: 0}, 0: {0: 1, 1: 0}, 1: {0: 1, 1: 0, 2: 0}, 2: {1: 0, 2: 1}}, [1, 0, 1])
    found = scores.summary(10, 1.0)
    assert found["em"] == 1.0 and found["fwt"] == 1.0 and found["bwt"] == 0.0 and found["kg"] == 0.0
    assert fuar([0.2, -0.1], [0.0, -0.3]) is None and fuar([-0.2], [0.4]) == 0.0
    nothing = StreamScores({}, []).summary(0, 0.0)
    assert set(nothing.values()) == {None}
