"""Command lines: defaults < preset < YAML file < flags. An unknown key fails and names its nearest neighbour."""

import difflib
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from taalm import out_of_memory, processes, stopping
from taalm.checkpoint import FULL, plain, write_text
from taalm.errors import UserError

_SOURCE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (_SOURCE / "configs").is_dir()
ROOT = _SOURCE if IS_CHECKOUT else Path.cwd()  # an installed package keeps its data where it is run
SHIPPED = _SOURCE if IS_CHECKOUT else Path(__file__).parent / "shipped"  # what comes with the project
CONFIGS = SHIPPED / "configs"

Config = TypeVar("Config")
_parsed: Any = None  # this process's latest configuration, for proposals that name its flags


def preset_file(entry: str, preset: str) -> Path:
    """configs/<entry>/<preset>.yaml. Raises UserError, listing the presets, for an unknown one."""
    path = CONFIGS / entry / f"{preset}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in (CONFIGS / entry).glob("*.yaml"))
        raise UserError(f"unknown preset {preset!r} for {entry}; the presets are {', '.join(known)}")
    return path


def make_parser(config: type, prog: str, presets: bool) -> ArgumentParser:
    """A parser with a flag for every field of the dataclass; the fields' docstrings are its help."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=prog, description=(config.__doc__ or "").strip(), exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="A YAML or JSON file with any of the fields below.")
    if presets:
        parser.add_argument("--preset", help="A file of configs/ by name; PRESET in the environment does the same.")
    parser.add_class_arguments(config)
    return parser


def parse(config: type[Config], entry: str | None, arguments: Sequence[str], prog: str) -> Config:
    """The dataclass `config` from a command line. `entry` is the folder of presets that belong to it, if any do.

    Raises UserError for unknown keys, values of the wrong type, an unknown preset.
    """
    parser = make_parser(config, prog, presets=entry is not None)
    files, flags = _files_first(arguments)
    preset = [f"--config={preset_file(entry, _preset(flags))}"] if entry else []
    try:
        values = parser.instantiate_classes(parser.parse_args([*preset, *files, *flags]))
    except ArgumentError as error:
        raise UserError(_explain(str(error), parser)) from None
    except (TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"a configuration cannot be read: {' '.join(str(error).split())}") from None
    values.pop("config", None)
    if values.pop("preset", None) and not any(flag.startswith("--preset") for flag in flags):
        raise UserError("'preset' is no key of a --config file; pass --preset, or set PRESET")
    found = config(**vars(values))
    _refuse_nulls(asdict(found), asdict(config()))
    global _parsed
    _parsed = found
    return found


def from_values(config: type[Config], values: object) -> Config:
    """The dataclass `config` from values that a file holds. Raises UserError for values that its fields do not take."""
    try:
        found = vars(make_parser(config, "", presets=False).parse_object(values))
    except (ArgumentError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(" ".join(str(error).split())) from None
    found.pop("config", None)
    return config(**found)


def _refuse_nulls(found: dict, defaults: dict, prefix: str = "") -> None:
    """Raises UserError for a null where the default is a value: YAML and JSON can write it, no key means it."""
    for key, value in found.items():
        if isinstance(value, dict) and isinstance(defaults[key], dict):
            _refuse_nulls(value, defaults[key], f"{prefix}{key}.")
        elif value is None and defaults[key] is not None:
            raise UserError(f"--{prefix}{key}: null is no value for it; leave the key out for its default")


def _files_first(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The --config arguments, and the rest: flags are stronger than files wherever they stand."""
    files, flags, rest = [], [], iter(arguments)
    for argument in rest:
        if argument == "--config":
            files += [argument, next(rest, "")]
        else:
            (files if argument.startswith("--config=") else flags).append(argument)
    return files, flags


def _preset(arguments: Sequence[str]) -> str:
    """The preset that the command line names (the last one counts), else PRESET, else the packaged model's."""
    preset = os.environ.get("PRESET") or "smollm2-135m"
    for index, argument in enumerate(arguments):
        if argument == "--preset" or argument.startswith("--preset="):
            preset = argument.partition("=")[2] or "".join(arguments[index + 1 : index + 2])
    return preset


def _explain(message: str, parser: ArgumentParser) -> str:
    """The parser's message in one sentence, with the nearest flag for an unknown one."""
    known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
    message = " ".join(message.split())
    flag = re.search(r"unrecognized arguments: --([\w.-]+)", message)
    nested = re.search(r"Group '([\w.-]+)' does not accept option '([\w.-]+)'", message)
    top = re.search(r"(?:[Kk]ey|[Oo]ption) '([\w.-]+)'", message)
    unknown = f"{nested[1]}.{nested[2]}" if nested else flag[1] if flag else top[1] if top else None
    if unknown:
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        hint = f"; did you mean --{near[0]}?" if near else ""
        return f"unknown key --{unknown}{hint} (--help lists all keys)"
    return message


class _Dumper(yaml.SafeDumper):
    """Quotes text that some YAML readers take for a number (1e3)."""

    def represent_text(self, text: str) -> yaml.Node:
        style = '"' if re.fullmatch(r"[-+.\de_]+", text, re.IGNORECASE) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def save_config(config: Any, path: Path) -> None:
    """Write the resolved configuration as YAML that --config reads again."""
    write_text(path, yaml.dump(plain(asdict(config)), Dumper=_Dumper, sort_keys=False))


def _reader_left() -> bool:
    """Whether what reads our output has read enough, as `| head` does."""
    if sys.stdout is not sys.__stdout__:
        return False
    waiting = select.poll()
    waiting.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def _drop_output() -> None:
    """What could not be printed is not tried again at the program's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_entry(main: Callable[[list[str]], None]) -> None:
    """Run an entry point: errors that the user can fix become one sentence on stderr and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stopping.listen()
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        _refuse(str(error))
    except BrokenPipeError:
        if not _reader_left():
            raise
        _drop_output()
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        if error.filename is None and sys.stdout is sys.__stdout__:
            _drop_output()
        _refuse(f"{error.filename or 'what this command prints'}: {error.strerror}; make room and run it again")
    except (RuntimeError, MemoryError) as error:
        if out_of_memory.is_out_of_memory(error):
            _refuse(out_of_memory.proposal(error, _parsed))
        if not processes.lost_another(error):
            raise
        reason = str(error).strip().splitlines()[0]
        print(
            f"error: process {processes.rank()} lost another process of this run ({reason}). What was saved is whole: "
            "run the same command again to go on",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(1)  # a process group with a dead member cannot be closed in order
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2) from None
