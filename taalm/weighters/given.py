"""given: weights out of a file, by taalm.ceiling or by anyone: a line {"text": ..., "weights": [...]} a document."""

import json
import math

import torch

from taalm.errors import UserError
from taalm.facts import read_jsonl
from taalm.weighters.documents import fixed
from taalm.weighters.material import Material


def given(material: Material):
    """The weight of every token after BOS. Raises UserError where the file lacks a document or has other tokens."""
    if not material.weights:
        raise UserError('given needs --weights FILE, a jsonl file of {"text": ..., "weights": [...]}')
    known = {}
    for where, row in read_jsonl(material.weights):
        values = row.get("weights") if isinstance(row, dict) else None
        if not isinstance(values, list) or not all(_is_weight(value) for value in values):
            raise UserError(f"{where}: expected a `text` and its `weights`, numbers from 0 up")
        known[row.get("text")] = where, torch.tensor(values, dtype=torch.float32)
    rows = []
    for document, text in zip(material.documents, material.texts, strict=True):
        if text not in known:
            raise UserError(f"{material.weights}: no weights for the document {json.dumps(text[:60])}...")
        where, weights = known[text]
        if len(weights) != len(document) - 1:
            raise UserError(
                f"{where}: {len(weights)} weights, but the document has {len(document) - 1} tokens after BOS"
            )
        rows.append(weights)
    return fixed(material.documents, rows)


def _is_weight(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
