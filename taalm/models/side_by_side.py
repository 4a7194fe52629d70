"""LoRA layers that can hold weights of their own for every document of a batch, so that many theta' share one pass."""

import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class Misaligned(Exception):
    """A layer's inputs are not (documents, tokens, width): a document's weights cannot find its tokens."""


class DocumentLinear(nn.Linear):
    """An nn.Linear without bias that also takes weights (B, out, in): document b of x (B, T, in) has its own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return F.linear(x, self.weight)
        if x.dim() != 3 or len(x) != len(self.weight):
            raise Misaligned
        return x @ self.weight.mT


def allow_side_by_side(model: nn.Module) -> bool:
    """Make the LoRA layers of `model` take weights by document. Returns whether nothing else of it trains."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for layer in (*module.lora_A.values(), *module.lora_B.values()):
                if type(layer) is nn.Linear and layer.bias is None:
                    layer.__class__ = DocumentLinear
                    trained.discard(id(layer.weight))
    return not trained
