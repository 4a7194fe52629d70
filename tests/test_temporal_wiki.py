"""Run: pytest tests/test_temporal_wiki.py. The DIFFSET filter, probe files, the preprocessing command."""

import csv
import json
import subprocess
import sys

import pytest

from taalm.benchmarks.temporal_wiki import PERIODS, SETS, Triple, read_documents, read_triples, summary, why_dropped
from taalm.errors import UserError
from tests.conftest import ROOT

GOOD = "The town council opened a new library beside the river in the spring of the year."
FOREIGN = "東京都は日本の首都であり、" * 6 + "Tokyo"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("nan", "nan"),
        ("banana bread", "nan"),  # the rule looks for the letters, as published
        ("too short", "short"),
        ("x" * 49, "short"),
        ("x" * 50, None),
        (FOREIGN, "letters"),
        ("7" * 36 + "a" * 14, "letters"),  # 28 %
        ("7" * 35 + "a" * 15, None),  # 30 %
        (GOOD + " nan", None),  # long enough: nan does not matter
    ],
)
def test_the_filter(text, reason):
    assert why_dropped(text) == reason


def test_a_probe_is_the_schematic_form_with_the_object_at_its_end(tokenizer):
    triple = Triple("Marie Curie", "place of birth", "Warsaw")
    assert (
        triple.probe() == "Guess the object. \n  subject is Marie Curie , relation is place of birth , object is Warsaw"
    )
    start, end = triple.answer_span()
    assert triple.probe()[start:end] == "Warsaw" and any(triple.encoded(tokenizer).answer)


@pytest.fixture
def raw(tmp_path):
    """Small archives as they unpack: commas, quotes and line breaks in the texts."""
    (tmp_path / "TWiki_Diffsets").mkdir()
    (tmp_path / "twiki_probes").mkdir()
    for period, diffset in PERIODS.items():
        with (tmp_path / "TWiki_Diffsets" / f"wikipedia_{diffset}_gpt2.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "other"])
            writer.writerow([f'{GOOD} "{diffset}",\nyes', "x"])
            writer.writerows([text, ""] for text in ("nan", "short", FOREIGN, GOOD))
        for name in SETS:
            row = {"subject": "A", "relation": "capital", "object": name, "extra": 1}
            (tmp_path / "twiki_probes" / f"{period}_{name}.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def preprocess(*arguments: object) -> subprocess.CompletedProcess:
    script = ROOT / "preprocess" / "preprocess_temporalwiki_dataset.py"
    return subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)


def test_preprocessing_keeps_counts_and_can_be_run_again(raw, tmp_path):
    done = preprocess("--raw", raw, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "diffset_0910_filtered.jsonl: kept 2, letters 1, nan 1, short 1" in done.stdout
    documents = read_documents(tmp_path / "out" / "train" / "diffset_1011_filtered.jsonl")
    assert documents == [f'{GOOD} "1011",\nyes', GOOD]
    assert read_triples(tmp_path / "out" / "eval" / "1101-1201_changed.jsonl") == [Triple("A", "capital", "changed")]
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.jsonl")}
    again = preprocess("--raw", raw, "--out", tmp_path / "out")
    assert again.returncode == 0 and again.stdout.count("there already") == 9
    assert files == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_missing_and_broken_input_is_one_sentence(raw, tmp_path):
    (raw / "twiki_probes" / "1001-1101_changed.jsonl").write_text('{"subject": "A", "relation": "capital"}\n')
    done = preprocess("--raw", raw, "--out", tmp_path / "out")
    assert done.returncode == 1 and "1001-1101_changed.jsonl:1: the field 'object'" in done.stderr
    (raw / "TWiki_Diffsets" / "wikipedia_1112_gpt2.csv").unlink()
    (raw / "twiki_probes" / "1001-1101_changed.jsonl").write_text('{"subject":"A","relation":"r","object":"o"}\n')
    done = preprocess("--raw", raw, "--out", tmp_path / "out")
    assert done.returncode == 1 and "scripts/data/temporalwiki.sh" in done.stderr and "Traceback" not in done.stderr


def test_the_average_is_of_changed_and_unchanged():
    history = {0: {"ppl_changed": 9.0, "ppl_unchanged": 8.0}, 1: {"ppl_changed": 4.0, "ppl_unchanged": 5.0}}
    assert summary(history) == {"unchanged": 5.0, "changed": 4.0, "average": 4.5}


def test_an_empty_document_names_its_line(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "one"}\n{"text": " "}\n')
    with pytest.raises(UserError, match=r"d\.jsonl:2"):
        read_documents(tmp_path / "d.jsonl")
