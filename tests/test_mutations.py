"""Run: pytest tests/test_mutations.py. Every reader on damaged files: it reads them or refuses them in one sentence.

A mutation changes, deletes, doubles or swaps bytes or lines, or cuts the file off. Nothing but UserError may come out,
no read may take long, and what is read has a row for every line that is not blank.
"""

import json
import pickle
import random
import time
from pathlib import Path

import pytest
import torch

from taalm.adapt_documents import read_documents
from taalm.benchmarks.online_wiki import read_lessons, read_queries
from taalm.benchmarks.templates import read_templates
from taalm.benchmarks.temporal_wiki import document_rows, read_triples
from taalm.checkpoint import load_state, save_state
from taalm.config import parse
from taalm.errors import UserError
from taalm.evaluate import EvaluateConfig
from taalm.facts import read_facts
from taalm.online_config import OnlineConfig
from taalm.results import load_result, table
from tests.conftest import ROOT

EACH, SLOWEST = 260, 5.0  # mutations of a file, seconds
SAMPLE = ROOT / "data" / "sample"
INTERESTING = [
    b"\x00",
    b"\xff",
    b"{",
    b"}",
    b'"',
    b"[",
    b"null",
    b"-1",
    b"1e999",
    b"\\u0000",
    b"\n",
    b"\xe2\x80\xa8",
    b": ",
    b"!!",
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with one to three injuries."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:at] + bytes(rng.randrange(256) for _ in range(size)) + data[at + size :]
        elif kind == 1:
            data = data[:at] + data[at + size :]
        elif kind == 2:
            data = data[:at] + rng.choice(INTERESTING) + data[at:]
        elif kind == 3:
            data = data[:at]
        else:
            lines = data.split(b"\n")
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            if kind == 4:
                lines.insert(one, lines[other])
            else:
                lines[one], lines[other] = lines[other], lines[one]
            data = b"\n".join(lines)
    return data


def lines_of(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").split("\n"))


def head(path: Path, count: int = 6) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:count])


def counted(read):
    """A reader of rows that must give one for every line."""

    def check(path: Path) -> None:
        rows = list(read(path))
        lines = (
            {row.where for row in rows} if hasattr(rows[0], "where") else rows
        )  # a line of a stream may have several
        assert len(lines) == lines_of(path)

    return check


def result_file(folder: Path) -> bytes:
    result = {
        "method": "x",
        "eval_result": {0: {"acc": 0.5, "to_learn": {"a": [0.5, 1.0]}}},
        "summary": {"top_acc": 0.5},
    }
    return pickle.dumps(result, protocol=4)


def state_file(folder: Path) -> bytes:
    save_state(folder / "state", {"theta/a": torch.arange(6.0), "b": torch.ones(2, 2)}, {"epoch": 3, "history": "{}"})
    return (folder / "state").read_bytes()


def shown(path: Path) -> None:
    result = load_result(path)
    if isinstance(result.get("summary", {}), dict) and isinstance(result.get("framing", {}), dict):
        table({"x": result})


DOCUMENTS = "".join(
    json.dumps({"text": f"Text {i} of it.", "probe": f"It is {i}.", "answer": str(i)}) + "\n" for i in range(4)
)
TEMPLATES = """Wikidata ID,Relation,Template
P1,lives in,<subject> lives in <object> .
P2,"works, as",<subject> is a <object> .
"""
TRIPLES = "".join(json.dumps({"subject": f"s{i}", "relation": "r", "object": f"o{i}"}) + "\n" for i in range(4))
READERS: dict = {
    "facts": (lambda _: head(SAMPLE / "lama_ckl" / "to_learn.jsonl"), counted(read_facts)),
    "documents": (lambda _: DOCUMENTS.encode(), counted(lambda path: read_documents(str(path)))),
    "triples": (lambda _: TRIPLES.encode(), counted(read_triples)),
    "diffset": (lambda _: b'{"text": "one"}\n{"text": "two \\u00fc"}\n', counted(document_rows)),
    "lessons": (lambda _: head(SAMPLE / "online_wiki" / "day" / "datesorted_train.jsonl"), counted(read_lessons)),
    "queries": (lambda _: head(SAMPLE / "online_wiki" / "day" / "datesorted_test.jsonl"), counted(read_queries)),
    "templates": (lambda _: TEMPLATES.encode(), read_templates),
    "yaml": (
        lambda _: (ROOT / "configs" / "evaluate" / "lama_ckl" / "llama2-7b.yaml").read_bytes(),
        lambda path: parse(EvaluateConfig, "evaluate/lama_ckl", ["--config", str(path)], "x"),
    ),
    "json": (
        lambda _: (ROOT / "configs" / "online" / "wiki" / "day" / "smollm2_recadam.json").read_bytes(),
        lambda path: parse(OnlineConfig, None, ["--config", str(path)], "x"),
    ),
    "pickle": (result_file, shown),
    "safetensors": (state_file, load_state),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(name, tmp_path):
    make, read = READERS[name]
    data, rng = make(tmp_path), random.Random(name)
    path = tmp_path / f"file.{'yaml' if name == 'yaml' else 'json' if name == 'json' else 'jsonl'}"
    path.write_bytes(data)
    read(path)  # whole, it is fine
    count, refused = EACH if name not in ("yaml", "json") else EACH // 2, 0
    for _ in range(count):
        path.write_bytes(mutated(data, rng))
        started = time.perf_counter()
        try:
            read(path)
        except UserError as error:
            refused += 1
            message = str(error)
            assert message and "Traceback" not in message
            assert name in ("yaml", "json") or str(path) in message, message  # the file, and mostly the line
        assert time.perf_counter() - started < SLOWEST
    assert refused > count / 10
