"""The online wiki stream as one method meets it: what each date teaches, how its queries are answered."""

import math
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig

from taalm import processes
from taalm.benchmarks.online_forms import as_document, ask, clean, sides, teach
from taalm.benchmarks.online_wiki import Lesson, Query, dates_of, read_lessons, read_queries
from taalm.benchmarks.relations import INVARIANT
from taalm.cell import Cell, Document, settle_phi
from taalm.checkpoint import write_jsonl
from taalm.config import ROOT
from taalm.errors import UserError
from taalm.facts import MASK, read_facts
from taalm.generation import generate
from taalm.losses import target_mask
from taalm.models.base import load_pretrained
from taalm.models.split import SplitModel
from taalm.online_config import OnlineConfig, cell_config, method_of
from taalm.seeds import derive_seed
from taalm.text import collate, encode, pad_token

DOWNLOADED = "dataset_from_2019_to_2023/dataset_from_2019-1-1_to_2023-5-31_per_{version}"
SAMPLE = ROOT / "data" / "sample" / "online_wiki"
Row = TypeVar("Row", Lesson, Query)

GAP_TEXTS = 256  # texts of a date that the representation gap is measured on


def by_date(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows in their order under their dates."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.date, []).append(row)
    return found


def first_facts(lessons: Sequence[Lesson], limit: int) -> list[Lesson]:
    """The lessons of the first `limit` facts; 0: of all."""
    facts = set(list(dict.fromkeys(lesson.fact for lesson in lessons))[: limit or None])
    return [lesson for lesson in lessons if lesson.fact in facts]


def stream_folder(config: OnlineConfig) -> Path:
    """The folder of the stream's two files. Raises UserError, saying what to do, where a given one holds none."""
    version, data = config.dataset_version, ROOT / "data"
    given = Path(config.data)
    if config.data:
        places = [given / version, given / DOWNLOADED.format(version=version), given]
    else:
        places = [data / "online_wiki" / version, data / DOWNLOADED.format(version=version), SAMPLE / version]
    for folder in places:
        if (folder / "datesorted_train.jsonl").is_file() and (folder / "datesorted_test.jsonl").is_file():
            return folder
    raise UserError(
        f"--data {config.data}: no datesorted_train.jsonl and datesorted_test.jsonl there or in {version}/; `sh "
        "Download_dataset` fetches the published stream, preprocess/make_online_stream.py makes one"
    )


class Stream:
    """A stream and the method that learns it."""

    def __init__(self, config: OnlineConfig):
        self.config, self.folder = config, stream_folder(config)
        seq2seq = load_pretrained(AutoConfig, config.model).is_encoder_decoder
        if config.form == "span" and not seq2seq:
            raise UserError(f"--form span: {config.model} is a decoder and has no sentinels; take --form prefix")
        if "modular" in method_of(config)[0] and not seq2seq:
            raise UserError(f"--method {config.method} needs an encoder, and {config.model} has none; take t5-base")
        self.out = Path(config.output_dir)
        self.cell_config = cell_config(config, seq2seq)
        settle_phi(self.cell_config)
        config.phi = self.cell_config.phi
        queries = read_queries(self.folder / "datesorted_test.jsonl")
        lessons = read_lessons(self.folder / "datesorted_train.jsonl")
        self.dates = dates_of(lessons, queries)
        asked, taught = by_date(queries), by_date(lessons)
        self.asked = [
            [ask(query, config.form) for query in asked.get(date, [])[: config.limit or None]] for date in self.dates
        ]
        kept = [lesson for date in self.dates for lesson in first_facts(taught.get(date, []), config.limit)]
        self.taught = teach(kept, queries, config.form, config.num_workers)
        self.by_date: dict[str, list[tuple[Document, Lesson]]] = {date: [] for date in self.dates}
        for document, lesson in zip(self.taught.documents, self.taught.lessons, strict=True):
            self.by_date[lesson.date].append((document, lesson))
        if self.taught.guessed and not config.quiet:
            print(
                f"{self.taught.guessed} of {len(kept)} texts are no sentence of a query: their last salient span is "
                f"taken for the answer ({self.taught.dropped} have none and are left out)"
            )

    @cached_property
    def cell(self) -> Cell:
        return Cell(self.cell_config, self._ta_train, ends=True, source_length=self.config.input_length)

    def _ta_train(self) -> list[Document]:
        path = self.folder.parent / "ta" / "ta_train.jsonl"
        if not path.is_file():
            raise UserError(f"{path}: no TA-train facts; preprocess/make_online_stream.py makes them")
        return [
            as_document(*sides(fact.masked_evidence, MASK), fact.object, self.config.form, fact.where)
            for fact in read_facts(path)
        ]

    def documents(self, t: int) -> list[Document]:
        """What date t teaches."""
        return [document for document, _ in self.by_date[self.dates[t]]]

    def buffer(self, t: int) -> list[Document]:
        """Mix-review's texts of the dates before t: of each, a random share of those with time-invariant relations."""
        found: list[Document] = []
        for index, date in enumerate(self.dates[:t]):
            stays = [document for document, lesson in self.by_date[date] if lesson.relation in INVARIANT]
            count = math.ceil(self.config.buffer_share * len(stays))
            found += random.Random(derive_seed(self.config.seed, index)).sample(stays, count)
        size = self.config.buffer_size
        return found if len(found) <= size else random.Random(self.config.seed).sample(found, size)

    # ---- asking
    def ask(self, split: SplitModel, tokenizer: Any, date: int, after: str) -> tuple[int, int]:
        """How many queries of a date are answered: the whole string exactly, and the answer alone."""
        config, asked = self.config, self.asked[date]
        said = generate(
            split, tokenizer, [query.given for query in asked], config.input_length, config.output_length,
            config.eval_batch_size, config.beams, config.num_workers,
        )  # fmt: skip
        rows = []
        for query, text in zip(asked, said, strict=True):
            begun = "" if split.seq2seq else f"{query.given} "
            text = begun + clean(text, config.form)
            whole, answer = query.judge(text)
            rows.append(
                {"id": query.query.fact, "said": text, "names": query.query.names, "em": whole, "answer": answer}
            )
        if processes.is_main():
            write_jsonl(self.out / "predictions" / f"{self.dates[date]}_{after}.jsonl", rows)
        return sum(row["em"] for row in rows), sum(row["answer"] for row in rows)

    @torch.no_grad()
    def representation_gap(self, split: SplitModel, tokenizer: Any, t: int) -> float | None:
        """L2 distance between the mean state of what is given and the mean embedding of what is said, of date t."""
        documents = self.documents(t)[:GAP_TEXTS]
        if not documents:
            return None
        split.model.eval()
        rows = [
            encode(tokenizer, d.text, d.span, self.cell_config.adapt.max_length, True,
                   d.read() if split.seq2seq else None, self.config.input_length)
            for d in documents
        ]  # fmt: skip
        batch = collate(rows, pad_token(tokenizer)).to(next(split.model.parameters()).device)
        found = split.model(**batch.inputs(), output_hidden_states=True)
        if split.seq2seq:
            states, given = found.encoder_last_hidden_state, batch.source_mask.bool()
            said = torch.zeros_like(batch.answer)
            said[:, 1:] = target_mask(batch.attention_mask).bool()
        else:
            states, said = found.hidden_states[-1], batch.answer
            given = batch.attention_mask.bool() & ~said
        embeddings = processes.whole(split.model.get_input_embeddings().weight)[batch.input_ids[said]]
        return float((states[given].float().mean(0) - embeddings.float().mean(0)).norm())
