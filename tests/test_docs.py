"""Run: pytest tests/test_docs.py. The Python of the documentation runs as it stands."""

import re

import pytest

from taalm import ablations, intervals, period_intervals
from tests.conftest import ROOT


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_lead_somewhere_and_examples_run(page, tmp_path, monkeypatch):
    text = (ROOT / "docs" / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):  # later blocks go on from earlier ones
        exec(compile(block, page, "exec"), names)
    if "trainer" in names:
        assert names["trainer"].state.global_step == 2


@pytest.mark.parametrize(
    ("page", "module", "row"),
    [
        ("README.md", intervals, "| targeted | 3 |"),
        ("docs/experiments.md", intervals, "| targeted | 3 |"),
        ("docs/temporal_wiki.md", period_intervals, "| targeted | 3 |"),
        ("docs/experiments.md", ablations, "| preset | 31.7"),
    ],
)
def test_the_results_table_of_a_page_is_what_its_command_prints(page, module, row, capsys):
    text = (ROOT / page).read_text()
    command = re.search(rf"^`?python -m {module.__name__} (docs/results/\S+) ([^`\n]*)", text, re.MULTILINE)
    module.main([str(ROOT / command[1]), *command[2].split()])
    printed = capsys.readouterr().out.strip()
    assert printed in text and row in printed
