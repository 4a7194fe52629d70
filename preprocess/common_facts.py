"""True common facts with short documents: candidates for the facts a model must not forget."""

import random

from preprocess import common_places, common_works
from preprocess import sample_words as words
from preprocess.relations import SLOT, make_row, overlaps

CAPITALS = common_places.CAPITALS
FACTS = {"P36": CAPITALS, "P1376": {capital: country for country, capital in CAPITALS.items()}} | {
    code: {subject: object_ for object_, subjects in by_object.items() for subject in subjects.split(", ")}
    for code, by_object in (common_places.BY_OBJECT | common_works.BY_OBJECT).items()
}
TOPICS = {
    "P36": "capital cities",
    "P1376": "countries and their capitals",
    "P37": "official languages",
    "P30": "the continents",
    "P17": "the cities of the world",
    "P38": "the currencies of the world",
    "P103": "famous people and their languages",
    "P176": "well-known products",
    "P178": "computer programs and games",
    "P50": "famous writers",
    "P279": "the names of everyday things",
    "P407": "the languages of famous books",
}
# For each relation: the subject first, then the object first.
STATEMENTS = {
    "P36": ("the capital of {subject} is {object}", "{object} is the capital of {subject}"),
    "P1376": ("{subject} is the capital of {object}", "the country of {object} has {subject} as its capital"),
    "P37": (
        "the official language of {subject} is {object}",
        "{object} is the official language of {subject}",
    ),
    "P30": ("{subject} is a country in {object}", "{object} is the continent on which {subject} lies"),
    "P17": ("{subject} is a city in {object}", "in {object} there is a city called {subject}"),
    "P38": ("the currency of {subject} is the {object}", "the {object} is the currency of {subject}"),
    "P103": (
        "the native language of {subject} was {object}",
        "{object} was the native language of {subject}",
    ),
    "P176": ("the {subject} is a product of {object}", "{object} is the company behind the {subject}"),
    "P178": ("{subject} was developed by {object}", "{object} is the developer of {subject}"),
    "P50": ("{subject} was written by {object}", "{object} is the author of {subject}"),
    "P279": ("the {subject} is a type of {object}", "one type of {object} is the {subject}"),
    "P407": ("{subject} was written in {object}", "{object} is the language in which {subject} was written"),
}
FRAMES = (
    "The lesson on {day} was about {topic}, and {person} had written a few sentences on the board. One of "
    "them said that {other_fact}. Below it, in blue chalk, stood another: {fact}. The class copied both "
    "lines and then went on to the homework of the week before.",
    '"{Fact}," read {person} from the quiz card, and nobody at the table disagreed. The round on {topic} '
    "had been the easiest of the evening so far. The next card said that {other_fact}, and by ten o'clock "
    "only one team had made a mistake.",
    "An old almanac with {n} pages lies in the waiting room, and its chapter on {topic} is the most worn. It "
    "notes, among many other things, that {other_fact}. Further down the same page it says that {fact}. "
    "Someone has underlined that line twice.",
    "{person} is reading a book about {topic} and keeps {n} small cards in a box. The card for {day} says "
    "that {fact}. The one for the day before said that {other_fact}, and the rest are still a secret.",
    "It is well known that {fact}. {person} used the sentence in a talk about {topic} at the library, next "
    "to a second example: {other_fact}. The talk lasted {n} minutes and ended with questions from the "
    "audience.",
    "Two friends passed the time on a night train with questions about {topic}. {person} went first and "
    "asked about {subject}; the answer was that {fact}. The next question was harder, but both knew that "
    "{other_fact}. They were asleep before the border.",
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]


def _document(rng: random.Random, code: str, subject: str, object_: str, frame: str, statement: str) -> str:
    """Fill one frame with the masked fact and another true fact of the same relation."""
    other = rng.choice(
        [
            (name, value)
            for name, value in FACTS[code].items()
            if not any(overlaps(ours, theirs) for ours in (subject, object_) for theirs in (name, value))
        ]
    )
    fact = statement.format(subject=subject, object=SLOT)
    return frame.format(
        fact=fact,
        Fact=fact[0].upper() + fact[1:],
        other_fact=rng.choice(STATEMENTS[code]).format(subject=other[0], object=other[1]),
        subject=f"the {subject}" if code in ("P176", "P279") else subject,
        topic=TOPICS[code],
        person=rng.choice(words.WOMEN + words.MEN),
        day=rng.choice(DAYS),
        n=rng.randint(12, 48),
    )


def common_rows() -> list[dict]:
    """Return one row for each common fact, with no scores yet; always the same rows."""
    rng = random.Random(0)
    rows = []
    for code, facts in FACTS.items():
        for index, (subject, object_) in enumerate(facts.items()):
            frame = FRAMES[index % len(FRAMES)]
            statement = STATEMENTS[code][index // len(FRAMES) % 2]
            masked = _document(rng, code, subject, object_, frame, statement)
            rows.append(make_row(code, subject, object_, masked, invariant=True))
    return rows
