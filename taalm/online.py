"""The online wiki stream as one method meets it: what each date teaches, how its queries are answered."""

import math
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from taalm import processes
from taalm.benchmarks.online_forms import FIRST, Asked, ask, clean, cut, shortened, teach
from taalm.benchmarks.online_wiki import Lesson, date_kind, dates_of, read_lessons, read_queries
from taalm.benchmarks.relations import INVARIANT
from taalm.cell import Cell, Document
from taalm.cell_config import settle_phi
from taalm.checkpoint import write_jsonl
from taalm.config import ROOT, SHIPPED
from taalm.errors import UserError
from taalm.facts import MASK, read_facts
from taalm.generation import generate
from taalm.losses import target_mask
from taalm.methods import get_method
from taalm.models.base import load_pretrained, load_tokenizer
from taalm.models.split import SplitModel
from taalm.online_config import OnlineConfig, cell_config
from taalm.seeds import derive_seed
from taalm.text import Batch, by_length, collate, pad_token

DOWNLOADED = "dataset_from_2019_to_2023/dataset_from_2019-1-1_to_2023-5-31_per_{version}"
SAMPLE = SHIPPED / "data" / "sample" / "online_wiki"
GAP_TEXTS = 256  # texts of a date that the representation gap is measured on


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


class OnlineStream:
    """A stream and the method that learns it. The folder and phi that were found are written into the config."""

    def __init__(self, config: OnlineConfig):
        self.config, self.folder = config, stream_folder(config)
        config.data = str(self.folder)
        self.seq2seq = load_pretrained(AutoConfig, config.model).is_encoder_decoder
        self.tokenizer = load_tokenizer(config.model)
        self.cell_config = cell_config(config, self.seq2seq)
        self.method = get_method(self.cell_config.method)
        self._check()
        queries = read_queries(self.folder / "datesorted_test.jsonl")
        lessons = read_lessons(self.folder / "datesorted_train.jsonl")
        self.dates = dates_of(queries, lessons)
        kind = date_kind(self.dates[0])
        if kind != config.dataset_version:
            raise UserError(f"{self.folder}: its dates are by {kind}, --dataset_version is {config.dataset_version}")
        facts = self._facts(queries, lessons)
        self.asked: dict[str, list[Asked]] = {date: [] for date in self.dates}
        for query in queries:
            if query.fact in facts[query.date]:
                self.asked[query.date].append(self._fit(ask(query, config.form)))
        self.taught: dict[str, list[tuple[Document, Lesson]]] = {date: [] for date in self.dates}
        if not config.check_validation:
            settle_phi(self.cell_config)
            config.phi = self.cell_config.phi
            self._teach([lesson for lesson in lessons if lesson.fact in facts[lesson.date]], queries)

    def _check(self) -> None:
        """Raises UserError for a form or a method that the model cannot do."""
        name = self.config.model
        if self.config.form == "span" and FIRST not in self.tokenizer.get_vocab():
            raise UserError(f"--form span: {name} has no sentinels ({FIRST}); take --form prefix")
        if self.method.adapter == "modular" and not self.seq2seq:
            raise UserError(f"--method {self.config.method} needs an encoder, and {name} has none; take t5-base")

    def _facts(self, *rows: Sequence) -> dict[str, set[str]]:
        """The facts of each date that are taught and asked: the first so many, the queries' order first."""
        found: dict[str, dict[str, None]] = {date: {} for date in self.dates}
        for group in rows:
            for row in group:
                found[row.date][row.fact] = None
        return {date: set(list(facts)[: self.config.limit or None]) for date, facts in found.items()}

    def _fit(self, found: Any) -> Any:
        """A query or a document whose given text is cut to input_length tokens, BOS being one (decoders).

        An encoder's source is cut where it is tokenised: its decoder says the whole context.
        """
        if self.seq2seq:
            return found
        given = found.source if isinstance(found, Document) else found.given
        ids = self.tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"]
        most = self.config.input_length - 1
        return found if len(ids) <= most else shortened(found, self.tokenizer.decode(ids[:most]))

    def _teach(self, lessons: Sequence[Lesson], queries: Sequence) -> None:
        found = teach(lessons, queries, self.config.form, self.config.num_workers)
        for documents, lesson in zip(found.documents, lessons, strict=True):
            self.taught[lesson.date] += [(self._fit(document), lesson) for document in documents]
        if found.guessed and not self.config.quiet:
            print(
                f"{found.guessed} of {len(lessons)} texts are no sentence of a query: their last salient span is "
                f"taken for the answer ({found.dropped} have none and are left out)"
            )
        if self.method.rehearsal == "mix_review" and not any(lesson.relation in INVARIANT for lesson in lessons):
            raise UserError(f"{self.folder}: mixreview reviews facts of time-invariant relations, and there are none")

    @cached_property
    def cell(self) -> Cell:
        """The method; with nothing to train, the bare model of vanilla."""
        if self.config.check_validation:
            self.cell_config.phi = ""
            self.cell_config.method = self.method.adapter or "finetune"
        return Cell(self.cell_config, self._ta_train, ends=True, source_length=self.config.input_length)

    def _ta_train(self) -> list[Document]:
        """The TA-train facts. Raises UserError where there are none, or one of them is in the stream."""
        path = Path(self.config.ta_train or self.folder.parent / "ta" / "ta_train.jsonl")
        if not path.is_file():
            raise UserError(f"{path}: no TA-train facts for this method; give a facts file with --ta_train")
        streamed = {document.text for pairs in self.taught.values() for document, _ in pairs}
        found = []
        for fact in read_facts(path):
            document = cut(fact.masked_evidence, fact.object, MASK).document(self.config.form, fact.where)
            if document.text in streamed and self.config.form == "prefix":
                raise UserError(f"{fact.where}: this fact is in the stream; TA-train must be apart from it")
            found.append(self._fit(document))
        return found

    def documents(self, date: str) -> list[Document]:
        """What a date teaches."""
        return [document for document, _ in self.taught[date]]

    def buffer(self, t: int) -> list[Document]:
        """Mix-review's texts of the dates before t: of each, a random share of those with invariant relations."""
        found: list[Document] = []
        for index, date in enumerate(self.dates[:t]):
            stays = [document for document, lesson in self.taught[date] if lesson.relation in INVARIANT]
            count = math.ceil(self.config.buffer_share * len(stays))
            found += random.Random(derive_seed(self.config.seed, index)).sample(stays, count)
        size = self.config.buffer_size
        return found if len(found) <= size else random.Random(self.config.seed).sample(found, size)

    def answer(self, split: SplitModel, tokenizer: Any, date: str, path: Path) -> tuple[int, int]:
        """How many queries of a date are answered: the whole string exactly, and the answer alone.

        What was said is written into `path`.
        """
        config, asked = self.config, self.asked[date]
        said = generate(
            split, tokenizer, [query.given for query in asked], config.input_length,
            config.output_length, config.eval_batch_size, config.beams, config.num_workers,
        )  # fmt: skip
        rows = []
        for query, text in zip(asked, said, strict=True):
            text = ("" if self.seq2seq else f"{query.given} ") + clean(text, config.form)
            whole, answer = query.judge(text)
            names, fact = query.query.names, query.query.fact
            rows.append({"id": fact, "said": text, "names": names, "em": whole, "answer": answer})
        if processes.is_main():
            write_jsonl(path, rows)
        return sum(row["em"] for row in rows), sum(row["answer"] for row in rows)

    @torch.no_grad()
    def representation_gap(self, split: SplitModel, tokenizer: Any, date: str) -> float | None:
        """L2 distance between the mean state of what is given and the mean embedding of what is said, of one date."""
        documents = self.documents(date)[:GAP_TEXTS]
        if not documents:
            return None
        split.model.eval()
        embedding = processes.whole(split.model.get_input_embeddings().weight)
        rows = self.cell.encode(split, tokenizer, documents, self.cell_config.adapt.max_length)
        parts = by_length([len(row) for row in rows], self.config.eval_batch_size)
        states, targets = [], []
        for part in parts:
            batch = collate([rows[index] for index in part], pad_token(tokenizer)).to(embedding.device)
            found, given, said = _states(split, batch)
            states.append(found[given].float())
            targets.append(embedding[batch.input_ids[said]].float())
        return float((torch.cat(states).mean(0) - torch.cat(targets).mean(0)).norm())


def _states(split: SplitModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(states (B, S, H), which of them are of what is given (B, S), which tokens are said (B, T))."""
    if split.seq2seq:
        said = torch.zeros_like(batch.answer)
        said[:, 1:] = target_mask(batch.attention_mask).bool()
        return split.model(**batch.inputs()).encoder_last_hidden_state, batch.source_mask.bool(), said
    found = split.model(**batch.inputs(), output_hidden_states=True, logits_to_keep=1)
    return found.hidden_states[-1], batch.attention_mask.bool() & ~batch.answer, batch.answer
