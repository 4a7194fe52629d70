"""Look at token weights: `python -m taalm.weigh --phi FOLDER --text "..." --object Lyon` or `--facts rows.jsonl`.

Writes weights.html (to be opened in a browser), a PNG for each document, weights.json, and word_classes.png.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse.typing import PositiveInt

from taalm import processes
from taalm.benchmarks.lama_ckl import data_folder
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig, settle_phi
from taalm.checkpoint import write_text
from taalm.config import parse, run_entry
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.heatmap import Weighed, by_word_class, picture, save_page, weighed
from taalm.models.base import ModelConfig
from taalm.models.precision import keep_freed_memory
from taalm.weighters.ner import load_pipeline


@dataclass
class WeighConfig:
    """Show what each token of some texts weighs, by several methods side by side."""

    text: str = ""
    """A text to weigh."""
    object: str = ""
    """The part of the text that oracle would learn; it is outlined."""
    facts: str = ""
    """A facts file (JSONL rows of LAMA-ckl) whose documents are weighed."""
    limit: PositiveInt = 8
    """So many documents of the file."""
    methods: list[str] = field(default_factory=lambda: ["targeted", "oracle", "surprisal"])
    """Methods whose weights are shown: targeted is phi, others oracle, rho, rho_theta0, surprisal, ner, tfidf."""
    phi: str = ""
    """Folder of a trained phi; default the newest under phi_runs, else the released one."""
    phi_runs: str = "runs/train_ta/lama_ckl"
    """Where to look for a trained phi."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: str = ""
    """rho: the folder with the documents that its reference learns; default TAALM_DATA, else the sample set."""
    out: str = "results/weights"
    """Folder of what is written."""
    quiet: bool = False
    """No progress."""


def documents_of(config: WeighConfig) -> list[Document]:
    """The texts to weigh. Raises UserError where there are none, or the object is not in the text."""
    if bool(config.text) == bool(config.facts):
        raise UserError("give either --text TEXT or --facts FILE")
    if config.facts:
        facts = read_facts(config.facts)[: config.limit]
        return [Document(fact.evidence, fact.object_span(), fact.where, fact.subject) for fact in facts]
    if config.object and config.object not in config.text:
        raise UserError(f"--object {config.object!r} does not stand in the text")
    start = config.text.rfind(config.object) if config.object else -1
    span = (start, start + len(config.object)) if config.object else None
    return [Document(config.text, span, "--text")]


def weigh(config: WeighConfig) -> list[Weighed]:
    """The documents with their tokens' weights by every method that applies."""
    if not config.methods:
        raise UserError("--methods: name at least one")
    documents = documents_of(config)
    found: list[dict[str, list[float]]] = [{} for _ in documents]

    def ta_train() -> list[Document]:
        facts = read_facts(data_folder(config.data, config.model.name) / "ta_train.jsonl")
        return [Document(fact.evidence, None, fact.where) for fact in facts]

    for method in config.methods:
        cell_config = CellConfig(
            method=method, model=config.model, phi=config.phi, phi_runs=config.phi_runs, quiet=config.quiet
        )
        cell_config.adapt.max_length = 0
        settle_phi(cell_config)
        cell = Cell(cell_config, ta_train)
        split, tokenizer = cell.load()
        with tempfile.TemporaryDirectory() as work:  # RHO-1's reference: other data, another one
            rows, weights = cell.weights(split, tokenizer, documents, Path(work))
        for entry, values in zip(found, weights, strict=True):
            entry[method] = values[1:].tolist()  # BOS is nobody's target
    return [
        weighed(tokenizer, document.where, document.text, row, entry)
        for document, row, entry in zip(documents, rows, found, strict=True)
    ]


def main(arguments: list[str]) -> None:
    config = parse(WeighConfig, None, arguments, "python -m taalm.weigh")
    processes.start(config.model.device)
    keep_freed_memory()
    documents, out = weigh(config), Path(config.out)
    save_page(documents, out / "weights.html")
    for number, document in enumerate(documents):
        picture(document, out / f"weights_{number}.png")
    tags = by_word_class(documents, load_pipeline(), out / "word_classes.png")
    described = [
        {"text": d.text, "tokens": [d.text[start:end] for start, end in d.places], "object": list(d.object),
         "weights": {method: d.relative(method) for method in d.weights}}
        for d in documents
    ]  # fmt: skip
    write_text(out / "weights.json", json.dumps({"documents": described, "word_classes": tags}, ensure_ascii=False))
    print(f"open {out / 'weights.html'}; pictures weights_*.png and word_classes.png lie beside it")


if __name__ == "__main__":
    run_entry(main)
