"""Run: pytest tests/meta/test_start.py. A phi that is trained on, or only judged."""

import json

import pytest
from safetensors.torch import load_file

from taalm import train_ta
from taalm.errors import UserError


@pytest.fixture
def train(tiny_folder, sample_folder, tmp_path):
    """train("name", "--flag", value, ...) -> the run's folder."""

    def run(name: str, *more: object):
        train_ta.main([
            "--theta.name", str(tiny_folder), "--phi.backbone", str(tiny_folder), "--theta.first_layer", "0",
            "--phi.layers", "0", "--data", str(sample_folder), "--out", str(tmp_path), "--name", name,
            "--quiet", "true", "--outer.batch_size", "4", "--outer.max_length", "200", "--judged", "4", *map(str, more),
        ])  # fmt: skip
        return tmp_path / name

    return run


def test_a_phi_is_judged_as_it_is_and_trained_on(train):
    first = train("first", "--outer.steps", 3)
    judged = train("judged", "--start", first / "phi", "--outer.steps", 0)
    reports = [json.loads((run / "report.json").read_text()) for run in (first, judged)]
    for key in ("held_out", "task_loss_after_learning"):
        assert reports[0][key] == reports[1][key]
    assert (reports[0]["steps"], reports[1]["steps"]) == (3, 0)
    before, same = (load_file(run / "phi" / "model.safetensors") for run in (first, judged))
    after = load_file(train("on", "--start", first / "phi", "--outer.steps", 1) / "phi" / "model.safetensors")
    assert all(same[name].equal(value) for name, value in before.items())
    changed = {name for name, value in before.items() if not after[name].equal(value)}
    assert any("lora_A" in name for name in changed) and "head.weight" in changed


def test_what_cannot_be_meant_is_refused(train, tmp_path):
    with pytest.raises(UserError, match=r"--outer.steps 0 trains nothing; .*--start"):
        train("nothing", "--outer.steps", 0)
    first = train("first", "--outer.steps", 1)
    with pytest.raises(UserError, match=r"--phi\.weights sigmoid: the phi that --start .* names has softmax"):
        train("other", "--start", first / "phi", "--phi.weights", "sigmoid")
    with pytest.raises(UserError, match="no Train-Attention here"):
        train("none", "--start", tmp_path / "none")
