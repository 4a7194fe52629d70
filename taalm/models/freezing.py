"""Which of a base model's own weights train: freeze_level of the online wiki stream (and of --model)."""

from torch import nn

from taalm.models.kadapter import final_norm
from taalm.models.split import decoder_layers


def freeze(model: nn.Module, level: int) -> None:
    """0 nothing is frozen; 1 the encoder with its embeddings, of a decoder the embeddings and the lower half of the
    layers; 2 everything. What is shared with a frozen part (a tied head) is frozen with it.
    """
    model.requires_grad_(level == 0 or (level == 1 and model.config.is_encoder_decoder))
    if level != 1:
        return
    if model.config.is_encoder_decoder:
        model.get_encoder().requires_grad_(False)
        return
    layers, head = decoder_layers(model), model.get_output_embeddings()
    for part in (*layers[len(layers) // 2 :], model.get_submodule(final_norm(model))):
        part.requires_grad_(True)
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        head.requires_grad_(True)
