"""A folder of results as one HTML page and Markdown: `python -m taalm.report results/lamackl`.

report.html holds everything in one file (pictures, token weights of results/weights if they are there); report.md names
pictures that lie beside it in report/.
"""

import argparse
import base64
import html
import io
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import transformers
from matplotlib.figure import Figure

from taalm.checkpoint import write_bytes, write_text
from taalm.config import ROOT, run_entry
from taalm.errors import UserError
from taalm.plots.kinds import pictures
from taalm.results import Result, some_results, table
from taalm.run_folder import flatten

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 2rem auto; max-width: 80rem; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }}
td, th {{ border-bottom: 1px solid #8886; padding: .2rem .6rem; text-align: right; white-space: nowrap; }}
td:first-child, th:first-child {{ text-align: left; }}
img {{ max-width: 100%; background: #fff; }} iframe {{ width: 100%; height: 40rem; border: 0; }}
</style></head><body>
{body}
</body></html>
"""

Rows = list[list[str]]


def numbers(results: Mapping[str, Result]) -> Rows:
    """The table's cells, its title row first."""
    lines = [line for line in table(dict(results)).splitlines() if not set(line) <= set("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def settings(results: Mapping[str, Result]) -> Rows:
    """What the results' configurations differ in: a row for each setting that is not the same everywhere."""
    flat = {name: flatten(result.get("config", {})) for name, result in results.items()}
    keys = sorted({key for values in flat.values() for key in values})
    differing = [key for key in keys if len({str(values.get(key)) for values in flat.values()}) > 1]
    return [["setting", *flat], *([key, *(str(values.get(key, "")) for values in flat.values())] for key in differing)]


def made_with() -> Rows:
    """Commit, versions and hardware of this machine."""
    asked = ["git", "describe", "--always", "--dirty"]
    there = shutil.which("git") is not None
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip() if there else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return [
        ["what", "this report was made with"],
        ["commit", commit or "not a git checkout"],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
        ["machine", f"{platform.system()} {platform.machine()}, {device}"],
    ]


def _markdown(rows: Rows) -> str:
    shown = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in shown]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _html(rows: Rows) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:]) + "</table>"


def _png(figure: Figure) -> bytes:
    found = io.BytesIO()
    figure.savefig(found, format="png", dpi=110)
    plt.close(figure)
    return found.getvalue()


def report(results: Mapping[str, Result], folder: Path, weights: Path | None) -> None:
    """Write report.html, report.md and report/*.png into the folder."""
    title = f"Results in {folder.name}"
    tables: dict[str, Any] = {"Numbers": numbers(results), "Settings": settings(results), "Made with": made_with()}
    drawn = {name: _png(draw(results)) for name, draw in pictures(results).items()}
    body, text = [f"<h1>{html.escape(title)}</h1>"], [f"# {title}"]
    for heading, rows in tables.items():
        body += [f"<h2>{heading}</h2>", _html(rows)]
        text += [f"## {heading}", _markdown(rows)]
        if heading == "Numbers":
            for name, data in drawn.items():
                write_bytes(folder / "report" / f"{name}.png", data)
                body.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}">')
                text.append(f"![{name}](report/{name}.png)")
    if weights is not None:
        shown = html.escape(weights.read_text(encoding="utf-8"), quote=True)
        body += ["<h2>Token weights</h2>", f'<iframe sandbox srcdoc="{shown}" title="token weights"></iframe>']
        text.append(f"Token weights: {weights.name}")
    write_text(folder / "report.html", PAGE.format(title=html.escape(title), body="\n".join(body)))
    write_text(folder / "report.md", "\n\n".join(text) + "\n")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.report", description="A folder of results as a page.")
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--weights", type=Path, default=None, help="a page of taalm.weigh to put in")
    given = parser.parse_args(arguments)
    results = some_results(given.folder)
    if given.weights is not None and not given.weights.is_file():
        raise UserError(f"--weights {given.weights}: no such page; python -m taalm.weigh makes one")
    report(results, given.folder, given.weights)
    print(f"report in {given.folder / 'report.html'} and report.md")


if __name__ == "__main__":
    sys.exit(run_entry(main))
