"""Pictures of token weights: a self-contained HTML page, a PNG, and mean weights by part of speech and entity type."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt

from taalm.checkpoint import write_text
from taalm.errors import UserError
from taalm.facts import Span, read_jsonl
from taalm.plots.style import COLOURS, write
from taalm.text import Encoded, offsets

SHADE = (0, 114, 178)  # Okabe-Ito blue
OUTLINE = "#D55E00"  # and vermilion, told apart from it by colour-blind readers
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #fff; --text: #1a1a1a; --quiet: #595959; --card: #f6f6f6; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #161616; --text: #ededed; --quiet: #a9a9a9; --card: #222; }} }}
body {{ margin: 2rem auto; max-width: 90rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 16px/1.9 system-ui, sans-serif; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1rem; margin: 0 0 .4rem; }} p, figcaption {{ color: var(--quiet); }}
section {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }}
section {{ margin: .5rem 0 2rem; }}
figure {{ margin: 0; padding: .8rem 1rem; background: var(--card); border-radius: .5rem; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
.text span {{ border-radius: 2px; padding: .12em 0; }}
.text .dark {{ color: #fff; }}
.text .object {{ outline: 2px solid {outline}; outline-offset: -1px; }}
</style></head><body>
<h1>{title}</h1>
<p>The darker a token, the more it counts in the loss; hover for its weight (1 is the document's mean).
The object's tokens are outlined.</p>
{body}
</body></html>
"""


@dataclass(frozen=True)
class Weighed:
    """A document cut into tokens, with weights by several methods, all of the same length."""

    name: str
    text: str
    places: Sequence[Span]  # characters of every token
    object: Sequence[bool]
    weights: Mapping[str, Sequence[float]]

    def relative(self, method: str) -> list[float]:
        """Weights over their mean."""
        values = list(self.weights[method])
        mean = sum(values) / len(values)
        return [value / mean if mean else 0.0 for value in values]

    def shades(self, method: str) -> list[float]:
        """Weights over the greatest, 0 to 1."""
        values = list(self.weights[method])
        most = max(values)
        return [value / most if most else 0.0 for value in values]


class Unit(NamedTuple):
    """Characters that are shown together, and the tokens that they come from."""

    place: Span
    tokens: list[int]


def visible(text: str, places: Sequence[Span]) -> list[Unit]:
    """Tokens as they are seen: without the space before them; pieces of one character count as one."""
    units: list[Unit] = []
    for index, (start, end) in enumerate(places):
        if units and start < units[-1].place[1]:
            last = units.pop()
            units.append(Unit((last.place[0], max(end, last.place[1])), [*last.tokens, index]))
            continue
        seen = start + len(text[start:end]) - len(text[start:end].lstrip())
        units.append(Unit((seen if seen < end else start, end), [index]))
    return units


def weighed(tokenizer: Any, name: str, text: str, row: Encoded, weights: Mapping[str, Sequence[float]]) -> Weighed:
    """A document whose tokens after BOS have these weights; a document that was cut is shown as far as it was read."""
    return _shown(name, text, offsets(tokenizer, text, row), row.answer[1:], weights)


def _shown(
    name: str, text: str, places: Sequence[Span], answer: Sequence[bool], weights: Mapping[str, Sequence[float]]
) -> Weighed:
    """A document from its tokens' places, marks and weights."""
    units = visible(text, [tuple(place) for place in places])
    marked = [any(answer[i] for i in unit.tokens) for unit in units]
    entry = {method: [sum(values[i] for i in unit.tokens) for unit in units] for method, values in weights.items()}
    return Weighed(name, text, [unit.place for unit in units], marked, entry)


