"""Run: pytest tests/test_online_stream.py. The stream maker: duplicates, several names, templates, the sample."""

import json

import pytest

from preprocess.make_online_stream import SAMPLE, Dated, as_query, main, stream_rows
from taalm.benchmarks.online_wiki import BLANK, dates_of, read_lessons, read_queries
from taalm.benchmarks.templates import Template, read_templates
from taalm.errors import UserError
from tests.conftest import ROOT


def test_objects_of_one_fact_are_names_and_duplicates_count_once():
    query = "Ana sings in _X_ ."
    facts = [Dated("Ana", "P1", name, date, query) for name, date in
             (("Łódź", "2021-10"), ("Rome", "2021-10"), ("Łódź", "2021-10"), ("Łódź", "2021-9"))]  # fmt: skip
    train, test = stream_rows(facts)
    assert [row["date"] for row in test] == ["2021-9", "2021-10"]
    assert [answer["name"] for answer in test[1]["answer"]] == ["Łódź", "Rome"]
    assert train[1]["corpus"] == ["Ana sings in Łódź .", "Ana sings in Rome ."]
    assert train[1]["id"] == test[1]["id"] != test[0]["id"]


def test_templates_with_both_places_are_taken_and_a_bad_file_is_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Wikidata ID,Relation,Template\nP1,likes,<subject> likes <object>.\nP2,is,<subject> is.\n")
    assert read_templates(path) == {"likes": Template("P1", "<subject> likes <object>.")}
    assert as_query(Template("P3", "<object> is <subject>'s town."), "Ana") == "_X_ is Ana's town ."
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="Wikidata ID, Relation and Template"):
        read_templates(path)


def test_the_committed_sample_is_what_its_maker_makes(tmp_path):
    main(["--sample", str(tmp_path)])
    for kind, counts in SAMPLE.items():
        committed = ROOT / "data" / "sample" / "online_wiki" / kind
        for name in ("datesorted_train.jsonl", "datesorted_test.jsonl"):
            assert (tmp_path / kind / name).read_text() == (committed / name).read_text()
        lessons, queries = (
            read_lessons(committed / "datesorted_train.jsonl"), read_queries(committed / "datesorted_test.jsonl")
        )  # fmt: skip
        assert dates_of(lessons, queries) == list(counts)
        assert {query.fact for query in queries} == {lesson.fact for lesson in lessons}
        assert all(
            query.text.replace(BLANK, query.names[0]) in {lesson.text for lesson in lessons} for query in queries
        )


def test_the_real_changed_probes_make_three_months(real_data, tmp_path, capsys):
    if not (real_data / "TemporalWiki" / "eval").is_dir():
        pytest.skip("no TemporalWiki/eval in TAALM_DATA")
    templates = real_data / "wikidata" / "templates.csv"
    main(["--probes", str(real_data / "TemporalWiki" / "eval"), "--templates", str(templates), "--out", str(tmp_path)])
    queries = read_queries(tmp_path / "datesorted_test.jsonl")
    assert dates_of(queries) == ["2021-9", "2021-10", "2021-11"] and len(queries) > 3000
    said = capsys.readouterr().out
    counts = [int(word) for word in said.splitlines()[-1].split() if word.isdigit()]
    assert 0.6 < counts[0] / sum(counts) < 0.7  # about two thirds have a template
    first = json.loads((tmp_path / "datesorted_train.jsonl").read_text().splitlines()[0])
    assert set(first) == {"corpus", "date", "id", "relation"}
