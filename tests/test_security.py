"""Run: pytest tests/test_security.py. Nothing that a user is handed (models, archives, texts, names) runs code here.

Hostile result files are in tests/test_results.py, changed weights of the packaged model in tests/test_packaged.py.
"""

import ast
import json
import re
import socket
import stat
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, dynamic_module_utils

from taalm import adapt_documents, evaluate, report, run_online, train_ta, weigh
from taalm.benchmarks.online_wiki import read_lessons
from taalm.download import download, unpack
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.heatmap import Weighed, frame, page
from taalm.models.base import ModelConfig, load_theta, load_tokenizer
from taalm.results import save_result
from tests.conftest import ONLINE_SAMPLE, ROOT, tiny_llama
from tests.test_disk import commands
from tests.test_report import lama
from tests.test_results import Hostile

FOLDERS = ("taalm", "preprocess", "replacement", "scripts")
SOURCES = [ROOT / "run.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
TEXT = (ast.Constant, ast.JoinedStr, ast.BinOp)
REFUSED = {  # calls by the end of their name
    "eval", "exec", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "torch.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "extractall", "extract", "unpack_archive", "tarfile.open",
    "mktemp",
}  # fmt: skip
BUILTIN = {"eval", "exec", "__import__"}  # a method of such a name is another thing
NETWORK = {"urllib", "http", "socket", "requests", "httpx", "huggingface_hub", "ftplib"}
ALLOWED = {  # the overlay compiles torch's own source, patched; one module downloads
    ("replacement/overlay.py", "exec"), ("taalm/download.py", "imports http"), ("taalm/download.py", "imports urllib")
}  # fmt: skip


def dangers(source: str) -> set[str]:
    """What a program has in it that could run or fetch what a user did not ask for."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found |= {f"imports {name.split('.')[0]}" for name in named if name.split(".")[0] in NETWORK}
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "shell", "weights_only"):
            safe = node.arg == "weights_only"
            if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                found.add(node.arg)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {name for name in REFUSED if called == name}
            found |= {name for name in REFUSED - BUILTIN if called.endswith(f".{name}")}
            if re.fullmatch(r"subprocess\.\w+", called) and isinstance(node.args[0], TEXT):
                found.add("a command line as text")
    return found


def test_no_program_text_no_shell_no_foreign_code_no_second_way_to_the_network():
    found = {(str(path.relative_to(ROOT)), danger) for path in SOURCES for danger in dangers(path.read_text())}
    assert len(SOURCES) > 80 and found == ALLOWED


@pytest.mark.parametrize(
    ("source", "found"),
    [("eval(x)", "eval"), ("os.system(x)", "os.system"), ("a.load(x, trust_remote_code=y)", "trust_remote_code"),
     ("subprocess.run(f'ls {x}')", "a command line as text"), ("subprocess.run(x, shell=True)", "shell"),
     ("z.extractall(x)", "extractall"), ("import urllib.request", "imports urllib"), ("torch.load(x)", "torch.load"),
     ("from http import client", "imports http"), ("yaml.load(x)", "yaml.load")],
)  # fmt: skip
def test_the_search_finds_them(source, found):
    assert found in dangers(source)


@pytest.mark.parametrize("kind", ["a model of its own", "a known model"])
def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(kind, tokenizer, tmp_path, monkeypatch):
    folder, trace = tmp_path / "model", tmp_path / "trace"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    described["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    if kind == "a model of its own":
        described["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(described))
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    tokens["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nfrom transformers import PretrainedConfig\nPath({str(trace)!r}).touch()\n"
        "class Evil(PretrainedConfig):\n    model_type = 'evil'\n"
    )
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked somebody"))
    config = ModelConfig(name=str(folder), r=2, device="cpu", precision="fp32")
    if kind == "a model of its own":
        with pytest.raises(UserError, match=f"cannot load AutoConfig from '{folder}'"):
            load_theta(config)
    else:
        load_theta(config)
    assert not trace.exists()
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert trace.exists()  # it does bite


def test_weights_that_are_a_pickle_with_code_are_refused(tokenizer, tmp_path):
    folder, trace = tmp_path / "model", tmp_path / "trace"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Hostile(f"touch {trace}")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load AutoModelForCausalLM"):
        load_theta(ModelConfig(name=str(folder), r=2, device="cpu"))
    assert not trace.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert trace.exists()  # it does bite


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/taalm-outside", "in/../../outside", "..", "in/link/../../../outside"]
)
def test_an_archive_with_a_name_outside_writes_nothing_at_all(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("good", "x")
        out.writestr(name, "x")
    with pytest.raises(UserError, match="would be written outside"):
        unpack(path, tmp_path / "in")
    assert [found.name for found in tmp_path.iterdir()] == ["a.zip"]


def test_links_of_an_archive_are_not_made(tmp_path):
    """A link to a folder outside, and a file that would go through it."""
    path, outside = tmp_path / "a.zip", tmp_path / "outside"
    outside.mkdir()
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(link, str(outside))
        out.writestr("link/file", "x")
    with pytest.raises(UserError, match="cannot write this file"):
        unpack(path, tmp_path / "in")
    assert not any(outside.iterdir()) and not (tmp_path / "in" / "link").is_symlink()


EVIL = '</span></script><script>alert(1)</script><img src=x onerror=alert(1)>" onmouseover="alert(1)\' & |'


class Elements(HTMLParser):
    """The elements of a page, those in its frames too, the text outside style, and everything suspicious."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.shown, self.bad = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        for name, value in attributes:
            if name == "srcdoc":
                inner = Elements(value)
                self.bad += inner.bad
                self.names |= inner.names
                self.shown += inner.shown
            outward = name in ("src", "href") and not (value or "").startswith("data:image/png;base64,")
            if name.startswith("on") or outward or tag in ("script", "object", "embed", "form", "base", "link"):
                self.bad.append((tag, name, value))

    def handle_data(self, data):
        self.shown.append(data)


def test_pages_of_weights_show_hostile_text_as_text():
    places = [(start, min(start + 7, len(EVIL))) for start in range(0, len(EVIL), 7)]
    ones = [1.0] * len(places)
    document = Weighed(EVIL, EVIL, places, [False] * len(places), {EVIL: ones, "oracle": ones})
    for made in (page([document], EVIL), frame([document], EVIL)):
        found = Elements(made)
        assert not found.bad and not found.names & {"script", "img"}
        assert "".join(found.shown).count("alert(1)") == 3 * (2 + 2 * 1 + 2)  # title twice, name, one method, two texts


def test_reports_show_hostile_names_and_settings_as_text(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    for number, name in enumerate(("plain", "<script>alert(1)<")):
        result = lama(EVIL, number)
        result["config"]["note"] = EVIL * number
        result["framing"][EVIL] = {"top_acc": 0.0}
        save_result(folder / f"{name}.pkl", result)
    (tmp_path / "weights.html").write_text("<p>weights</p>")
    report.main([str(folder), "--weights", str(tmp_path / "weights.html")])
    found = Elements((folder / "report.html").read_text())
    assert not found.bad and "script" not in found.names
    assert EVIL in "".join(found.shown) and "weights" in found.shown
    assert (
        "<script" not in (folder / "report.md").read_text()
        and "<iframe sandbox " in (folder / "report.html").read_text()
    )


@pytest.fixture
def calls(monkeypatch) -> list:
    """What is asked of the network; every attempt fails."""
    asked = []

    def refuse(*what, **_):
        asked.append(what)
        raise OSError("no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("TAALM_DATA", raising=False)
    return asked


def test_nothing_reaches_the_network_until_a_name_asks_for_it(tiny_folder, sample_folder, tmp_path, calls, monkeypatch):
    mains = {"evaluate": evaluate, "train_ta": train_ta, "adapt_documents": adapt_documents, "run_online": run_online}
    for name, module in mains.items():
        module.main(list(map(str, commands(tiny_folder, sample_folder, tmp_path / name)[name][1:])))
    weigh.main(["--text", "Ana lives here.", "--model.name", str(tiny_folder), "--out", str(tmp_path), "--methods",
                "[surprisal]", "--quiet", "true"])  # fmt: skip
    read_facts(sample_folder / "to_learn.jsonl")
    read_lessons(ONLINE_SAMPLE / "day" / "datesorted_train.jsonl")
    assert calls == []
    monkeypatch.setattr("time.sleep", lambda _: None)  # the hub's client tries again and again
    with pytest.raises(UserError, match="cannot load"):
        load_tokenizer("taalm-tests/no-such-model")
    assert calls
    calls.clear()
    with pytest.raises(UserError, match="cannot be reached"):
        download("http://example.org/a.zip", Path(tmp_path / "a.zip"))
    assert calls
