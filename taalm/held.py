"""What KL replay holds on to beside cloze views: what theta_0 answers about names that no document is about.

Views alone make theta give the documents' objects after any name. A question or template about another name, with a gap
for its answer, is held on to instead: KL(theta_0 || theta) where the answer is predicted (docs/method.md).
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from taalm.asking import probe_head, question_of
from taalm.benchmarks.templates import read_templates
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.known_answers import known_questions
from taalm.models.split import SplitModel
from taalm.names import find_names
from taalm.text import Span
from taalm.views import ViewsConfig

FREQUENT = 500  # names, where theta_0 is asked what it knows of them
PASSAGE = 10  # words that follow the name there
GAP = " _"  # stands where a head's answer would; nothing depends on what it is


def fact_heads(path: str, avoided: frozenset[str]) -> list[str]:
    """The probes of a file's facts up to their objects, each once; those about no subject `avoided`."""
    heads = [probe_head(fact) for fact in read_facts(path) if fact.subject not in avoided]
    return list(dict.fromkeys(head for head in heads if head))


def known_heads(
    texts: Iterable[str], config: ViewsConfig, avoided: frozenset[str], split: SplitModel, tokenizer: Any
) -> list[str]:
    """config.held questions about the most frequent names of the review texts, those of which `split` knows most.

    With config.held_facts the facts' own follow. No name or subject is one of those `avoided`.
    """
    own = fact_heads(config.questions, avoided) if config.held_facts else []
    names = Counter(text[slice(*span)] for text in texts for span in find_names(text))
    frequent = [name for name, _ in names.most_common() if name not in avoided][:FREQUENT]
    if not frequent:
        return own
    return known_questions(split, tokenizer, read_questions(config.questions), frequent, config.held) + own


def review_views(
    texts: Iterable[str], config: ViewsConfig, avoided: frozenset[str], seed: int, known: Sequence[str] = (),
    asked: Sequence[str] = (),
) -> list[tuple[str, Span | None]]:  # fmt: skip
    """What KL replay holds on to beside views: heads of views about the names of the review texts.

    A head is a question of --views.questions about the name, or a template up to its object; a gap follows, marked as
    the answer, so that theta_0's expectation of it is what is held on to. Every name is asked one question, or with
    config.held some are asked what theta_0 knows of them, the heads `known`, and any name the questions `asked` of the
    documents: what is learned there is not to be said of others. Without questions passages that begin with the name
    come too, unmarked. No name is one of those `avoided` (the probes' subjects).
    """
    found: list[tuple[str, Span | None]] = []
    questions, rng = read_questions(config.questions), random.Random(seed)
    places = {text[slice(*span)]: (text, span[0]) for text in texts for span in find_names(text)}

    def hold(head: str) -> None:
        found.append((head + GAP, (len(head), len(head) + len(GAP))))

    if config.held:
        names = [name for name in places if name not in avoided]
        alike = [
            rng.choice(asked).replace("<subject>", rng.choice(names)) for _ in range(config.held) if asked and names
        ]
        for head in dict.fromkeys([*known, *alike]):
            hold(head)
    for number, (name, (text, start)) in enumerate(places.items()):
        if name in avoided:
            continue
        if questions and not config.held:
            hold(rng.choice(questions).replace("<subject>", name))
        if not questions:
            found.append((" ".join(text[start:].split()[: len(name.split()) + PASSAGE]), None))
        if config.templates:
            template = config.templates[number % len(config.templates)]
            hold(template.removesuffix("{object}").replace("{name}", name).rstrip())
    rng.shuffle(found)
    return found


def read_questions(path: str) -> list[str]:
    """Questions with <subject> in them, up to their object: a file's relation templates, or the probes of its facts.

    Templates are a CSV file's, facts those of a jsonl file (the same question once). Raises UserError.
    """
    if not path:
        return []
    if path.endswith(".jsonl"):
        heads = [question_of(fact) or "" for fact in read_facts(path)]
    else:
        heads = [template.sentence.partition("<object>")[0] for template in read_templates(Path(path)).values()]
    found = sorted({head.rstrip() for head in heads if "<subject>" in head})
    if not found:
        raise UserError(f"--views.questions {path}: nothing there names a subject before its object")
    return found
