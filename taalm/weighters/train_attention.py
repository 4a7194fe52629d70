"""targeted: the weights that Train-Attention predicts (TAALM, section 3)."""

from taalm.errors import UserError
from taalm.weighters.documents import PerDocument
from taalm.weighters.material import Material


def train_attention(material: Material) -> PerDocument:
    """w = phi(document), asked once per document; needs `material.phi`."""
    phi = material.phi
    if phi is None:
        raise UserError("the weighter train_attention needs a trained phi (--phi FOLDER)")
    return PerDocument(lambda batch: phi.weights(batch.input_ids, batch.attention_mask))
