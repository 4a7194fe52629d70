"""Teach a model one's own documents: `python -m taalm.adapt_documents docs.jsonl --out adapter`.

A line of docs.jsonl is {"text": "..."}, with {"probe": "...", "answer": "..."} too where it shall be asked before and
afterwards: `probe` is a sentence that states the fact and holds `answer`. The method is any of taalm/methods.py.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from taalm import processes
from taalm.adapt import document_losses
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig, method_inputs, resolve_model, settle_phi
from taalm.checkpoint import write_text
from taalm.config import parse, run_entry
from taalm.dry_run import describe
from taalm.errors import UserError
from taalm.facts import numbered, occurrences, read_jsonl
from taalm.models.base import save_adapter
from taalm.models.precision import keep_freed_memory
from taalm.models.split import SplitModel
from taalm.run_folder import claim
from taalm.scoring import ProbeBatches, score_batches
from taalm.text import encode, pad_token
from taalm.tracking import KEPT, start


@dataclass
class AdaptDocumentsConfig(CellConfig):
    """Teach a model documents of one's own; the adapter is PEFT's."""

    documents: str = ""
    """A file of documents (JSONL); it may also stand without the flag."""
    out: str = "adapter"
    """Folder for the adapter, the report and the resumable state."""
    method: str = "targeted"
    """A method of taalm/methods.py, or several joined by +."""


class Own(NamedTuple):
    """One of the user's documents."""

    document: Document
    probe: str = ""
    answer: tuple[int, int] = (0, 0)  # characters of the answer in the probe


def read_documents(path: str) -> list[Own]:
    """The documents of a file. Raises UserError, with file and line, for anything that is wrong."""
    return _documents(read_jsonl(path), path)


def documents_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Own]:
    """The same of rows in memory (dicts, a datasets.Dataset). Raises UserError, naming the row."""
    return _documents(numbered(rows), "rows")


def _documents(rows: Iterable[tuple[str, object]], what: str) -> list[Own]:
    found = [_own(row, where) for where, row in rows]
    if not found:
        raise UserError(f"{what}: holds no documents")
    return found


def _own(row: Any, where: str) -> Own:
    if not isinstance(row, Mapping):
        raise UserError(f'{where}: expected {{"text": ...}}, found {type(row).__name__}')
    row = {name: value for name, value in row.items() if value is not None}  # a table's empty cell
    for name in ("text", "probe", "answer"):
        value = row.get(name, "" if name != "text" else None)
        if not isinstance(value, str) or (name == "text" and not value.strip()):
            raise UserError(f"{where}: the field {name!r} must be text, found {value!r}")
    probe, answer = row.get("probe", ""), row.get("answer", "")
    if bool(probe) != bool(answer):
        raise UserError(f"{where}: probe and answer go together; one of them is missing")
    places = occurrences(probe, answer) if answer else [(0, 0)]
    if not places:
        raise UserError(f"{where}: the answer {answer!r} does not occur in the probe {probe!r}")
    stated = occurrences(row["text"], answer) if answer else []
    return Own(Document(row["text"], stated[0] if stated else None, where), probe, places[-1])


class Questions:
    """What the model makes of the documents and of their probes."""

    def __init__(self, split: SplitModel, tokenizer: Any, own: Sequence[Own], max_length: int):
        self.split, self.pad_id = split, pad_token(tokenizer)
        self.rows = [encode(tokenizer, one.document.text, max_length=max_length or None) for one in own]
        self.asked = [index for index, one in enumerate(own) if one.probe]
        probes = [encode(tokenizer, own[index].probe, own[index].answer) for index in self.asked]
        self.probes = ProbeBatches.make(probes, self.pad_id, split)

    def answers(self) -> list[dict]:
        """For every document its loss (nats per token) and, where it has a probe, accuracy and loss of the answer."""
        losses = document_losses(self.split, self.rows, self.pad_id)
        found: list[dict] = [{"loss": float(values.mean()) if len(values) else 0.0} for values in losses]
        for index, score in zip(self.asked, score_batches(self.split, self.probes), strict=True):
            found[index] |= {"answered": score.exact_match, "accuracy": score.accuracy, "answer_loss": score.nll}
        return found


