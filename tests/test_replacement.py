"""Run: pytest tests/test_replacement.py. The patch in processes of its own; the installed torch stays as it is."""

import hashlib
import subprocess
import sys

import pytest

from replacement.__main__ import main
from replacement.overlay import module_file
from replacement.patch import MARK, PatchError, patched
from tests.conftest import ROOT

SAME_NUMBERS = """
import torch, replacement
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Theta
from taalm.models.split import SplitModel
from tests.meta.test_hypergradient import base, lesson, weights_for

layer = torch.nn.Linear(2, 2)
try:
    replacement.injected_call(layer, {"weight": torch.ones(2, 2)}, (torch.ones(1, 2),))
    raise SystemExit("a plain tensor was taken without the patch")
except TypeError:
    assert isinstance(layer.weight, torch.nn.Parameter)
replacement.overlay()
replacement.overlay()
for kind in ("llama", "gpt2", "llama-lora"):
    model, taught = base(kind), lesson("right")
    weights = weights_for(taught.documents)
    theta = Theta(model, InnerConfig(lr=1e-2, steps=2), ObjectiveConfig())
    plain = theta.hypergradient(HYPERGRADIENTS["double_backward"], taught, weights)
    before = {name: id(p) for name, p in model.named_parameters()}
    theta.split = SplitModel(model, replacement.injected_call)
    found = theta.hypergradient(HYPERGRADIENTS["double_backward"], taught, weights)
    assert torch.equal(plain.weight_gradient, found.weight_gradient), kind
    assert torch.equal(plain.task_loss, found.task_loss), kind
    assert before == {name: id(p) for name, p in model.named_parameters()}  # the Parameters are back
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(module_file().read_text())
    return file


def digest() -> str:
    return hashlib.sha256(module_file().read_bytes()).hexdigest()


def test_double_backward_through_injected_tensors_is_the_functional_path_bit_for_bit():
    before = digest()
    done = python("-c", SAME_NUMBERS)
    assert done.returncode == 0, done.stderr + done.stdout
    assert digest() == before and MARK not in module_file().read_text()


def test_under_the_overlay_modules_are_modules_still(tmp_path):
    script = tmp_path / "user.py"
    script.write_text(
        "import sys, torch\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "x = torch.ones(2, 2, requires_grad=True)\n"
        "layer.weight = 2 * x\n"
        "layer(torch.ones(1, 2)).sum().backward()\n"
        "assert torch.equal(x.grad, torch.full((2, 2), 2.0))\n"
        "layer.bias = None\n"
        "layer.note = 'plain attributes too'\n"
        "layer.child = torch.nn.ReLU()\n"
        "for wrong in ('text', 3):\n"
        "    try: layer.weight = wrong\n"
        "    except TypeError: pass\n"
        "    else: raise SystemExit('a parameter became ' + repr(wrong))\n"
        "print('arguments', sys.argv[1:])\n"
    )
    done = python("-m", "replacement", "run", str(script), "--flag", "1")
    assert done.returncode == 0, done.stderr
    assert "arguments ['--flag', '1']" in done.stdout


def test_install_restore_and_status_on_a_copy(copy, capsys):
    original = copy.read_text()
    for action, state, text in (
        ("status", "original", original),
        ("install", "patched", patched(original)),
        ("status", "patched", patched(original)),
        ("restore", "original", original),
        ("restore", "original", original),
    ):
        main([action, "--file", str(copy)])
        assert capsys.readouterr().out.strip() == f"{copy}: {state}"
        assert copy.read_text() == text
    assert [path.name for path in copy.parent.iterdir()] == ["module.py"]  # no backup is left


def test_an_unknown_torch_is_refused_and_left_alone(copy, capsys):
    original = copy.read_text()
    for text, reason in (
        (original.replace("elif not isinstance(param, Parameter):", "elif False:"), "register_parameter: 0 places"),
        (original.replace("if value is not None:", "if value:"), "Module.__setattr__: 0 places"),
        (original.replace("class Module:", "class Other:"), "no class Module"),
        ("def (:", "no Python source"),
        (patched(original), "patched already"),
    ):
        copy.write_text(text)
        with pytest.raises(PatchError, match=reason):
            patched(text)
        with pytest.raises(SystemExit, match="2"):
            main(["install", "--file", str(copy)])
        assert reason in capsys.readouterr().err and copy.read_text() == text


def test_without_its_backup_a_patched_file_is_told(copy, capsys):
    copy.write_text(patched(copy.read_text()))
    main(["status", "--file", str(copy)])
    assert "backup is gone" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["restore", "--file", str(copy)])
    assert "reinstall torch" in capsys.readouterr().err
