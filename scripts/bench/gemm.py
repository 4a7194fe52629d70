"""How near adaptation is to the machine's matrix products: the products of one epoch alone against the epoch.

Every product of one epoch (shapes, types, counts) is recorded while it runs; then each is timed by itself, operands in
cache as they come, the best of several. Their sum is what the epoch would take if it did nothing else at the measured
peak; the share is that sum over the epoch's seconds. Epochs after the first are taken: what theta_0 makes of the
documents is known.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.bench import prepare
from taalm.adapt import AdaptConfig
from taalm.checkpoint import write_text
from taalm.models.precision import keep_freed_memory

MATRICES = {  # operation -> which arguments are the two factors
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.mm.out: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.bmm.default: (0, 1),
    torch.ops.aten.baddbmm.default: (1, 2),
}
Product = tuple[tuple, tuple, tuple, tuple, torch.dtype]  # both shapes, both strides, type


class Products(TorchDispatchMode):
    """Counts the matrix products that run in it."""

    def __init__(self):
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in MATRICES:
            left, right = (args[index] for index in MATRICES[func])
            key = (tuple(left.shape), tuple(right.shape), left.stride(), right.stride(), left.dtype)
            self.found[key] += 1
        return func(*args, **(kwargs or {}))


def flops(product: Product) -> int:
    (*rows, inner), (*_, columns), *_ = product
    count = 2 * inner * columns
    for size in rows:
        count *= size
    return count


def operand(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Random numbers laid out so; an expanded matrix (stride 0) has its rows in common."""
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.randn(last + 1, dtype=dtype).as_strided(shape, strides)


def alone(product: Product, repeats: int = 5) -> float:
    """Seconds of one product by itself, the best of `repeats`."""
    left_shape, right_shape, left_strides, right_strides, dtype = product
    left, right = operand(left_shape, left_strides, dtype), operand(right_shape, right_strides, dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        torch.matmul(left, right)
        best = min(best, time.perf_counter() - started)
    return best


def measure(given: argparse.Namespace, precision: str) -> dict:
    counting = Products()

    def mark(epoch: int) -> dict:
        if epoch == given.epochs + 1:  # the last epoch is counted, and not timed
            counting.__enter__()
        return {}

    run = prepare.adapted(given, precision, AdaptConfig(epochs=given.epochs + 2), mark)
    counting.__exit__(None, None, None)
    timed = [run.history[epoch]["seconds"] - run.history[epoch - 1]["seconds"] for epoch in range(2, given.epochs + 2)]
    seconds = statistics.median(timed)
    total = sum(count * flops(product) for product, count in counting.found.items())
    floor = sum(count * alone(product) for product, count in counting.found.items())
    return {
        "epoch_s": seconds,
        "all_epochs_s": timed,
        "products": sum(counting.found.values()),
        "tflop": total / 1e12,
        "achieved_gflops": total / seconds / 1e9,
        "peak_gflops_at_these_shapes": total / floor / 1e9,
        "share_of_peak": floor / seconds,
    }


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="that are timed")
    parser.add_argument("--batch_size", type=int, default=16, help="documents of an update")
    prepare.add_lora_flags(parser)
    parser.add_argument("--json", type=Path, default=Path("results/bench/gemm.json"), help="file for the figures")
    given = parser.parse_args()
    keep_freed_memory()
    rows = {}
    for precision in prepare.precisions():
        rows[precision] = row = measure(given, precision)
        print(
            f"{precision}: epoch {row['epoch_s']:.2f} s, {row['tflop']:.2f} TFLOP in {row['products']} products, "
            f"{row['achieved_gflops']:.0f} of {row['peak_gflops_at_these_shapes']:.0f} GFLOP/s at these shapes: "
            f"{row['share_of_peak']:.0%} of the peak"
        )
    arguments = {key: str(value) for key, value in vars(given).items()}
    write_text(given.json, json.dumps({"arguments": arguments, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
