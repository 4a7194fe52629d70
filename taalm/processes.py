"""Several processes (torchrun, accelerate launch): who does what, sums over all of them, rows gathered from all.

Without a launcher there is one process and all of this is the identity. Work is dealt out by position, so nothing is
padded and nothing counted twice; every process ends up with the same numbers, and only the main one writes.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

Item, Part = TypeVar("Item"), TypeVar("Part")


def start(device: str) -> None:
    """Join the other processes, if a launcher started any; all but the main one stop printing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
        if not state.is_main_process:
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (to the end of the process)


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def deal(items: Sequence[Item]) -> list[Item]:
    """What this process gets of work that all of them know: every count-th item."""
    return list(items[rank() :: count()])


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before the others: it makes a file, they find it."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def wait() -> None:
    """Go on when all processes are here."""
    if count() > 1:
        dist.barrier()


def in_step(items: Sequence[Item], cut: Callable[[list[Item]], list[Part]] = list) -> list[tuple[Part, bool]]:
    """This process's parts of some work, each with True, then repeats with False until it has as many as any other.

    The items are dealt out and what each process has is `cut` into parts. A sharded model computes only when all
    processes go through it together, so the repeats are run and their results left out.
    """
    dealt = [cut(list(items[process :: count()])) for process in range(count())]
    mine, most = dealt[rank()], max(map(len, dealt))
    spare = next((parts[0] for parts in (mine, *dealt) if parts), None)
    return [(part, True) for part in mine] + [(spare, False)] * (most - len(mine))


def gather(mine: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries of all processes' dictionaries in one."""
    if count() == 1:
        return dict(mine)
    return {key: value for part in gather_object([dict(mine)]) for key, value in part.items()}


@torch.no_grad()
def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum the gradients over the processes, by one exchange for each type of number.

    A parameter that this process did not use counts with 0; a sharded one has its sum from the backward pass.
    """
    if count() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_type.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))


def totals(*values: float) -> list[float]:
    """The sum of each number over the processes, by one exchange."""
    if count() == 1:
        return list(values)
    return [sum(column) for column in zip(*gather_object([values]), strict=True)]


def lost_another(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process is gone."""
    return dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, gathered from all processes (all must ask); another tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def collect(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU, in the main process only; gathered one by one, so that no card holds them all."""
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor.detach())
        if is_main():
            found[name] = gathered.cpu()
    return found


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor, in shards if `reference` is a sharded tensor of the same shape."""
    if not isinstance(reference, DTensor) or tensor.shape != reference.shape:
        return tensor
    return distribute_tensor(tensor.to(reference.device), reference.device_mesh, reference.placements)
