"""`python -m replacement {status,install,restore}`, or `python -m replacement run script.py ...` for one process."""

import argparse
import runpy
import sys
from pathlib import Path

from replacement.overlay import module_file, overlay
from replacement.patch import MARK, PatchError, patched
from taalm.checkpoint import write_text
from taalm.errors import UserError

SUFFIX = ".taalm-original"


def status(file: Path) -> str:
    """original, patched, or patched without its backup."""
    backup = file.with_name(file.name + SUFFIX)
    if MARK not in file.read_text():
        return "original"
    return "patched" if backup.exists() else "patched, but its backup is gone; reinstall torch to restore it"


def install(file: Path) -> str:
    """Patch the file; the original stays beside it."""
    source = file.read_text()
    text = patched(source)
    compile(text, str(file), "exec")
    write_text(file.with_name(file.name + SUFFIX), source)
    write_text(file, text)
    return "patched"


def restore(file: Path) -> str:
    """Put the original back."""
    backup = file.with_name(file.name + SUFFIX)
    if MARK not in file.read_text():
        return "original"
    if not backup.exists():
        raise PatchError(f"there is no {backup.name} beside it; reinstall torch to restore it")
    write_text(file, backup.read_text())
    backup.unlink()
    return "original"


ACTIONS = {"status": status, "install": install, "restore": restore}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["run"] and len(arguments) > 1:
        try:
            overlay()
        except PatchError as error:
            print(f"error: {module_file()}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path(arguments[1]).resolve().parent))  # as Python does for a script
        runpy.run_path(arguments[1], run_name="__main__")
        return
    parser = argparse.ArgumentParser(prog="python -m replacement", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--file", type=Path, default=module_file(), help="another module.py than the installed one")
    given = parser.parse_args(arguments)
    try:
        print(f"{given.file}: {ACTIONS[given.action](given.file)}")
    except (PatchError, UserError, OSError) as error:
        print(f"error: {given.file}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
