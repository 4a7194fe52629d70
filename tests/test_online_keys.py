"""Run: pytest tests/test_online_keys.py. The stream's keys: published values, effects, refusals."""

import json
from pathlib import Path

import pytest

from taalm import generation
from taalm.errors import UserError
from taalm.online import OnlineStream
from taalm.online_config import NAMES, OnlineConfig
from tests.conftest import ONLINE_SAMPLE as SAMPLE
from tests.conftest import ROOT

CONFIGS = ROOT / "configs" / "online" / "wiki"


def names(kind: str) -> list[Path]:
    return sorted(CONFIGS.glob(f"*/{kind}_*.json"))


def test_the_named_configurations_are_there_with_the_published_values():
    methods = ("vannila", "kadapter_2", "kadapter_3", "lora", "mixreview", "modular", "recadam", "targeted", "rho")
    for version in ("day", "month", "quarter"):
        for method in methods:
            found = json.loads((CONFIGS / version / f"t5_{method}.json").read_text())
            assert found["dataset_version"] == version and found["model"] == "t5-base"
            published = {"input_length": 18, "output_length": 18, "train_batch_size": 8, "num_train_epochs": 1,
                         "gradient_accumulation_steps": 3, "learning_rate": 2e-3}  # fmt: skip
            assert published.items() <= found.items() and found.get("optimizer") == (
                None if method == "recadam" else "adafactor"
            )
            assert found["freeze_level"] == (0 if method == "vannila" else 1)
            decoder = CONFIGS / version / f"smollm2_{method}.json"
            assert decoder.is_file() == (method != "modular")
    assert len({*names("t5"), *names("smollm2")}) == 3 * (9 + 8) == len(list(CONFIGS.rglob("*.json")))


def test_vanilla_may_be_typed_for_vannila(run_stream):
    assert run_stream(CONFIGS / "quarter" / "t5_vanilla.json")["method"] == "baseline"
    assert {NAMES[name][0] for name in ("vannila", "vanilla", "baseline")} == {"finetune"}


def cell(**keys):
    """What the keys make of a cell."""
    return OnlineStream(OnlineConfig(data=str(SAMPLE), **keys)).cell_config


@pytest.mark.parametrize(
    ("keys", "read", "expected"),
    [
        ({"num_train_epochs": 3}, lambda c: c.adapt.epochs, 3),
        ({"train_batch_size": 2}, lambda c: (c.adapt.batch_size, c.adapt.token_budget), (6, 72)),
        ({"gradient_accumulation_steps": 5}, lambda c: c.adapt.batch_size, 40),
        ({"ngpu": 2}, lambda c: c.adapt.batch_size, 48),
        ({"ngpu": 0}, lambda c: c.model.device, "cpu"),
        ({"learning_rate": 0.5}, lambda c: c.adapt.lr, 0.5),
        ({"use_lr_scheduling": True}, lambda c: c.adapt.schedule, "linear"),
        ({"optimizer": "adafactor"}, lambda c: c.adapt.optimizer, "adafactor"),
        ({"freeze_level": 1}, lambda c: c.model.freeze_level, 1),
        ({"input_length": 30}, lambda c: c.adapt.max_length, 48),
        ({"output_length": 30}, lambda c: c.adapt.max_length, 48),
        ({"use_deepspeed": True, "ngpu": 2}, lambda c: c.model.shard, True),
        ({"method": "kadapter_2", "kadapter_blocks": 1}, lambda c: (c.model.kadapter_count, c.model.kadapter_blocks),
         (2, 1)),
        ({"lora_r": 2, "lora_alpha": 3}, lambda c: (c.model.r, c.model.alpha, c.model.lora_targets), (2, 3, "qv")),
        ({"weight_decay": 0.1}, lambda c: c.adapt.weight_decay, 0.1),
        ({"modular_encoder": "x"}, lambda c: c.model.modular_encoder, "x"),
    ],
)  # fmt: skip
def test_each_key_reaches_the_cell(tiny_folder, keys, read, expected):
    assert read(cell(model=str(tiny_folder), **keys)) == expected


def test_lengths_and_beams_change_what_is_said(run_stream, tmp_path):
    settings = ("--num_train_epochs", 2, "--learning_rate", 1e-3)

    def said(name: str, *arguments: object, family: str = "smollm2") -> list[str]:
        run_stream(None, *settings, *arguments, family=family, out=tmp_path / name)
        path = tmp_path / name / "predictions" / "2023-10_2023-10.jsonl"
        return [json.loads(line)["said"] for line in path.read_text().splitlines()]

    long = said("long")
    assert said("short", "--output_length", 2) != long and said("given", "--input_length", 3) != long
    assert said("beams", "--beams", 3) != long and said("seed", "--seed", 1, "--method", "lora") != long
    assert said("again") == long


def test_batches_and_workers_of_asking_are_the_configured_ones(run_stream, monkeypatch):
    loaded = []
    plain = generation.DataLoader

    def load(prompts, **options):
        loaded.append((max(map(len, prompts.parts)), options["num_workers"]))
        return plain(prompts, **options)

    monkeypatch.setattr(generation, "DataLoader", load)
    run_stream(None, "--eval_batch_size", 3, "--num_workers", 1, "--limit", 4)
    assert set(loaded) == {(3, 1), (1, 1)}  # a month has one fact


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("smollm2", ["--method", "modular"], "needs an encoder"),
        ("t5", ["--method", "vanila"], "vanilla"),
        ("t5", ["--freez_level", "1"], "did you mean --freeze_level"),
        ("t5", ["--dataset", "news"], "dataset"),
        ("t5", ["--data", "/nowhere"], "Download_dataset"),
        ("t5", ["--checkpoint_path", "/nowhere"], "no such checkpoint"),
        ("t5", ["--use_deepspeed", "true"], "needs --ngpu 2"),
        ("t5", ["--use_deepspeed", "true", "--ngpu", "2", "--optimizer", "adafactor"], "cannot be sharded"),
        ("t5", ["--freeze_level", "2"], "freeze_level 2 freezes the whole base"),
        ("t5", ["--learning_rate", "1e30"], "lower the learning rate"),
        ("t5", ["--method", "targeted", "--phi", "/nowhere"], "no Train-Attention here"),
        ("t5", ["--method", "rho", "--ta_train", "/nowhere"], "no TA-train facts"),
        ("t5", ["--dataset_version", "day", "--data", str(SAMPLE / "month")], "dates are by month"),
        ("t5", ["--method", "recadam", "--recadam.t0_share", "0.25", "--learning_rate", "2e-3"], "diverges"),
        ("t5", ["--method", "recadam"], "pass --recadam.t0_share"),
    ],
)
def test_what_cannot_be_run_is_told(run_stream, family, arguments, message):
    with pytest.raises(UserError, match=message):
        run_stream(None, *arguments, family=family)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b'{"method": "lora", "learning_rat": 1e-3}', "did you mean --learning_rate"),
        (b'{"method": null}', "--method: null is no value"),
        (b'{"recadam": 3}', "recadam|cannot be read"),
        (b'{"method": "lora",', "config|read"),
        (b"\xff\xfe", "config|read"),
        (b'{"learning_rate": -1}', "learning_rate"),
    ],
)
def test_a_bad_configuration_file_is_told(run_stream, tmp_path, written, message):
    path = tmp_path / "c.json"
    path.write_bytes(written)
    with pytest.raises(UserError, match=message):
        run_stream(path)
