"""surprisal: a token counts by how little theta expected it before training; a control that needs no meta-learning."""

from taalm.errors import UserError
from taalm.weighters.documents import fixed
from taalm.weighters.material import Material


def surprisal(material: Material):
    """w_t = l_t under theta_0, in nats."""
    if material.base_losses is None:
        raise UserError("the weighter surprisal needs theta's losses before training")
    return fixed(material.documents, material.base_losses())
