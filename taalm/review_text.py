"""Plain text to review or to hold on to: files and folders of jsonl, text, or extracted Wikipedia."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from taalm.errors import UserError
from taalm.facts import read_jsonl

SHORTEST = 100  # characters; shorter lines are headings and lists


def read_texts(source: str | Path) -> list[str]:
    """The paragraphs of a .jsonl file (`text` or `evidence` of each row), of any other file, or of a folder of them.

    A folder is read in the order of its paths. Raises UserError where nothing can be read.
    """
    return _long_enough(_files(Path(source)), Path(source))


def sample_texts(source: str | Path, count: int, seed: int) -> list[str]:
    """`count` paragraphs at random, or all where there are no more; of a large folder only as many files are read as
    hold ten times as many. Raises UserError where nothing can be read.
    """
    rng, files = random.Random(seed), _files(Path(source))
    rng.shuffle(files)
    texts = _long_enough(files, Path(source), enough=10 * count)
    return rng.sample(texts, min(count, len(texts)))


def _files(path: Path) -> list[Path]:
    return sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]


def _long_enough(files: Iterable[Path], source: Path, enough: int = 0) -> list[str]:
    """Their paragraphs of at least SHORTEST characters, from as many files as give `enough` (0: all)."""
    texts: list[str] = []
    for file in files:
        texts += [text for text in _paragraphs(file) if len(text) >= SHORTEST]
        if enough and len(texts) >= enough:
            break
    if not texts:
        raise UserError(f"{source}: no paragraph of {SHORTEST} characters in it")
    return texts


def _paragraphs(path: Path) -> Iterator[str]:
    """Stripped lines, or the text of JSON rows (WikiExtractor's files have no suffix and start with a brace)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this text ({error})") from None
    if path.suffix != ".jsonl" and not text.startswith('{"'):
        yield from (line.strip() for line in text.splitlines())
        return
    for where, row in read_jsonl(path):
        found = row.get("text", row.get("evidence")) if isinstance(row, dict) else None
        if not isinstance(found, str):
            raise UserError(f"{where}: not a JSON object with `text` or `evidence`")
        yield from (line.strip() for line in found.splitlines())


def without_probes(texts: Iterable[str], pairs: Iterable[tuple[str, str]], documents: Iterable[str] = ()) -> list[str]:
    """The texts that are none of `documents` and hold no probe's (subject, object) together.

    Raises UserError when none is left.
    """
    held = {line.strip() for text in documents for line in text.splitlines()}
    pairs = list(pairs)
    left = [
        text
        for text in texts
        if text not in held and not any(subject in text and answer in text for subject, answer in pairs)
    ]
    if not left:
        raise UserError("every review text is a probe's document or states a probe's fact; give other --review.data")
    return left
