"""Plain text to review or to hold on to: files and folders of jsonl, text, or extracted Wikipedia."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from taalm.errors import UserError
from taalm.facts import Fact

SHORTEST = 100  # characters; shorter lines are headings and lists


def read_texts(source: str | Path) -> list[str]:
    """The paragraphs of a .jsonl file (`text` or `evidence` of each row), of any other file, or of a folder of them.

    A folder is read in the order of its paths. Raises UserError where nothing can be read.
    """
    path = Path(source)
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    texts = [text for file in files for text in _paragraphs(file) if len(text) >= SHORTEST]
    if not texts:
        raise UserError(f"{path}: no paragraph of {SHORTEST} characters in it")
    return texts


def _paragraphs(path: Path) -> Iterator[str]:
    """Stripped lines, or the text of JSON rows (WikiExtractor's files have no suffix and start with a brace)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this text ({error})") from None
    if path.suffix != ".jsonl" and not (lines and lines[0].startswith('{"')):
        yield from (line.strip() for line in lines)
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["text"] if "text" in row else row["evidence"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: not a JSON object with `text` or `evidence`") from None
        yield from (part.strip() for part in str(text).splitlines())


def without_probes(texts: Iterable[str], probes: Iterable[Fact]) -> list[str]:
    """The texts that are no probe's document and hold no probe's subject and object together.

    Raises UserError when none is left.
    """
    probes = list(probes)
    documents = {line.strip() for fact in probes for line in fact.evidence.splitlines()}
    left = [
        text
        for text in texts
        if text not in documents and not any(fact.subject in text and fact.object in text for fact in probes)
    ]
    if not left:
        raise UserError("every review text is a probe's document or states a probe's fact; give other --review.data")
    return left
