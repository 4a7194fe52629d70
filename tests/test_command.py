"""Run: pytest tests/test_command.py. `taalm COMMAND`, its completion, and what the wheel holds."""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module

import pytest

from taalm.__main__ import COMMANDS, completion, flags_of, main, module_of
from taalm.errors import UserError
from taalm.results import load_result
from tests.conftest import ONLINE_SAMPLE, ROOT


def test_every_command_is_listed_and_can_be_started(capsys):
    main([])
    said = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in said
        assert callable(import_module(module_of(name)).main)
    with pytest.raises(UserError, match=r"no command 'evaluat'; there are train_ta, evaluate,"):
        main(["evaluat"])
    with pytest.raises(UserError, match="no result files"):
        main(["results", str(ROOT / "docs")])


def test_flags_are_completed_in_a_real_shell(tmp_path):
    assert {"--adapt.lr", "--method", "--preset", "--config"} <= set(flags_of("evaluate"))
    assert "--outer.steps" in flags_of("train_ta") and "--documents" in flags_of("adapt_documents")
    bash = shutil.which("bash")
    script = tmp_path / "completion.bash"
    script.write_text(completion("bash"))
    for words, place, expected in (
        ("taalm ev", 1, "evaluate evaluate_twiki"),
        ("taalm train_ta --outer.warm", 2, "--outer.warm_start --outer.warmup_steps"),
        ("taalm completion z", 2, "zsh"),
    ):
        ask = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={place}; _taalm; echo "${{COMPREPLY[@]}}"'
        assert subprocess.run([bash, "-c", ask], capture_output=True, text=True, check=True).stdout.strip() == expected
    with pytest.raises(UserError, match="which shell"):
        main(["completion", "fish"])


def test_a_mistake_is_one_sentence_and_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "taalm", "adapt_documents", "nowhere.jsonl"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: nowhere.jsonl: cannot read this file")


def test_the_wheel_has_every_package():
    section = (ROOT / "pyproject.toml").read_text().partition("packages = [")[2].partition("]")[0]
    listed = set(re.findall(r'"([\w.]+)"', section))
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("taalm", "replacement")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert found <= listed


def test_an_installed_stream_starts_its_processes(t5_folder, tmp_path):
    """The wheel's files in a folder of their own, no run.py beside them; another run.py lies where it is started."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "taalm", site / "taalm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", site / "taalm" / "shipped" / "configs")
    (tmp_path / "run.py").write_text("raise SystemExit('not this one')")
    given = ("--ngpu", 2, "--device", "cpu", "--model", t5_folder, "--data", ONLINE_SAMPLE,
             "--dataset_version", "quarter", "--limit", 1, "--output_dir", tmp_path / "out")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "taalm", "run_online", *map(str, given)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_result(tmp_path / "out" / "result.pkl")["config"]["ngpu"] == 2
