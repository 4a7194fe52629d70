"""Run: pytest tests/test_dry_run.py. --dry_run counts what trains, without weights."""

import pytest

from taalm.adapt import AdaptConfig
from taalm.dry_run import describe
from taalm.models.base import ModelConfig, load_theta
from tests.conftest import run_module


@pytest.mark.parametrize(("preset", "count"), [("llama2-7b", "159.9M"), ("tinyllama", "50.5M")])
@pytest.mark.parametrize("benchmark", ["evaluate", "evaluate_twiki"])
def test_the_published_presets_have_the_published_numbers_of_parameters(preset, count, benchmark, tmp_path):
    train = tmp_path / "train"
    train.mkdir()
    (tmp_path / "eval").mkdir()
    (train / "diffset_0910_filtered.jsonl").write_text('{"text": "one"}\n' * 130)
    data = ("--data", tmp_path) if benchmark == "evaluate_twiki" else ()
    done = run_module(f"taalm.{benchmark}", "--preset", preset, "--dry_run", "true", *data, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert f"{count} parameters (qlora;" in done.stdout
    assert ("3 updates an epoch" if data else "2 updates an epoch") in done.stdout  # 130, 100 documents by 64


@pytest.mark.parametrize("adapter", ["lora", "kadapter", "full"])
def test_the_count_is_that_of_the_loaded_model(adapter, tiny_folder):
    config = ModelConfig(name=str(tiny_folder), adapter=adapter, r=4, precision="fp32")
    model, _ = load_theta(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"({adapter}; {trained:,})" in describe(config, AdaptConfig(), 10)
