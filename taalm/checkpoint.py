"""Atomic files and resumable state: one safetensors file with tensors, and plain values as JSON in its header."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from taalm import processes
from taalm.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for another byte


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in writing `path` becomes a UserError that names it and says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if any(os.strerror(code) in reason for code in FULL):
            todo = "make room and run the same command again, what was written before is whole"
        else:
            todo = "name a place that can be written to"
        raise UserError(f"{path}: cannot write this file ({reason}); {todo}") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed over it when the block ends well, removed when it does not.

    Raises UserError where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        scratch = Path(name)
        try:
            yield scratch
            _replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """A folder to write files into; they replace those in `folder`, one by one, when the block ends well.

    Raises UserError where they cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                _replace(file, folder / file.name)


def _replace(scratch: Path, path: Path) -> None:
    """Rename a finished file over `path`, its bytes on the disk first."""
    with scratch.open("rb") as written:
        os.fsync(written.fileno())
    scratch.chmod(0o644)
    scratch.replace(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none of it. Raises UserError where it cannot be written."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, the whole file or none of it."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def save_state(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values into one file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(values)
    write_bytes(path, save(plain, metadata={"values": f"{text}\n{_sum(text, plain)}"}))


def load_state(path: Path, needed: Iterable[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote. Raises UserError for a missing, truncated or foreign file, or one without `needed`.

    Values, names and shapes that were changed after they were written are refused; the tensors' numbers have no sum.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text, _, told = (file.metadata() or {})["values"].partition("\n")
            values = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if told and told != _sum(text, tensors):  # the first versions wrote none
                raise ValueError("its header is not the one that was written")
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a whole checkpoint of taalm ({error}); it may be truncated: delete it") from None
    if lacking := [name for name in needed if name not in values]:
        raise UserError(f"{path}: a checkpoint of something else, without {lacking[0]!r}; take it away")
    return tensors, values


def _sum(text: str, tensors: Mapping[str, Tensor]) -> str:
    shapes = [(name, str(value.dtype), list(value.shape)) for name, value in sorted(tensors.items())]
    return hashlib.sha256(f"{text}{shapes}".encode()).hexdigest()


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_parameters(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved values into parameters. Raises UserError where names or shapes differ: another model's checkpoint."""
    missing, extra = sorted(set(parameters) - set(saved)), sorted(set(saved) - set(parameters))
    shapes = [name for name in parameters if name in saved and parameters[name].shape != saved[name].shape]
    if missing or extra or shapes:
        example = (missing or extra or shapes)[0]
        raise UserError(
            f"{path}: the checkpoint of another model: {len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape (for example {example})"
        )
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(processes.like(saved[name], value))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's tensors by flat names `optimizer/<index>/<key>`."""
    found = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            found[f"optimizer/{index}/{key}"] = torch.as_tensor(value)
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; settings such as the learning rate stay the optimizer's own."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in under(saved, "optimizer/").items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = processes.like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def plain(value: Any) -> Any:
    """Tuples, paths and restricted numbers as YAML, JSON and pickles know them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):  # jsonargparse's PositiveInt is a class of its own
        if isinstance(value, kind):
            return kind(value)
    return str(value) if isinstance(value, Path) else value