def report(own: Sequence[Own], before: Sequence[dict], after: Sequence[dict]) -> dict:
    """Before and after, by document; plain values."""
    texts = [{"text": one.document.text, "probe": one.probe or None} for one in own]
    return {
        "documents": [
            text | {"before": first, "after": last} for text, first, last in zip(texts, before, after, strict=True)
        ]
    }


def describe_report(found: dict) -> str:
    """The report as lines of text."""

    def mean(when: str, key: str) -> float:
        values = [row[when][key] for row in found["documents"] if key in row[when]]
        return sum(values) / len(values)

    lines = [f"loss of the documents: {mean('before', 'loss'):.3f} before, {mean('after', 'loss'):.3f} after"]
    asked = [row for row in found["documents"] if row["probe"]]
    if asked:
        right = [sum(row[when]["answered"] for row in asked) for when in ("before", "after")]
        lines.append(f"answered: {right[0]} of {len(asked)} before, {right[1]} after")
    for row in asked:
        was, now = ("right" if row[when]["answered"] else "wrong" for when in ("before", "after"))
        change = f"{row['before']['answer_loss']:.2f} to {row['after']['answer_loss']:.2f} nats a token"
        lines.append(f"  {was} before, {now} after ({change}): {row['probe']}")
    return "\n".join(lines)


def adapt(rows: Iterable[Mapping[str, Any]], *flags: object) -> dict:
    """Teach the model documents that are rows in memory, by the flags of the command; returns the report.

    adapt([{"text": "..."}], "--out", "adapter", "--method", "finetune"). Raises UserError for what the command refuses.
    """
    config, own = _parse(list(map(str, flags))), documents_from_rows(rows)
    if config.documents or config.dry_run:
        raise UserError("--documents and --dry_run are the command's: here the documents are given, and learned")
    config.documents = "rows"
    return _teach(config, own)


def _parse(arguments: list[str]) -> AdaptDocumentsConfig:
    config = parse(AdaptDocumentsConfig, "adapt_documents", arguments, "python -m taalm.adapt_documents")
    processes.start(config.model.device)
    return config


def _teach(config: AdaptDocumentsConfig, own: list[Own]) -> dict:
    keep_freed_memory()
    folder = Path(config.out)
    settle_phi(config)
    read = {"documents": [(one.document.text, one.probe, one.answer) for one in own]}
    claim(folder, config, ("out", "quiet", "dry_run", *KEPT), read | method_inputs(config))
    documents = [one.document for one in own]

    def none() -> list[Document]:
        raise UserError(
            f"--method {config.method}: needs texts beside the documents that are taught, and there are none; for "
            "review or kl name some with --review.data FILE, and in place of rho take rho_theta0"
        )

    cell = Cell(config, none, held=[document.text for document in documents])
    cell.log = start(config.track, folder.name, folder, config)
    split, tokenizer = cell.load()
    questions = Questions(split, tokenizer, own, config.adapt.max_length)

    def evaluate(epoch: int) -> dict:
        split.model.eval()
        return {"answers": questions.answers()} if epoch in (0, config.adapt.epochs) else {}

    adaptation = cell.adaptation(split, tokenizer, documents, evaluate, folder / "state.safetensors")
    history = adaptation.run()
    save_adapter(split.model, folder)
    found = report(own, history[0]["answers"], history[config.adapt.epochs]["answers"])
    if processes.is_main():
        write_text(folder / "report.json", json.dumps(found | {"config": asdict(config)}, indent=1) + "\n")
    return found


def main(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--documents", *arguments]
    config = _parse(arguments)
    if not config.documents:
        raise UserError("which documents? python -m taalm.adapt_documents docs.jsonl")
    own = read_documents(config.documents)
    if config.dry_run:
        print(describe(resolve_model(config), config.adapt, len(own)))
        return
    print(describe_report(_teach(config, own)))
    print(f"adapter (PEFT) and report.json in {config.out}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