def snapshots_of(folder: Path) -> list[Weighed]:
    """The documents that a training run of phi watched, with their weights at each observed step.

    Raises UserError for damaged files; there are none where the run watched no document.
    """
    described = folder / "documents.json"
    if not described.is_file():
        return []
    try:
        documents = json.loads(described.read_text())
        rows = [row for _, row in read_jsonl(folder / "log.jsonl") if "snapshot" in row]
        return [
            _shown(
                document["name"], document["text"], document["places"], document["object"],
                {f"step {row['step']}": row["snapshot"][number] for row in rows},
            )
            for number, document in enumerate(documents)
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{described}: not what a training run writes ({error})") from None


def frame(documents: Sequence[Weighed], title: str = "Token weights", height: int = 40) -> str:
    """The page in a frame of its own, `height` em high, for a notebook."""
    inside = html.escape(page(documents, title), quote=True)
    return f'<div><iframe sandbox srcdoc="{inside}" style="width:100%;height:{height}em;border:0"></iframe></div>'


def _tokens(document: Weighed, method: str) -> str:
    parts, end = [], 0
    both = zip(document.places, document.object, document.relative(method), document.shades(method), strict=True)
    for (start, stop), marked, weight, shade in both:
        parts.append(html.escape(document.text[end:start]))
        kinds = [kind for kind, holds in (("object", marked), ("dark", shade > 0.55)) if holds]
        label = f' class="{" ".join(kinds)}"' if kinds else ""
        colour = f"rgb({SHADE[0]} {SHADE[1]} {SHADE[2]} / {shade:.3f})"
        token = html.escape(document.text[start:stop])
        title = html.escape(f"{document.text[start:stop].strip()}: {weight:.2f}", quote=True)
        parts.append(f'<span{label} style="background:{colour}" title="{title}">{token}</span>')
        end = stop
    return "".join([*parts, html.escape(document.text[end:])])


def page(documents: Sequence[Weighed], title: str = "Token weights") -> str:
    """The HTML page: a row of panels for every document, one panel for each method. All text is escaped."""
    body = []
    for document in documents:
        panels = [
            f'<figure><h2>{html.escape(method)}</h2><div class="text">{_tokens(document, method)}</div></figure>'
            for method in document.weights
        ]
        body.append(f"<p>{html.escape(document.name)}</p><section>{''.join(panels)}</section>")
    return PAGE.format(title=html.escape(title), outline=OUTLINE, body="\n".join(body))


def save_page(documents: Sequence[Weighed], path: Path, title: str = "Token weights") -> None:
    """Write the HTML page."""
    write_text(path, page(documents, title))


def picture(document: Weighed, path: Path, width: int = 92) -> None:
    """A PNG of one document, its methods below one another; `width` is the characters in a line."""
    lines = {method: _lines(document, method, width) for method in document.weights}
    rows = sum(len(found) + 1.6 for found in lines.values())
    figure = plt.figure(figsize=(width * 0.105 + 0.4, rows * 0.26 + 0.3))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(-1, width + 1)
    axis.set_ylim(rows + 0.4, -0.6)
    axis.axis("off")
    y = 0.2
    for method, found in lines.items():
        axis.text(0, y, method, fontsize=11, fontweight="bold", va="center")
        y += 1.1
        for line in found:
            for x, piece, shade, marked in line:
                box = plt.Rectangle(
                    (x, y - 0.45), len(piece), 0.9, facecolor=(*(part / 255 for part in SHADE), shade),
                    edgecolor=OUTLINE if marked else "none", linewidth=1.4, zorder=2 if marked else 1,
                )  # fmt: skip
                axis.add_patch(box)
                colour = "white" if shade > 0.55 else "black"
                for offset, letter in enumerate(piece):
                    axis.text(x + offset + 0.5, y, letter, fontsize=9.5, family="monospace", ha="center", va="center",
                              color=colour, zorder=3)  # fmt: skip
            y += 1
        y += 0.5
    write(figure, path)


def _lines(document: Weighed, method: str, width: int) -> list[list[tuple[int, str, float, bool]]]:
    """(column, characters, shade, object) of every token, in lines of at most `width` characters."""
    lines: list[list[tuple[int, str, float, bool]]] = [[]]
    x, end = 0, 0
    for (start, stop), marked, shade in zip(document.places, document.object, document.shades(method), strict=True):
        x += len(document.text[end:start].replace("\n", " "))
        piece = document.text[start:stop].replace("\n", " ")
        if x + len(piece) > width and lines[-1]:
            lines.append([])
            x = 0
        lines[-1].append((x, piece[:width], shade, marked))
        x, end = x + len(piece), stop
    return lines


def by_word_class(documents: Sequence[Weighed], pipeline: Any, path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Draw mean weights (1 is a document's mean) by part of speech and by entity type, as `pipeline` (spaCy) tags them.

    Returns {"part of speech" or "entity type": {method: {tag: mean weight}}}; tags of fewer than 3 tokens are left out.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {"part of speech": {}, "entity type": {}}
    for document, parsed in zip(documents, pipeline.pipe(d.text for d in documents), strict=True):
        tags = [_tag(parsed, place) for place in document.places]
        for method in document.weights:
            for (word, entity), weight in zip(tags, document.relative(method), strict=True):
                for kind, tag in (("part of speech", word), ("entity type", entity)):
                    found[kind].setdefault(method, {}).setdefault(tag, []).append(weight)
    means = {
        kind: {
            method: {tag: sum(v) / len(v) for tag, v in sorted(tags.items()) if tag and len(v) > 2}
            for method, tags in methods.items()
        }
        for kind, methods in found.items()
    }
    _bars(means, path)
    return means


def _tag(parsed: Any, place: Span) -> tuple[str, str]:
    """Part of speech and entity type of the word that a token's last character belongs to."""
    start = max(place[0], place[1] - 1)
    word = next((word for word in parsed if word.idx <= start < word.idx + len(word)), None)
    return (word.pos_, word.ent_type_ or "none") if word is not None else ("", "")


def _bars(means: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    figure, axes = plt.subplots(len(means), 1, figsize=(10, 3.6 * len(means)), layout="constrained")
    for axis, (kind, methods) in zip(axes, means.items(), strict=True):
        tags = sorted({tag for found in methods.values() for tag in found})
        step = 0.8 / max(1, len(methods))
        for number, (method, found) in enumerate(methods.items()):
            places = [index + number * step for index in range(len(tags))]
            axis.bar(
                places, [found.get(tag, 0.0) for tag in tags], step, label=method, color=COLOURS[number % len(COLOURS)]
            )
        axis.axhline(1, color="0.4", linewidth=0.8)
        axis.set_xticks([index + 0.4 - step / 2 for index in range(len(tags))], tags, rotation=45, ha="right")
        axis.set_ylabel("mean weight (document's mean = 1)")
        axis.set_title(f"by {kind}", loc="left")
    axes[0].legend()
    write(figure, path)
