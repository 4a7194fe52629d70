"""Names in a text: runs of capitalised words, for languages that write names so."""

import re

from taalm.text import Span

LINKS = "of|the|de|von|van|du|da|di|del|la|le|&"
NAME = re.compile(rf"[A-Z][\w'’-]*(?:\s+(?:(?:{LINKS})\s+){{0,2}}[A-Z0-9][\w'’-]*)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPENERS = _words(  # capitalised where they open a sentence, no part of a name
    "The A An In On At He She It They His Her Its Their Our I We You This That These Those There After Before "
    "During From By For With And But Or As When While Since Also However Although Both Other Some Many Most One "
    "Two Three First Second"
)
DATES = _words(
    "January February March April May June July August September October November December Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday"
)
TITLES = _words(  # before a name, and nobody's own: nobody asks about Bishop Raymond Gam
    "Sir Dame Lord Lady Dr Mr Mrs Ms Miss Professor Prof President Chancellor Minister Senator Governor Mayor "
    "Judge Justice King Queen Prince Princess Emperor Duke Duchess Count Baron Pope Cardinal Archbishop Bishop "
    "Father Brother Sister Reverend Rev Rabbi General Colonel Major Captain Lieutenant Admiral"
)
LEADS = OPENERS | DATES | TITLES
SHORTEST = 3  # characters of a name


def find_names(text: str) -> list[Span]:
    """The places of the names in a text: runs of capitalised words, without what only stands before or after a name.

    That is a word that opens a sentence, a title, a date, a possessive 's.
    """
    found = []
    for match in NAME.finditer(text):
        words = list(re.finditer(r"\S+", match[0]))
        while words and _leads(words[0][0]):
            words.pop(0)
        while words and (words[-1][0].isdigit() or words[-1][0] in DATES):
            words.pop()
        if words:
            start, end = words[0].start(), words[-1].end() - 2 * words[-1][0].endswith(("'s", "’s"))
            if end - start >= SHORTEST:
                found.append((match.start() + start, match.start() + end))
    return found


def _leads(word: str) -> bool:
    return word in LEADS or not word[0].isupper()


def names_apart(text: str, span: Span) -> list[Span]:
    """The places of the names that do not overlap the characters `span`, the nearest first."""
    apart = [(start, end) for start, end in find_names(text) if end <= span[0] or span[1] <= start]
    return sorted(apart, key=lambda place: abs(place[0] - span[0]))


def nearest_names(text: str, span: Span, count: int) -> list[str]:
    """The `count` names nearest to the characters `span` that do not overlap it, each once, the nearest first."""
    return list(dict.fromkeys(text[start:end] for start, end in names_apart(text, span)))[:count]
