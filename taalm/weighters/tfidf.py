"""tfidf: a token counts by its frequency in the document and its rarity among them (Salton and Buckley 1988)."""

import math
from collections import Counter

import torch

from taalm.weighters.documents import fixed
from taalm.weighters.material import Material


def tfidf(material: Material):
    """w_t = tf log((1 + N) / (1 + df)) + tf, tf the token's share of its document, df the documents that hold it."""
    documents = material.documents
    held = Counter(token for document in documents for token in set(document.input_ids[1:]))
    rows = []
    for document in documents:
        tokens = document.input_ids[1:]
        share = {token: count / len(tokens) for token, count in Counter(tokens).items()}
        rarity = {token: 1 + math.log((1 + len(documents)) / (1 + held[token])) for token in share}
        rows.append(torch.tensor([share[token] * rarity[token] for token in tokens]))
    return fixed(documents, rows)
