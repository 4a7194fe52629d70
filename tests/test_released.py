"""Run: pytest tests/test_released.py. The phi that comes with the project."""

import json

import pytest
import torch

import taalm
from taalm.cell_config import CellConfig, find_phi
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.meta.observe import object_ratios
from taalm.models.base import ModelConfig
from taalm.models.train_attention import RELEASED
from taalm.online_config import StreamCellConfig
from taalm.text import collate, encode


def test_it_is_small_and_favours_objects_it_never_saw(sample_folder):
    folder = RELEASED["smollm2-135m"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12e6
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    phi = taalm.TrainAttention.from_pretrained("smollm2-135m")
    facts = read_facts(sample_folder / "to_learn.jsonl")[:24]
    batch = collate([encode(phi.tokenizer, f.evidence, f.object_span(), 128) for f in facts], 0)
    with torch.no_grad():
        weights = phi.weights(batch.input_ids, batch.attention_mask)
    ratios = object_ratios(weights, batch)
    assert float(ratios.median()) > 4  # of invented people and things; equal weights give 1
    assert weights[:, 0].abs().max() == 0 and float(weights.min()) >= 0


def test_its_card_says_what_it_was_judged_to_be():
    card, report = (RELEASED["smollm2-135m"] / name for name in ("README.md", "report.json"))
    report = json.loads(report.read_text())
    ratio, uncommon = (report["held_out"][key] for key in ("object_ratio", "object_ratio_uncommon"))
    said = " ".join(card.read_text().split())
    assert "{median:.1f} times the document's mean (quartiles {q1:.1f}, {q3:.1f};".format(**ratio) in said
    assert f"{uncommon['median']:.1f} where the object is not" in said
    losses = "{train_attention:.3f} (equal weights {uniform:.3f}, oracle {oracle:.3f})"
    assert losses.format(**report["task_loss_after_learning"]) in said


def test_targeted_takes_it_where_no_phi_was_trained(tmp_path):
    assert find_phi(CellConfig(phi_runs=str(tmp_path))) == RELEASED["smollm2-135m"]
    for config in (
        CellConfig(phi_runs=str(tmp_path), model=ModelConfig(name="gpt2")),
        StreamCellConfig(phi_runs=str(tmp_path)),
    ):
        with pytest.raises(UserError, match=f"no trained phi under .*train_TA/{config.train_script}.sh"):
            find_phi(config)
    own = tmp_path / "seed1" / "phi" / "model.safetensors"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_phi(CellConfig(phi_runs=str(tmp_path))) == own.parent
