"""Names in a text: runs of capitalised words, for languages that write names so, and what else a run may name."""

import re
from collections.abc import Iterable, Iterator, Sequence

from taalm.text import Span

LINK = r"of|the|de|von|van|du|da|di|del|la|le|&"
WORD = r"(?:(?:[A-Z]\.)+(?:-[A-Z]\.)?|(?:St|Jr|Sr|Dr|Mt)\.|[a-z]?[A-Z][\w'’-]*)"  # J. or R.-H. too, iPhone too
NUMBER = r"[0-9]+(?:\.[0-9]+)?(?!\w)"
NAME = re.compile(rf"(?<![\w'’.-]){WORD}(?:\s+(?:(?:{LINK})\s+){{0,2}}{WORD}|\s+{NUMBER})*")
WORDS = re.compile(r"\S+")
Words = Sequence[re.Match[str]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINKS = frozenset(LINK.split("|"))
ARTICLES = _words("The A An")  # they open a sentence, or a title: The Voyevoda
OPENERS = ARTICLES | _words(  # capitalised where they open a sentence, no part of a name
    "In On At He She It They His Her Its Their Our I We You This That These Those There After Before "
    "During From By For With And But Or As When While Since Also However Although Both Other Some Many Most One "
    "Two Three First Second"
)
DATES = _words(
    "January February March April May June July August September October November December Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday"
)
TITLES = _words(  # before a name, and mostly nobody's own: nobody asks about Bishop Raymond Gam
    "Sir Dame Lord Lady Dr Dr. Mr Mrs Ms Miss Professor Prof President Chancellor Minister Senator Governor Mayor "
    "Judge Justice King Queen Prince Princess Emperor Duke Duchess Count Baron Pope Cardinal Archbishop Bishop "
    "Father Brother Sister Reverend Rev Rabbi General Colonel Major Captain Lieutenant Admiral"
)
YEAR = re.compile(r"1[0-9]{3}|20[0-9]{2}")
POSSESSIVES = ("'s", "’s")
SHORTEST = 3  # characters of a name


def find_names(text: str) -> list[Span]:
    """The places of the names in a text: runs of capitalised words, without what only stands before or after a name.

    That is a word that opens a sentence, a title, a date, a possessive 's.
    """
    return [place for words in _runs(text) for place in _place(_trimmed(words))]


def names_apart(text: str, span: Span) -> list[Span]:
    """The places of the names that do not overlap the characters `span`, the nearest first.

    Names within a name are among them: what stands before and after an "of" or an 's, a title with its article or a
    name with its title, a product without its number. A run that overlaps `span` is cut there.
    """
    found: dict[Span, None] = {}
    for words in _runs(text):
        before = [word for word in words if word.end() <= span[0]]
        after = [word for word in words if word.start() >= span[1]]
        whole = len(words) in (len(before), len(after))
        for part in _readings(text, words) if whole else (_trimmed(before), _trimmed(after)):
            found |= dict.fromkeys(_place(part))
    return _nearest_first(found, span)


def nearest_names(text: str, span: Span, count: int) -> list[str]:
    """The `count` names nearest to the characters `span` that do not overlap it, each once, the nearest first."""
    apart = [(start, end) for start, end in find_names(text) if end <= span[0] or span[1] <= start]
    return list(dict.fromkeys(text[start:end] for start, end in _nearest_first(apart, span)))[:count]


def _nearest_first(places: Iterable[Span], span: Span) -> list[Span]:
    return sorted(places, key=lambda place: abs(place[0] - span[0]))


def _runs(text: str) -> Iterator[Words]:
    for run in NAME.finditer(text):
        yield list(WORDS.finditer(text, run.start(), run.end()))


def _trimmed(words: Words, leads: frozenset[str] = OPENERS | DATES | LINKS | TITLES) -> Words:
    first, last = 0, len(words)
    while first < last and (words[first][0] in leads or not any(map(str.isalpha, words[first][0]))):
        first += 1
    while first < last and (YEAR.fullmatch(words[last - 1][0]) or words[last - 1][0] in DATES | LINKS):
        last -= 1
    return words[first:last]


def _place(words: Words) -> list[Span]:
    """Where the words stand, without an 's at their end; nothing where that is too short for a name."""
    if not words:
        return []
    start, end = words[0].start(), words[-1].end() - 2 * words[-1][0].endswith(POSSESSIVES)
    return [(start, end)] if end - start >= SHORTEST else []


def _readings(text: str, words: Words) -> Iterator[Words]:
    """What a run of words may name: the whole, with its article or title, without its number, its parts."""
    whole = _trimmed(words)
    yield whole
    for index, word in enumerate(words[:-1]):
        if word[0] in ARTICLES and not (index == 0 and _opens_sentence(text, word.start())):
            yield _trimmed(words[index:], frozenset())
    yield _trimmed(words, OPENERS | DATES | LINKS)
    if len(whole) > 1 and re.fullmatch(NUMBER, whole[-1][0]):
        yield whole[:-1]
    part: list[re.Match[str]] = []
    for word in whole:
        if word[0] not in LINKS:
            part.append(word)
        if word[0] in LINKS or word[0].endswith(POSSESSIVES):
            yield _trimmed(part)
            part = []
    yield _trimmed(part)


def _opens_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip()
    return not before or before[-1] in '.!?:;"“('
