"""oracle: only the object's tokens, at the place of [MASK] in the document (TAALM, section 5).

oracle_bidirectional also weighs the subject's tokens where they follow the object: a model that reads from left to
right can tie the two together only at the later one.
"""

import re

import torch
from torch import Tensor

from taalm.errors import UserError
from taalm.text import Batch, offsets
from taalm.weighters.documents import fixed
from taalm.weighters.material import Material


def oracle(material: Material):
    """w = 1 on the tokens of the document's marked span, else 0."""

    def weights(batch: Batch) -> Tensor:
        return batch.answer.float()

    return weights


def oracle_bidirectional(material: Material):
    """w = 1 on the object's tokens and on those of every later occurrence of the subject, else 0."""
    if not material.subjects:
        raise UserError("oracle_bidirectional needs to know the documents' subjects; these documents do not say them")
    rows = []
    for document, text, subject in zip(material.documents, material.texts, material.subjects, strict=True):
        places = offsets(material.tokenizer, text, document)
        answer = torch.tensor(document.answer[1:])
        marked = [span for span, inside in zip(places, answer, strict=True) if inside]
        end = marked[-1][1] if marked else len(text)
        later = [match.span() for match in re.finditer(re.escape(subject), text) if match.start() >= end]
        chosen = [any(a < stop and start < b for start, stop in later) for a, b in places]
        rows.append((answer | torch.tensor(chosen)).float())
    return fixed(material.documents, rows)
