"""Run: pytest tests/test_mutations.py. Every reader on damaged files: it reads them or refuses them in one sentence.

A mutation changes, deletes, doubles or swaps bytes or lines, or cuts the file off. Nothing but UserError may come out,
no read may take long, and what is read has a row for every line that is not blank.
"""

import json
import pickle
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from taalm.adapt import Adaptation, AdaptConfig
from taalm.adapt_documents import read_documents
from taalm.benchmarks.online_wiki import read_lessons, read_queries
from taalm.benchmarks.templates import read_templates
from taalm.benchmarks.temporal_wiki import document_rows, read_triples
from taalm.checkpoint import load_state, save_state
from taalm.config import parse
from taalm.errors import UserError
from taalm.evaluate import EvaluateConfig
from taalm.facts import read_facts
from taalm.models.base import ModelConfig, add_lora, load_theta
from taalm.models.split import SplitModel
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.online_config import OnlineConfig
from taalm.results import load_result, table
from taalm.run_folder import claim
from taalm.text import encode
from taalm.tracking import TrackConfig
from taalm.weighters import get_weighter
from tests.conftest import ROOT, tiny_llama

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


def claimed(path: Path) -> None:
    """A run's folder whose config.yaml is the file's text."""
    (path.parent / "run").mkdir(exist_ok=True)
    (path.parent / "run" / "log.jsonl").touch()
    (path.parent / "run" / "config.yaml").write_bytes(path.read_bytes())
    claim(path.parent / "run", TrackConfig())


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
    "run": (lambda _: b"to: none\nproject: taalm\n", claimed),
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
            named = str(path.parent / "run") if name == "run" else str(path)
            assert name in ("yaml", "json") or named in message, message  # the file, and mostly the line
        assert time.perf_counter() - started < SLOWEST
    assert refused > count / 10


def adaptation(tokenizer, state: Path) -> Adaptation:
    model = add_lora(tiny_llama(len(tokenizer)).requires_grad_(False), r=2, alpha=2, dropout=0.0)
    rows = [encode(tokenizer, text) for text in ("Ana lives in Rome.", "Bo is a poet.")]
    config = AdaptConfig(epochs=1, batch_size=1)
    weigh = get_weighter("uniform")
    return Adaptation(SplitModel(model), rows, 2, weigh, config, lambda epoch: {}, state, 0, quiet=True)


def test_a_damaged_state_is_refused_or_gone_on_with(tokenizer, tmp_path):
    """Of the tensors' numbers none is known to be wrong; everything else that is wrong is told."""
    path, rng, refused = tmp_path / "state.safetensors", random.Random(5), 0
    adaptation(tokenizer, path).run()
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for number in range(EACH):
        head = mutated(whole[:header], rng) if number % 2 else whole[:header]
        path.write_bytes(head + (whole[header:] if number % 2 else mutated(whole[header:], rng)))
        try:
            adaptation(tokenizer, path).run()
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > EACH / 2
    save_state(path, {}, {})
    with pytest.raises(UserError, match="a checkpoint of something else, without 'epoch'"):
        adaptation(tokenizer, path).run()


def model_folder(folder: Path, tokenizer) -> Callable[[], object]:
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return lambda: load_theta(ModelConfig(name=str(folder), r=2, device="cpu", precision="fp32"))


def phi_folder(folder: Path, tokenizer) -> Callable[[], object]:
    model_folder(folder / "backbone", tokenizer)
    config = TrainAttentionConfig(backbone=str(folder / "backbone"), r=2, precision="fp32")
    TrainAttention.create(config, "cpu").save_pretrained(folder)
    return lambda: TrainAttention.from_pretrained(folder, "cpu")


@pytest.mark.parametrize(
    ("make", "file"),
    [(model_folder, name) for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")]
    + [(phi_folder, name) for name in ("config.json", "model.safetensors")],
)
def test_a_damaged_folder_of_a_model_is_loaded_or_refused(make, file, tokenizer, tmp_path, monkeypatch):
    """Every other mutation of weights is one of their header."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    load, path, rng, refused = make(tmp_path, tokenizer), tmp_path / file, random.Random(f"{make.__name__}{file}"), 0
    whole = path.read_bytes()
    load()
    for number in range(EACH // 2):
        end = 3000 if file.endswith(".safetensors") and number % 2 else len(whole)
        path.write_bytes(mutated(whole[:end], rng) + whole[end:])
        started = time.perf_counter()
        try:
            load()
        except UserError as error:
            refused += 1
            assert str(tmp_path) in str(error) and "\n" not in str(error), error
        assert time.perf_counter() - started < SLOWEST
    assert refused > EACH / 4


def test_weights_that_lack_a_tensor_are_refused_not_made_up(tokenizer, tmp_path):
    load = model_folder(tmp_path, tokenizer)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    save_file({("x" + key if key == name else key): value for key, value in weights.items()},
              tmp_path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(UserError, match=rf"its weights lack 1 tensors \(for example {name}\)"):
        load()
