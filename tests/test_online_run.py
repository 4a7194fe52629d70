"""Run: pytest tests/test_online_run.py. Every configuration of the stream runs; what its methods and numbers do."""

import csv
import json
from pathlib import Path

import pytest
import torch

from taalm.benchmarks.relations import INVARIANT
from taalm.checkpoint import load_state, under
from taalm.errors import UserError
from taalm.online import OnlineStream
from taalm.online_config import OnlineConfig
from taalm.results import load_result
from tests.conftest import ONLINE_SAMPLE as SAMPLE
from tests.conftest import ROOT, run_module

CONFIGS = ROOT / "configs" / "online" / "wiki"


def names(kind: str) -> list[Path]:
    return sorted(CONFIGS.glob(f"*/{kind}_*.json"))


@pytest.mark.parametrize("file", names("t5"), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_t5_configuration_runs(run_stream, file):
    result = run_stream(file)
    dates = {"day": 5, "month": 4, "quarter": 3}[file.parent.name]
    assert len(result["eval_result"]) == dates and result["summary"]["em"] is not None


@pytest.mark.parametrize("file", names("smollm2"), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_configuration_for_a_decoder_runs(run_stream, file):
    dates = {"day": 5, "month": 4, "quarter": 3}[file.parent.name]
    assert len(run_stream(file, family="smollm2")["eval_result"]) == dates


def test_a_methods_training_differs_from_vanillas(run_stream, tmp_path):
    """From the same start, frozen alike: other weights after the second month (mix-review has a buffer by then)."""

    def theta(method: str) -> torch.Tensor:
        run_stream(
            None,
            "--method",
            method,
            "--freeze_level",
            1,
            "--recadam.t0_share",
            0.25,
            "--recadam.coefficient",
            500,
            "--rho.reference_lr",
            1e-2,
            "--num_train_epochs",
            2,
            "--learning_rate",
            1e-3,
            "--limit",
            8,
            out=tmp_path / method,
        )
        (checkpoint,) = (tmp_path / method / "checkpoints").iterdir()
        assert checkpoint.name == "00004_2024-2.safetensors"
        tensors = under(load_state(checkpoint)[0], "theta/")
        return torch.cat([value.reshape(-1) for name, value in sorted(tensors.items()) if ".decoder" in f".{name}"])

    plain = theta("vanilla")
    for method in ("mixreview", "recadam", "targeted", "rho", "kl", "surprisal", "ner", "oracle", "tfidf"):
        other = theta(method)
        assert other.shape == plain.shape and not torch.allclose(other, plain, atol=1e-5), method


def test_a_t5_taught_the_first_month_then_streamed_moves_every_number(run_stream, tmp_path):
    settings = ("--learning_rate", 2e-3, "--optimizer", "adafactor", "--input_length", 40, "--output_length", 60)
    run_stream(
        None,
        *settings,
        "--num_train_epochs",
        40,
        "--dataset_version",
        "quarter",
        "--keep_checkpoints",
        0,
        out=tmp_path / "taught",
    )
    first = sorted((tmp_path / "taught" / "checkpoints").glob("*.safetensors"))[0]
    result = run_stream(
        None,
        *settings,
        "--num_train_epochs",
        20,
        "--dataset_version",
        "quarter",
        "--checkpoint_path",
        first,
        out=tmp_path / "streamed",
    )
    assert result["right"][-1][0] > 0  # the first date was taught before the stream
    summary = result["summary"]
    assert summary["em"] > 0.3 and summary["fwt"] > 0.1 and summary["bwt"] < 0 and 0 < summary["kg"] < 1
    assert summary["kar"] != 0 and summary["fuar"] > 0
    gaps = [row["representation_gap"] for row in result["eval_result"].values()]
    assert len(set(gaps)) == len(gaps) and all(gap > 0 for gap in gaps)


def test_the_span_form_runs_and_is_for_encoders(run_stream):
    result = run_stream(
        None,
        "--form",
        "span",
        "--num_train_epochs",
        30,
        "--learning_rate",
        2e-3,
        "--limit",
        4,
        "--input_length",
        40,
        "--output_length",
        30,
        "--optimizer",
        "adafactor",
    )
    assert result["summary"]["em"] > 0
    with pytest.raises(UserError, match="has no sentinels"):
        run_stream(None, "--form", "span", family="smollm2")


def test_dates_with_texts_or_queries_alone_and_duplicate_rows(run_stream, tmp_path):
    folder = tmp_path / "stream"
    folder.mkdir()
    for kind, dropped in (("train", '"2023-10"'), ("test", '"2023-12"')):
        rows = (SAMPLE / "month" / f"datesorted_{kind}.jsonl").read_text().splitlines()
        kept = [row for row in rows if dropped not in row]
        (folder / f"datesorted_{kind}.jsonl").write_text("\n".join([*kept[::-1], kept[0]]) + "\n")
    rows = run_stream(None, "--data", folder)["eval_result"]
    assert list(rows) == ["2023-9", "2023-10", "2023-12", "2024-2"]
    assert rows["2023-10"]["texts"] == 0 and rows["2023-10"]["em"] is not None and rows["2023-10"]["loss"] is None
    assert rows["2023-12"]["facts"] == 0 and rows["2023-12"]["em"] is None and rows["2023-12"]["loss"] > 0
    with pytest.raises(UserError, match="holds no texts"):
        (folder / "datesorted_train.jsonl").write_text("")
        run_stream(None, "--data", folder)


def test_limit_takes_the_same_facts_to_teach_and_to_ask(t5_folder, tmp_path):
    folder = tmp_path / "stream"
    folder.mkdir()
    for kind in ("train", "test"):
        rows = (SAMPLE / "month" / f"datesorted_{kind}.jsonl").read_text().splitlines()
        (folder / f"datesorted_{kind}.jsonl").write_text("\n".join(rows if kind == "test" else rows[::-1]) + "\n")
    stream = OnlineStream(OnlineConfig(model=str(t5_folder), data=str(folder), limit=3))
    for date in stream.dates:
        asked = {query.query.fact for query in stream.asked[date]}
        assert asked == {lesson.fact for _, lesson in stream.taught[date]} and len(asked) == min(3, len(asked))


def test_the_log_and_the_predictions_are_what_the_result_says(run_stream, tmp_path):
    result = run_stream(
        None,
        "--output_log",
        tmp_path / "log.csv",
        "--num_train_epochs",
        20,
        "--learning_rate",
        2e-3,
        "--optimizer",
        "adafactor",
        out=tmp_path / "run",
    )
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["date"] for row in rows] == ["2023-9", "2023-10", "2023-12", "2024-2"]
    for row in rows:
        path = tmp_path / "run" / "predictions" / f"{row['date']}_{row['date']}.jsonl"
        said = [json.loads(line) for line in path.read_text().splitlines()]
        assert float(row["em"]) == sum(answer["em"] for answer in said) / len(said)
        assert float(row["em"]) == result["eval_result"][row["date"]]["em"]
    assert (tmp_path / "run" / "stream.png").stat().st_size > 10_000


def test_mixreviews_buffer_holds_invariant_facts_of_past_dates_only(t5_folder):
    stream = OnlineStream(OnlineConfig(model=str(t5_folder), data=str(SAMPLE), method="mixreview", buffer_share=0.5))
    assert stream.buffer(0) == []
    relations = {document: lesson.relation for pairs in stream.taught.values() for document, lesson in pairs}
    for t in range(1, 4):
        kept, past = stream.buffer(t), [d for date in stream.dates[:t] for d in stream.documents(date)]
        assert kept and set(kept) <= set(past) and {relations[document] for document in kept} <= INVARIANT
        assert kept[: len(stream.buffer(t - 1))] == stream.buffer(t - 1)
    stream.config.buffer_size = 1
    assert len(stream.buffer(3)) == 1


def test_mixreview_without_invariant_facts_is_refused(t5_folder, tmp_path):
    for kind in ("train", "test"):
        rows = (SAMPLE / "month" / f"datesorted_{kind}.jsonl").read_text().splitlines()
        kept = [row for row in rows if not INVARIANT & set(json.loads(row)["id"].split("_"))]
        (tmp_path / f"datesorted_{kind}.jsonl").write_text("\n".join(kept) + "\n")
    with pytest.raises(UserError, match="time-invariant relations, and there are none"):
        OnlineStream(OnlineConfig(model=str(t5_folder), data=str(tmp_path), method="mixreview"))


def test_the_packaged_decoder_runs_by_its_own_configuration(tmp_path):
    done = run_module(
        "run",
        "--config",
        CONFIGS / "quarter" / "smollm2_lora.json",
        "--data",
        SAMPLE,
        "--limit",
        3,
        "--output_dir",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "3 dates" in done.stdout and load_result(tmp_path / "result.pkl")["summary"]["seconds"] > 0
