"""Sentences for Wikidata relations, from a CSV file with the columns Wikidata ID, Relation and Template."""

import csv
from pathlib import Path
from typing import NamedTuple

from taalm.errors import UserError


class Template(NamedTuple):
    """A relation's code and its sentence with `<subject>` and `<object>` in it."""

    code: str
    sentence: str

    def fill(self, subject: str, object_: str) -> str:
        return self.sentence.replace("<subject>", subject).replace("<object>", object_)


def read_templates(path: Path) -> dict[str, Template]:
    """relation label -> its template; rows that do not name both places once are left out. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            row["Relation"]: Template(row["Wikidata ID"], row["Template"])
            for row in rows
            if row["Template"].count("<subject>") == 1 and row["Template"].count("<object>") == 1
        }
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file ({error})") from None
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: expected the columns Wikidata ID, Relation and Template") from None
