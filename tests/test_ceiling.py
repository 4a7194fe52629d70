"""Run: pytest tests/test_ceiling.py. Weights trained on each document's own probe, and weights out of a file."""

import json

import pytest
import torch

from taalm import ceiling, evaluate
from taalm.ceiling import one_per_document
from taalm.errors import UserError
from taalm.facts import read_facts, read_jsonl
from taalm.models.train_attention import softmax_weights
from taalm.results import load_result
from taalm.text import encode
from taalm.weighters import get_weighter
from taalm.weighters.material import Material
from tests.test_commands import evaluate_arguments


def run(tiny_folder, sample_folder, out, *more: object) -> list[dict]:
    ceiling.main(list(map(str, (
        "--theta.name", tiny_folder, "--theta.first_layer", 0, "--theta.precision", "fp32", "--data", sample_folder,
        "--inner.lr", 1e-2, "--out", out, "--quiet", "true", *more,
    ))))  # fmt: skip
    return [row for _, row in read_jsonl(out / "weights.jsonl")]


def test_weights_have_mean_1_over_real_targets():
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0]])
    weights = softmax_weights(torch.tensor([[0.0, 2, 0, 9], [1, 1, 5, 5]]), mask.bool())
    assert torch.allclose(weights.sum(1), mask.sum(1)) and not weights[mask == 0].any()
    assert weights[0, 1] > weights[0, 0] and torch.allclose(weights[1, :2], torch.ones(2))


def test_a_document_has_one_set_of_weights(sample_folder):
    facts = read_facts(sample_folder / "to_learn.jsonl")
    assert one_per_document([*facts, *facts]) == facts


def test_they_teach_better_than_equal_ones_and_a_stopped_run_goes_on(tiny_folder, sample_folder, tmp_path, capsys):
    rows = run(tiny_folder, sample_folder, tmp_path / "whole", "--limit", 6, "--batch_size", 3)
    assert len(rows) == 6 and all(after < before for before, after in (row["batch"] for row in rows))
    assert all(sum(row["weights"]) == pytest.approx(len(row["weights"]), rel=1e-3) for row in rows)
    assert "task loss after learning with equal weights" in capsys.readouterr().out
    run(tiny_folder, sample_folder, tmp_path / "halves", "--limit", 3, "--batch_size", 3)
    before = (tmp_path / "halves" / "weights.jsonl").read_text()
    again = run(tiny_folder, sample_folder, tmp_path / "halves", "--limit", 6, "--batch_size", 3)
    assert (tmp_path / "halves" / "weights.jsonl").read_text().startswith(before) and len(again) == 6
    with pytest.raises(UserError, match=r"--objective\.retention are phi's"):
        run(tiny_folder, sample_folder, tmp_path / "halves", "--objective.retention", 0.1)
    with pytest.raises(UserError, match="steps"):
        run(tiny_folder, sample_folder, tmp_path / "halves", "--limit", 6, "--batch_size", 3, "--steps", 2)


def test_an_adaptation_takes_them_from_the_file(tiny_folder, sample_folder, tmp_path):
    run(tiny_folder, sample_folder, tmp_path / "made", "--limit", 4, "--steps", 2)
    file, found = tmp_path / "made" / "weights.jsonl", {}
    for method, more in (("given", ("--weights", file)), ("finetune", ())):
        arguments = (*evaluate_arguments(tiny_folder, sample_folder, tmp_path / method), "--method", method, *more)
        evaluate.main(list(map(str, (*arguments[1:], "--limit", 4, "--name", "run"))))
        found[method] = load_result(tmp_path / method / "run.pkl")["loss_by_step"]
    assert found["given"] != found["finetune"]


def test_a_file_of_weights_that_does_not_fit_is_told(tokenizer, tmp_path):
    text, file = "Paris is old .", tmp_path / "weights.jsonl"
    row = encode(tokenizer, text)

    def weigh(rows: list[dict]) -> None:
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
        get_weighter("given", Material(documents=[row], texts=[text], weights=str(file)))

    weigh([{"text": text, "weights": [1.0] * (len(row) - 1)}])
    for rows, said in (
        ([{"text": "other", "weights": [1.0]}], "no weights for the document"),
        ([{"text": text, "weights": [1.0]}], r"weights\.jsonl:1: 1 weights"),
        ([{"text": text, "weights": [-1.0]}], r"weights\.jsonl:1: expected"),
        ([{"text": text, "weights": "none"}], r"weights\.jsonl:1: expected"),
    ):
        with pytest.raises(UserError, match=said):
            weigh(rows)
    with pytest.raises(UserError, match="--weights FILE"):
        get_weighter("given", Material())
