"""Frozen linear layers, in bfloat16 where the processor is faster so, and an allocator setting for the CPU.

On a processor with AMX, or AMD's AVX512-BF16, a product of bfloat16 matrices runs at about twice the rate of float32
ones (Zen 4: 400 against 190 GFLOP/s on two cores); Intel's AVX512-BF16 without AMX, as some virtual machines show it,
is slower than float32. Rounding float32 inputs inside the product (mkldnn's fp32_precision = "bf16") gave a tenth
only, since it converts the weights every time. So frozen layers keep their weights in bfloat16 and round their input;
all else (what trains, attention, norms, the head) stays float32.
"""

import ctypes
from pathlib import Path
from typing import Any, Literal

import bitsandbytes
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taalm.errors import UserError
from taalm.models.split import output_head

Precision = Literal["auto", "bf16", "fp32"]
CPU_INFO = Path("/proc/cpuinfo")


def resolve_device(device: str) -> torch.device:
    """The named device; `auto` is the accelerator if there is one, else the CPU."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError:
            raise UserError(f"device {device!r}: torch knows no such device") from None
    found = torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")


def usable_device(device: str) -> torch.device:
    """The same, ready to be computed on. Raises UserError where this machine has none, or torch was built without."""
    found = resolve_device(device)
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return found


def wants_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to run linear layers in bfloat16: as told, or (auto) where the device multiplies it faster."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or _is_amd_with_bf16())


def _is_amd_with_bf16() -> bool:
    """Whether this is an AMD processor with AVX512-BF16 (Zen 4 on); where the system does not tell, it is not."""
    described = CPU_INFO.read_text(errors="replace") if CPU_INFO.is_file() else ""
    return "AuthenticAMD" in described and torch.cpu._is_avx512_bf16_supported()


def _multiplies_bf16() -> bool:
    """Whether the processor has an instruction for products of bfloat16 numbers."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """x M^T of two tensors of one type, in that type.

    Bfloat16 products are sums in float32 that are rounded at the end. Where a processor has no instruction for them
    they are made so here, since torch's own take several times as long there.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not _multiplies_bf16():
        return F.linear(x.float(), matrix.float()).to(x.dtype)
    return F.linear(x, matrix)


def _dense(weight: Tensor, quant_state: Any, dtype: torch.dtype) -> Tensor:
    """The weight (out, in) to multiply by: itself, or 4-bit data made whole."""
    if quant_state is None:
        return weight
    return bitsandbytes.functional.dequantize_4bit(weight, quant_state).to(dtype)


class FrozenProduct(torch.autograd.Function):
    """y = x W^T (x W if `transposed`) for a W that never trains. x (..., in), W (out, in) -> y (..., out) in x's type.

    Written out for forward mode: the ordinary rule materialises a zero tangent for W and multiplies by it, three
    products a dual forward instead of two, and bitsandbytes' 4-bit product has none at all (it silently drops the
    tangent). Backward is the same Function transposed, so it can be differentiated again; a 4-bit W is kept as it is
    and made whole where it is needed.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, quant_state: Any, dtype: torch.dtype, transposed: bool) -> Tensor:
        dense = _dense(weight, quant_state, dtype)
        return _product(x.to(dtype), dense.t() if transposed else dense).to(x.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, *ctx.matrix, ctx.transposed = inputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        return FrozenProduct.apply(gradient, *ctx.matrix, not ctx.transposed), None, None, None, None

    @staticmethod
    def jvp(ctx, x_tangent: Tensor, *_) -> Tensor:
        return FrozenProduct.apply(x_tangent, *ctx.matrix, ctx.transposed)


class FrozenLinear(nn.Linear):
    """An nn.Linear whose weight and bias never train."""

    def forward(self, x: Tensor) -> Tensor:
        y = FrozenProduct.apply(x, self.weight, None, self.weight.dtype, False)
        return y if self.bias is None else y + self.bias


class FrozenLinear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' 4-bit linear layer with a product that forward mode goes through.

    Its own forward also repacks the weights one way in eval mode on some CPUs, so that they cannot train afterwards.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = FrozenProduct.apply(x, self.weight, self.weight.quant_state, self.compute_dtype, False)
        return y if self.bias is None else y + self.bias


def freeze_linears(model: nn.Module, bf16: bool) -> None:
    """Turn the frozen linear layers of `model` into frozen ones, dense ones with bfloat16 weights if `bf16`.

    The language-model head keeps its type: logits rounded to bfloat16 would tie often (steps of 0.06 at 16), and a tie
    decides a probe. Call before adapters are added, so that their own layers stay ordinary.
    """
    head = output_head(model)
    for module in model.modules():
        if type(module) is bitsandbytes.nn.Linear4bit:
            module.__class__ = FrozenLinear4bit
        elif type(module) is nn.Linear and not module.weight.requires_grad:
            module.__class__ = FrozenLinear
            if bf16 and module is not head:
                module.weight.data = module.weight.data.bfloat16()
    if bf16:  # the others still lie in the file of weights, all of which would stay in memory with them
        for parameter in model.parameters():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.clone()


def rounds_to_bf16(model: nn.Module) -> bool:
    """Whether frozen layers of `model` multiply in bfloat16."""
    return any(
        (isinstance(module, FrozenLinear) and module.weight.dtype == torch.bfloat16)
        or (isinstance(module, FrozenLinear4bit) and module.compute_dtype == torch.bfloat16)
        for module in model.modules()
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them: a step then faults no fresh pages (a quarter faster).

    Does nothing where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        mallopt(mmap_threshold, 2**31 - 1)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**29)
