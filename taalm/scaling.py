"""Adapter scaling: what an adapter adds is multiplied by a share, which interpolates between theta_0 (0) and theta (1).

In the manner of WiSE-FT (Wortsman et al. 2022, section 3): for LoRA the weights themselves are interpolated.
"""

import contextlib
from collections.abc import Iterator

from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import nn

from taalm.errors import UserError
from taalm.models.kadapter import KAdapterLayer


@contextlib.contextmanager
def scaled(model: nn.Module, share: float) -> Iterator[None]:
    """Within the block the adapter counts `share` times. Raises UserError for a model without an adapter."""
    if share == 1:
        yield
        return
    if not isinstance(model, PeftModel):
        raise UserError("--scales needs an adapter to scale; with --model.adapter full there is none")
    blocks = [module for module in model.modules() if isinstance(module, KAdapterLayer)]
    if not blocks:
        with rescale_adapter_scale(model, share):
            yield
        return
    try:
        for block in blocks:
            block.share = share
        yield
    finally:
        for block in blocks:
            block.share = 1.0
