"""A run's folder belongs to one configuration: going on with another one would mix two runs."""

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from taalm import processes
from taalm.checkpoint import plain, write_text, writing
from taalm.config import save_config
from taalm.errors import UserError
from taalm.out_of_memory import SAME_NUMBERS

INPUTS = "inputs.json"  # of a run's folder: digests of what the run reads


def flatten(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted flag names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


_locks: dict[Path, Any] = {}  # the folders that this process writes into


def _lock(folder: Path) -> None:
    """Keep other processes out of the folder until this one ends, however it ends. Raises UserError where one is in."""
    place = folder.resolve()
    if place in _locks:
        return
    with writing(folder):
        place.mkdir(parents=True, exist_ok=True)
        handle = (place / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise UserError(
            f"{folder}: another process is at work on this run; wait for it, or give this one another name"
        ) from None
    except OSError:  # a file system without locks
        handle.close()
        return
    _locks[place] = handle


def claim(folder: Path, config: Any, keep: Sequence[str] = (), inputs: Mapping[str, Any] | None = None) -> None:
    """Write `config` into the folder as config.yaml, or check that it is the one that lies there.

    The settings named in `keep` may differ (a run may be made longer), and so may those that only ask for less memory.
    `inputs` are what the run reads, by the flag that names it: what a file holds may not change under a run either.
    Raises UserError, naming the first setting that differs, for another run's folder. A setting that the run did not
    know counts as its default. A run that left nothing but its config.yaml holds no claim. While this process lives no
    other one can claim the folder.
    """
    path, digests = folder / "config.yaml", folder / INPUTS
    if processes.is_main():
        _lock(folder)
        if path.exists() and any(
            found not in (path, digests, folder / ".lock") and found.suffix != ".part" for found in folder.iterdir()
        ):
            _refuse_another(folder, path, config, keep)
        else:
            digests.unlink(missing_ok=True)
        same_inputs(folder, inputs or {})
        save_config(config, path)
    processes.wait()


def same_inputs(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Write digests of `inputs` (as in `claim`) into the folder. Raises UserError where others lie there."""
    read = {flag: _digest(held) for flag, held in inputs.items()}
    _refuse_changed(folder, folder / INPUTS, read)
    if read:
        write_text(folder / INPUTS, json.dumps(read, indent=1) + "\n")


def _digest(held: Any) -> str:
    return hashlib.sha256(held if isinstance(held, bytes) else repr(held).encode()).hexdigest()


def _refuse_changed(folder: Path, digests: Path, read: Mapping[str, str]) -> None:
    try:
        before = json.loads(digests.read_text(encoding="utf-8")) if digests.is_file() else {}
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise UserError(f"{digests}: not what a run has read; delete the folder to begin again")
    for flag, digest in read.items():
        if before.get(flag, digest) != digest:
            raise UserError(
                f"{folder} holds a run on other data: what --{flag} names has changed since; "
                "give this run another folder, or delete that one"
            )


def _refuse_another(folder: Path, path: Path, config: Any, keep: Sequence[str]) -> None:
    defaults, now = flatten(plain(asdict(type(config)()))), flatten(plain(asdict(config)))
    before = defaults | flatten(_settings(path))
    for key in sorted(set(before) | set(now)):
        if key not in (*keep, *SAME_NUMBERS) and before.get(key) != now.get(key):
            raise UserError(
                f"{folder} holds a run with --{key} {before.get(key)!r}, this one has {now.get(key)!r}; "
                "give this run another folder, or delete that one"
            )


def _settings(path: Path) -> dict:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = "no settings"
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
    raise UserError(f"{path}: not a run's configuration ({reason}); delete the folder to begin again")
