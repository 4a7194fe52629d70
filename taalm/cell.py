"""A cell of weighter x optimizer x rehearsal x base, put together and run: what every benchmark adapts theta with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from taalm.adapt import Adaptation, document_losses
from taalm.asking import Asker
from taalm.cell_config import CellConfig, find_phi, resolve_model
from taalm.errors import UserError
from taalm.held import known_heads, review_views
from taalm.methods import get_method, make_optimizer
from taalm.models.base import load_theta, position_limit
from taalm.models.split import SplitModel
from taalm.models.train_attention import TrainAttention
from taalm.readout import Readout
from taalm.rehearsal import REHEARSALS, Rehearsal
from taalm.review_text import sample_texts, without_probes
from taalm.shown import Shown, middle_states, read_shown
from taalm.text import Encoded, Span, check_length, collate, describe_truncation, encode, pad_token
from taalm.tracking import Log, no_log
from taalm.views import check_questions, describe_views, views_of, with_views
from taalm.weighters import Selector, Weighter, get_weighter
from taalm.weighters.heavy import OnlyHeavy
from taalm.weighters.known import SelectWithoutKnown, WithoutKnown
from taalm.weighters.material import Material
from taalm.weighters.readout import TimesReadout


class Document(NamedTuple):
    """A text to learn, the characters of its object if it has one, where it stands (for errors), its subject.

    `source` is what an encoder reads while the decoder says the text; None: what stands before the object.
    """

    text: str
    span: Span | None
    where: str
    subject: str = ""
    source: str | None = None

    def object(self) -> str:
        return self.text[slice(*self.span)]

    def read(self) -> str:
        """The encoder's text. Raises UserError where there is none."""
        if self.source is None and self.span is None:
            raise UserError(f"{self.where}: an encoder-decoder needs to know where the text's object stands")
        return self.source if self.source is not None else self.text[: self.span[0]].strip()


