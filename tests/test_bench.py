"""Run: pytest tests/test_bench.py. Every script of scripts/bench on a tiny model: what it writes, when it fails."""

import argparse
import json

import pytest
import torch

from scripts.bench.gemm import Products, alone, flops
from scripts.bench.growth import fit_line, judge, points, random_model
from scripts.bench.memory import own_process
from tests.test_scripts import run_script


@pytest.fixture
def figures_of(tiny_folder, sample_folder, tmp_path):
    """figures_of("gemm", "--flag", value, ...) -> what scripts/bench/gemm.sh writes of the tiny model."""

    def run(bench: str, *arguments: object) -> dict:
        common = ("--model", tiny_folder, "--data", sample_folder, "--json", "figures.json")
        done = run_script(f"bench/{bench}.sh", tmp_path, *common, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "figures.json").read_text())

    return run


def test_the_hypergradient_benchmark_compares_all_estimators(figures_of):
    figures = figures_of("hypergradient", "--documents", 3, "--repeats", 1)
    assert set(figures) == {"double_backward", "jvp", "finite_difference"}
    assert figures["jvp"]["cosine"] > 0.9999


def test_the_meta_step_benchmark_agrees_with_the_published_algorithm(figures_of):
    figures = figures_of("meta_step", "--documents", 3, "--repeats", 1)
    assert figures["rows"]["fp32"]["lowest_cosine"] > 0.999 and figures["rows"]["fp32"]["documents_per_s"] > 0
    assert set(figures["extra_peak_gib"]) == {
        "published, all documents at once", "ours", "ours, 8 warm-up steps", "ours, K = 4"
    }  # fmt: skip


def test_the_adaptation_benchmark_has_the_trainers_loss_curve(figures_of):
    size = ("--documents", 8, "--epochs", 2, "--batch_size", 4)
    rows = figures_of("adaptation", *size, "--lr", 1e-2, "--repeats", 1)["rows"]
    losses = rows["ours, fp32"]["losses"]
    assert len(losses) == 4 and losses[-1] < losses[0] and rows["Trainer, 4 at once"]["largest_loss_difference"] < 0.01


def test_the_scoring_benchmark_has_the_harness_results_or_fails(tiny_folder, sample_folder, tmp_path):
    """The tiny tokenizer makes the space before an object a token of its own, which the harness counts to it."""
    pytest.importorskip("lm_eval", reason="needs pip install lm-eval==0.4.13")
    alike, other = (
        run_script(
            "bench/scoring.sh", tmp_path, "--model", model, "--data", sample_folder, "--facts", 3,
            "--first_layer", 1, "--repeats", 1, "--json", "figures.json",
        )
        for model in (random_model("tiny", "smollm2-135m", tmp_path / "model"), tiny_folder)
    )  # fmt: skip
    assert alike.returncode == 0 and "0 of 6 results differ" in alike.stdout, alike.stderr
    assert other.returncode == 1 and "float32 result is not the harness's" in other.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert {"harness, 64 at once", "ours, fp32", "ours, fp32, again"} <= set(rows)
    apart = {name: row["largest_relative_difference"] for name, row in rows.items()}
    assert apart["harness, 8 at once"] < 1e-3 and apart["ours, fp32"] > 0.1


def test_the_share_of_the_peak_is_that_of_an_epochs_products(figures_of):
    row = figures_of("gemm", "--documents", 4, "--epochs", 1, "--batch_size", 2)["rows"]["fp32"]
    assert row["products"] > 2 * 2 * 7 * 3  # updates, layers, linears of a layer: forward and backward with LoRA
    assert len(row["all_epochs_s"]) == 1 and row["all_epochs_s"][0] == row["epoch_s"] > 0
    expected = row["achieved_gflops"] / row["peak_gflops_at_these_shapes"]
    assert 0 < row["share_of_peak"] == pytest.approx(expected)


def test_products_are_counted_forward_and_backward_with_their_shapes():
    x, weight = torch.randn(2, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    with Products() as counting:
        torch.nn.functional.linear(x, weight).sum().backward()
        torch.bmm(torch.randn(4, 2, 3), torch.randn(4, 3, 5))
    shapes = sorted((left, right) for left, right, *_ in counting.found)
    assert shapes == [((2, 3), (3, 5)), ((2, 5), (5, 3)), ((4, 2, 3), (4, 3, 5)), ((5, 2), (2, 3))]
    assert sorted(map(flops, counting.found)) == [60, 60, 60, 240]
    assert all(alone(product, repeats=1) > 0 for product in counting.found)


def test_growth_is_measured_at_the_points_that_are_asked_for(figures_of):
    figures = figures_of("growth", "--only", "r=4", "--repeats", 1)
    ((quantity, (row,)),) = figures["rows"].items()
    assert (quantity, row["r"], row["documents"], row["size"]) == ("r", 4, 8, "")
    assert row["tokens"] > 0 and row["seconds"] > 0 and row["gib"] >= 0
    assert figures["seconds_by_tokens"] is None  # of one point there is no line


def test_growth_fails_where_seconds_are_not_linear_in_tokens(capsys):
    tokens = [100, 200, 400, 800]
    straight, square = fit_line(tokens, [1.1, 2.1, 4.1, 8.1]), fit_line(tokens, [t * t for t in tokens])
    assert straight[:3] == pytest.approx((0.01, 0.1, 1.0)) and 0.9 < straight.power < 1
    assert square.r2 > 0.95 and square.power == pytest.approx(2)
    judge(straight)
    assert "seconds = 0.10 + 10.00 per thousand tokens, R2 1.000" in capsys.readouterr().out
    judge(straight._replace(r2=0.951))
    for fit in (straight._replace(r2=0.949), square):
        with pytest.raises(SystemExit, match="not linear in tokens"):
            judge(fit)


def test_growth_refuses_points_that_it_does_not_know():
    assert points("r") == ("r", [4, 16, 64]) and points("size=tiny,135M") == ("size", ["tiny", "135M"])
    for text in ("rank", "r=5", "r=4,", "=4"):
        with pytest.raises(argparse.ArgumentTypeError, match="is none of"):
            points(text)


def test_a_measuring_process_that_fails_ends_the_benchmark_with_its_message(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench"])
    with pytest.raises(SystemExit, match=r"No module named scripts\.bench\.nothing"):
        own_process("scripts.bench.nothing")
