"""Run: pytest tests/test_dry_run.py. --dry_run counts what trains, without weights."""

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest

from taalm.adapt import AdaptConfig
from taalm.dry_run import describe
from taalm.models.base import ModelConfig, load_theta


@pytest.fixture(autouse=True)
def no_data_and_no_hub(monkeypatch):
    monkeypatch.delenv("TAALM_DATA", raising=False)
    monkeypatch.delenv("PRESET", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(("preset", "count"), [("llama2-7b", "159.9M"), ("tinyllama", "50.5M")])
@pytest.mark.parametrize("benchmark", ["evaluate", "evaluate_twiki"])
def test_the_published_presets_have_the_published_numbers_of_parameters(preset, count, benchmark, tmp_path, capsys):
    train = tmp_path / "train"
    train.mkdir()
    (tmp_path / "eval").mkdir()
    (train / "diffset_0910_filtered.jsonl").write_text('{"text": "one"}\n' * 130)
    data = ["--data", str(tmp_path)] if benchmark == "evaluate_twiki" else []
    import_module(f"taalm.{benchmark}").main(["--preset", preset, "--dry_run", "true", *data])
    said = capsys.readouterr().out
    assert f"{count} parameters (qlora;" in said
    assert ("3 updates an epoch" if data else "2 updates an epoch") in said  # 130, 100 documents by 64


@pytest.mark.parametrize("benchmark", ["evaluate", "train_ta"])
def test_raw_rows_need_no_split_and_no_weights(benchmark, tmp_path, monkeypatch, capsys):
    (tmp_path / "LAMA_ckl").mkdir()
    monkeypatch.setenv("TAALM_DATA", str(tmp_path))
    import_module(f"taalm.{benchmark}").main(["--preset", "llama2-7b", "--dry_run", "true"])
    assert "159.9M" in capsys.readouterr().out


@pytest.mark.parametrize(("preset", "count"), [("llama2-7b", "159.9M"), ("tinyllama", "50.5M")])
def test_the_training_of_phi_is_described_for_both_models(preset, count, capsys):
    import_module("taalm.train_ta").main(["--preset", preset, "--dry_run", "true"])
    said = capsys.readouterr().out
    assert said.count(f"{count} parameters (qlora;") == 2  # theta and phi
    assert "outer steps of 16 documents" in said


@pytest.mark.parametrize("adapter", ["lora", "kadapter", "full"])
def test_the_count_is_that_of_the_loaded_model(adapter, tiny_folder):
    config = ModelConfig(name=str(tiny_folder), adapter=adapter, r=4, precision="fp32")
    model, _ = load_theta(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"({adapter}; {trained:,})" in describe(config, AdaptConfig(), 10)


@pytest.mark.parametrize("first_layer", [0, 15])
def test_the_peak_of_a_real_run_is_within_a_fifth(first_layer, sample_folder, tmp_path):
    given = [
        "--data", str(sample_folder), "--method", "finetune", "--limit", "32", "--adapt.epochs", "1", "--quiet", "true",
        "--adapt.batch_size", "32", "--adapt.max_length", "64", "--adapt.token_budget", "512", "--out", str(tmp_path),
        "--model.precision", "fp32", "--model.first_layer", str(first_layer), "--name", "run",
    ]  # fmt: skip
    ran = [
        subprocess.run(
            [sys.executable, "-m", "taalm.evaluate", *given, *more], check=True, capture_output=True, text=True
        ).stdout
        for more in ([], ["--dry_run", "true"])
    ]
    expected = float(re.search(r"peak +about ([\d.]+) GiB", ran[1])[1])
    measured = json.loads((tmp_path / "run.json").read_text())["summary"]["peak_gib"]
    assert abs(expected - measured) < 0.2 * measured, (expected, measured)