class Cell:
    """One method, ready to adapt theta as often as needed.

    `ta_train` gives the TA-train documents: RHO-1's reference learns them, and they are the review texts
    where --review.data names none. No review text may be one of the `held` documents, or hold the subject and the
    object of a probe (`probes`) together. With `ends` every text has EOS at its end.
    """

    def __init__(
        self, config: CellConfig, ta_train: Callable[[], Sequence[Document]], probes: Sequence[tuple[str, str]] = (),
        held: Sequence[str] = (), ends: bool = False, source_length: int | None = None,
    ):  # fmt: skip
        self.config, self.method = config, get_method(config.method)
        self.ends, self.source_length = ends, source_length
        self.model = resolve_model(config)
        self.ta_train, self.probes, self.held = ta_train, probes, held
        self.phi = None
        self.log: Log = no_log
        self.steps = 0  # updates of the adaptations so far, those of this run's beginning included
        self.reference: tuple[SplitModel, Any] | None = None
        self.shown: dict[str, Shown] = {}  # by file: read by theta as it is before its first adaptation
        self.asker: Asker | None = None
        self.readout: Readout | None = None
        self.questions: list[str] = []  # what the views of the newest adaptation ask
        self.known: list[str] | None = None  # what theta_0 knows, for KL replay beside views
        if self.method.takes_phi:
            self.phi = TrainAttention.from_pretrained(find_phi(config), config.model.device)

    def load(self) -> tuple[SplitModel, Any]:
        """A fresh theta_0 and its tokenizer, the same every time."""
        torch.manual_seed(self.config.seed)
        model, tokenizer = load_theta(self.model)
        if self.phi is not None:
            self.phi.check_tokenizer(tokenizer)
        return SplitModel(model), tokenizer

    def adaptation(
        self, split: SplitModel, tokenizer: Any, documents: Sequence[Document],
        evaluate: Callable[[int], dict], state_file: Path, review: Sequence[Document] | None = None,
        batch_size: int = 0,
    ) -> Adaptation:  # fmt: skip
        """theta, as it is now, ready to learn the documents; `run()` starts or resumes.

        `review` are the review texts, where the caller has its own; none at all leaves the rehearsal out. `batch_size`
        stands in for the configured one, unless it is 0.
        """
        config, pad_id = self.config, pad_token(tokenizer)
        rows = self._documents(split, tokenizer, documents)
        weigh = self._weigher(split, tokenizer, documents, rows, state_file.parent)
        importance: list[float] = []
        if self.method.views:
            rows, weigh, importance = self._with_views(split, tokenizer, documents, rows, weigh)
        before = self.steps
        schedule = replace(config.adapt, batch_size=batch_size or config.adapt.batch_size)
        adaptation = Adaptation(
            split, rows, pad_id, weigh, schedule, evaluate, state_file, config.seed, config.quiet,
            make_optimizer(self.method.optimizer, config.recadam), self._rehearsal(split, tokenizer, review),
            log=lambda values, step: self.log(values, before + step), importance=importance,
        )  # fmt: skip
        self.steps += config.adapt.epochs * adaptation.steps_per_epoch
        return adaptation

    def weights(
        self, split: SplitModel, tokenizer: Any, documents: Sequence[Document], work: Path
    ) -> tuple[list[Encoded], list[Tensor]]:
        """The documents' tokens and what each weighs, (T,) per document, under theta as it is now."""
        rows, pad_id = self._documents(split, tokenizer, documents), pad_token(tokenizer)
        weigh, batch = self._weigher(split, tokenizer, documents, rows, work), collate(rows, pad_id)
        if isinstance(weigh, Selector):
            losses = nn.utils.rnn.pad_sequence(document_losses(split, rows, pad_id), batch_first=True)
            found = weigh.select(batch, losses)
        else:
            found = weigh(batch.to(next(split.model.parameters()).device))
        return rows, [weights[: len(row)].cpu() for weights, row in zip(found, rows, strict=True)]

    def _weigher(
        self, split: SplitModel, tokenizer: Any, documents: Sequence[Document], rows: Sequence[Encoded], work: Path
    ) -> Weighter | Selector:
        """The method's weighter for these documents; what it has to train lies in `work`."""
        config, pad_id = self.config, pad_token(tokenizer)
        if self.method.weighter.startswith("oracle") and any(document.span is None for document in documents):
            raise UserError("oracle needs to know where each document's object stands; these documents do not say it")
        base_losses = cache(lambda: document_losses(split, rows, pad_id))
        material = Material(
            phi=self.phi,
            tokenizer=tokenizer,
            documents=rows,
            texts=[document.text for document in documents],
            subjects=[document.subject for document in documents] if all(d.subject for d in documents) else (),
            base_losses=base_losses,
            reference_losses=lambda: self._reference_losses(rows, work / "reference.safetensors"),
            keep=config.rho.keep,
            weights=config.weights,
        )
        weigh = get_weighter(self.method.weighter, material)
        if self.method.readout:
            weigh = self._with_readout(split, tokenizer, rows, weigh)
        if config.known_above < 1:
            mask = SelectWithoutKnown if isinstance(weigh, Selector) else WithoutKnown
            weigh = mask(weigh, rows, base_losses(), config.known_above)
        if config.drop_below:
            if isinstance(weigh, Selector):
                raise UserError(f"--drop_below: {config.method} takes tokens whole or not at all; none weighs less")
            weigh = OnlyHeavy(weigh, config.drop_below)
        return weigh

    def _shown(self, flag: str, file: str, split: SplitModel, tokenizer: Any) -> Shown:
        """The facts that `flag` names, which none of the evaluated ones may be."""
        if file not in self.shown:
            subjects = {subject for subject, _ in self.probes}
            self.shown[file] = read_shown(file, flag, split, tokenizer, set(self.held), subjects)
        return self.shown[file]

    def _with_readout(
        self, split: SplitModel, tokenizer: Any, rows: Sequence[Encoded], weigh: Weighter | Selector
    ) -> Weighter:
        config, method = self.config.readout, self.config.method
        if isinstance(weigh, Selector) or split.seq2seq:
            raise UserError(f"--method {method}: readout needs a decoder and weights that are known beforehand")
        if not config.facts:
            raise UserError(
                f"--method {method}: readout learns from facts with their documents; name a file of them (jsonl) with "
                "--readout.facts"
            )
        if self.readout is None:
            self.readout = Readout(self._shown("readout.facts", config.facts, split, tokenizer))
        weights = self.readout(middle_states(split, rows, pad_token(tokenizer)))
        return TimesReadout(weigh, rows, weights, config.power)

    def _with_views(
        self, split: SplitModel, tokenizer: Any, documents: Sequence[Document], rows: Sequence[Encoded],
        weigh: Weighter | Selector,
    ) -> tuple[list[Encoded], Weighter, list[float]]:  # fmt: skip
        equal = self.method.weighter == "uniform" and not self.method.readout
        if isinstance(weigh, Selector) or equal or split.seq2seq:
            raise UserError(
                f"--method {self.config.method}: views need a decoder and weights that are known beforehand and point "
                "at words, such as targeted+views or oracle+views"
            )
        device, pad_id = next(split.model.parameters()).device, pad_token(tokenizer)
        weights = [weigh(collate([row], pad_id).to(device)).squeeze(0) for row in rows]
        texts = [document.text for document in documents]
        check_questions(self.config.views)
        if self.config.views.asked and self.asker is None:
            self.asker = Asker(tokenizer, self._shown("views.questions", self.config.views.questions, split, tokenizer))
        views, self.questions = views_of(tokenizer, texts, rows, weights, self.config.views, split, self.asker)
        pairs = [(document.subject, document.object()) for document in documents if document.subject and document.span]
        print(describe_views(views, pairs if len(pairs) == len(documents) else ()), flush=True)
        if not self.config.views.documents:
            rows, weights = [], []
        return with_views(tokenizer, views, rows, weights, self.config.views.confidence)

    def encode(
        self, split: SplitModel, tokenizer: Any, documents: Sequence[Document], max_length: int | None
    ) -> list[Encoded]:
        """The documents as theta reads them, cut to `max_length` tokens."""

        def one(document: Document) -> Encoded:
            source = document.read() if split.seq2seq else None
            return encode(tokenizer, document.text, document.span, max_length, self.ends, source, self.source_length)

        return [one(document) for document in documents]

    def _documents(self, split: SplitModel, tokenizer: Any, documents: Sequence[Document]) -> list[Encoded]:
        config, limit = self.config, position_limit(self.config.model.name)
        rows = self.encode(split, tokenizer, documents, config.adapt.max_length or None)
        for row, document in zip(rows, documents, strict=True):
            check_length(len(row), limit, document.where)
        cut = describe_truncation(rows, config.adapt.max_length)
        if cut and not config.quiet:
            print(cut)
        return rows

    def _reference_losses(self, rows: Sequence[Encoded], state_file: Path) -> list[Tensor]:
        """l_t of the documents under theta fine-tuned on the TA-train documents (RHO-1's reference model).

        The reference is the same for all adaptations of a run: the first one trains it, a resumed run loads it.
        """
        if self.reference is None:
            self.reference = self._train_reference(state_file)
        split, tokenizer = self.reference
        return document_losses(split, rows, pad_token(tokenizer))

    def _train_reference(self, state_file: Path) -> tuple[SplitModel, Any]:
        config = self.config
        split, tokenizer = self.load()
        documents, pad_id = self.ta_train(), pad_token(tokenizer)
        schedule = replace(config.adapt, epochs=config.rho.reference_epochs, lr=config.rho.reference_lr)
        print(f"{config.method}: its reference model learns {len(documents)} TA-train documents", flush=True)
        reference = Adaptation(
            split, self._documents(split, tokenizer, documents), pad_id, get_weighter("uniform"), schedule,
            lambda epoch: {}, state_file, config.seed, config.quiet,
        )  # fmt: skip
        reference.run()
        return split, tokenizer

    @cached_property
    def _review_texts(self) -> list[Document]:
        review = self.config.review
        if review.data:
            texts = sample_texts(review.data, review.texts, self.config.seed)
            documents = [Document(text, None, "a review text") for text in texts]
        else:
            # KL replay holds on to the whole text: an object that is marked to be learned is no answer to be held
            documents = [document._replace(span=None) for document in self.ta_train()]
        kept = set(without_probes([document.text for document in documents], self.probes, self.held))
        return [document for document in documents if document.text in kept]

    def _review_documents(self, split: SplitModel, tokenizer: Any) -> list[Document]:
        """What is reviewed; beside views what they hold on to, by what the views of this adaptation ask."""
        documents, views = self._review_texts, self.config.views
        if not self.method.views or self.method.rehearsal != "kl":
            return documents
        subjects, texts = frozenset(subject for subject, _ in self.probes), [document.text for document in documents]
        if views.held and self.known is None:
            self.known = known_heads(texts, views, subjects, split, tokenizer)
        found = review_views(texts, views, subjects, self.config.seed, self.known or (), self.questions)
        return [Document(text, span, "a review text") for text, span in found]

    def _rehearsal(self, split: SplitModel, tokenizer: Any, given: Sequence[Document] | None) -> Rehearsal | None:
        if not self.method.rehearsal or (given is not None and not given):
            return None
        config = self.config
        documents = self._review_documents(split, tokenizer) if given is None else given
        rows = self.encode(split, tokenizer, documents, config.review.max_length)
        make = REHEARSALS[self.method.rehearsal]
        return make(split, rows, pad_token(tokenizer), config.review, config.adapt.token_budget, config.seed)
