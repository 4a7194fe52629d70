"""Call a module with other tensors in the place of its parameters, by putting them in and taking them out again."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def injected(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block the named parameters of `model` are these tensors, in every module that shares them.

    Needs the patch (`replacement.overlay()` or an installed one). Raises KeyError for a name that is no parameter.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    unknown = sorted(set(tensors) - set(named))
    if unknown:
        raise KeyError(f"{type(model).__name__} has no parameter {unknown[0]}")
    wanted = {id(named[name]): tensor for name, tensor in tensors.items()}
    places = []
    for name, parameter in named.items():
        if id(parameter) in wanted:
            owner, _, attribute = name.rpartition(".")
            places.append((model.get_submodule(owner), attribute, parameter))
    try:
        for module, attribute, parameter in places:
            setattr(module, attribute, wanted[id(parameter)])
        yield
    finally:
        for module, attribute, parameter in places:
            setattr(module, attribute, parameter)


def injected_call(
    model: nn.Module, tensors: Mapping[str, Tensor], args: tuple = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """`torch.func.functional_call` by injection: the same arguments, the same result."""
    with injected(model, tensors):
        return model(*args, **(kwargs or {}))
