"""theta in shards (FSDP2): every process holds its part of each layer and gathers a layer only while it is used."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from taalm.errors import UserError
from taalm.models.split import decoder_layers


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard the model over all processes, layer by layer; gradients are added up. Raises UserError in one process."""
    if not dist.is_initialized():
        raise UserError("shard needs several processes: start the command with torchrun or accelerate launch")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    parts = (model.get_encoder(), model.get_decoder()) if model.config.is_encoder_decoder else (model,)
    for part in parts:
        for layer in decoder_layers(part):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # passes without a backward must not leave it whole
    register_fsdp_forward_method(model, "generate")  # it calls an encoder past the model's own forward
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sums
