"""Run: pytest tests/test_online_run.py. Every configuration of the stream runs; each key does something; resuming."""

import csv
import json
from pathlib import Path

import pytest
import torch

from taalm import generation, online, online_run, run_online
from taalm.adapt import Adaptation
from taalm.benchmarks.relations import INVARIANT
from taalm.checkpoint import load_state, under
from taalm.errors import UserError
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.online import OnlineStream
from taalm.online_config import NAMES, OnlineConfig, cell_config
from taalm.results import load_result
from tests.conftest import ROOT, run_module, two_at_once

CONFIGS = ROOT / "configs" / "online" / "wiki"
SAMPLE = ROOT / "data" / "sample" / "online_wiki"


@pytest.fixture(scope="module")
def phis(t5_folder, tiny_folder, tmp_path_factory) -> dict[str, Path]:
    """A phi that never learned, for each family of models."""
    found = {}
    for family, folder in (("t5", t5_folder), ("smollm2", tiny_folder)):
        torch.manual_seed(0)
        phi = TrainAttention.create(TrainAttentionConfig(backbone=str(folder), r=2, precision="fp32"))
        torch.nn.init.normal_(phi.head.weight)
        found[family] = tmp_path_factory.mktemp("phi") / family
        phi.save_pretrained(found[family])
    return found


@pytest.fixture
def run(t5_folder, tiny_folder, phis, tmp_path):
    """run(config file or None, "--key", value, ...) -> the result, in a folder of its own."""
    number = iter(range(100))

    def start(file: Path | None, *arguments: object, family: str = "t5", out: Path | None = None) -> dict:
        out = out or tmp_path / f"run{next(number)}"
        given = ["--config", str(file)] if file else []
        model = t5_folder if family == "t5" else tiny_folder
        run_online.main([
            *given, "--model", str(model), "--data", str(SAMPLE), "--output_dir", str(out), "--quiet", "true",
            "--precision", "fp32", "--phi", str(phis[family]), "--modular_encoder", str(t5_folder),
            *map(str, arguments),
        ])  # fmt: skip
        return load_result(out / "result.pkl")

    return start


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


@pytest.mark.parametrize("file", names("t5"), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_t5_configuration_runs(run, file):
    result = run(file)
    dates = {"day": 5, "month": 4, "quarter": 3}[file.parent.name]
    assert len(result["eval_result"]) == dates and result["summary"]["em"] is not None


@pytest.mark.parametrize("file", names("smollm2"), ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_configuration_for_a_decoder_runs(run, file):
    dates = {"day": 5, "month": 4, "quarter": 3}[file.parent.name]
    assert len(run(file, family="smollm2")["eval_result"]) == dates


def test_a_methods_training_differs_from_vanillas(run, tmp_path):
    """From the same start, frozen alike: other weights after the second month (mix-review has a buffer by then)."""

    def theta(method: str) -> torch.Tensor:
        run(None, "--method", method, "--freeze_level", 1, "--recadam.t0_share", 0.25, "--recadam.coefficient", 500,
            "--rho.reference_lr", 1e-2, "--num_train_epochs", 2, "--learning_rate", 1e-3, "--limit", 8,
            out=tmp_path / method)  # fmt: skip
        (checkpoint,) = (tmp_path / method / "checkpoints").iterdir()
        assert checkpoint.name == "00004_2024-2.safetensors"
        tensors = under(load_state(checkpoint)[0], "theta/")
        return torch.cat([value.reshape(-1) for name, value in sorted(tensors.items()) if ".decoder" in f".{name}"])

    plain = theta("vanilla")
    for method in ("mixreview", "recadam", "targeted", "rho", "kl", "surprisal", "ner", "oracle", "tfidf"):
        other = theta(method)
        assert other.shape == plain.shape and not torch.allclose(other, plain, atol=1e-5), method


class Killed(Exception):
    pass


RESUMED = {
    "mixreview": ("--optimizer", "adafactor", "--buffer_share", 0.5),
    "rho": ("--optimizer", "adamw"),
    "recadam": ("--recadam.t0_share", 0.25, "--recadam.coefficient", 200),
    "targeted": ("--optimizer", "adafactor"),
}


@pytest.mark.parametrize("method", RESUMED)
def test_interrupted_at_any_point_it_ends_as_if_never_interrupted(run, tmp_path, monkeypatch, method):
    """After a date, after a date's training, and in the middle of it: the same results and the same theta."""
    settings = ("--method", method, "--num_train_epochs", 2, "--learning_rate", 1e-3, *RESUMED[method],
                "--dataset_version", "quarter",
                "--train_batch_size", 4, "--gradient_accumulation_steps", 1)  # fmt: skip
    whole = run(None, *settings, out=tmp_path / "whole")

    def stopped(patch: pytest.MonkeyPatch, owner: type, name: str, after: int):
        plain, calls = getattr(owner, name), []

        def call(self, *given):
            found = plain(self, *given)
            calls.append(1)
            if len(calls) == after:
                raise Killed
            return found

        patch.setattr(owner, name, call)

    def every_update(config: OnlineConfig, seq2seq: bool):
        found = cell_config(config, seq2seq)
        found.adapt.save_every = 1
        return found

    monkeypatch.setattr(online, "cell_config", every_update)
    places = [(online_run.Run, "save", 2), (online_run.Run, "learn", 2), (Adaptation, "_update", 2),
              (Adaptation, "_update", 14)]  # fmt: skip
    for owner, name, after in places:
        out = tmp_path / f"{name}{after}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            stopped(patch, owner, name, after)
            run(None, *settings, out=out)
        if owner is Adaptation:
            assert list((out / "training").iterdir())  # it goes on in the middle of a date, or of the reference
        again = run(None, *settings, out=out)
        for result in (whole, again):
            for row in result["eval_result"].values():
                row.pop("seconds", None)
        assert again["eval_result"] == whole["eval_result"] and again["right"] == whole["right"]
        found = [load_state(next((folder / "checkpoints").iterdir()))[0] for folder in (tmp_path / "whole", out)]
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_t5_taught_the_first_month_then_streamed_moves_every_number(run, tmp_path):
    settings = ("--learning_rate", 2e-3, "--optimizer", "adafactor", "--input_length", 40, "--output_length", 60)
    run(None, *settings, "--num_train_epochs", 40, "--dataset_version", "quarter", "--keep_checkpoints", 0,
        out=tmp_path / "taught")  # fmt: skip
    first = sorted((tmp_path / "taught" / "checkpoints").glob("*.safetensors"))[0]
    result = run(None, *settings, "--num_train_epochs", 20, "--dataset_version", "quarter", "--checkpoint_path", first,
                 out=tmp_path / "streamed")  # fmt: skip
    assert result["right"][-1][0] > 0  # the first date was taught before the stream
    summary = result["summary"]
    assert summary["em"] > 0.3 and summary["fwt"] > 0.1 and summary["bwt"] < 0 and 0 < summary["kg"] < 1
    assert summary["kar"] != 0 and summary["fuar"] > 0
    gaps = [row["representation_gap"] for row in result["eval_result"].values()]
    assert len(set(gaps)) == len(gaps) and all(gap > 0 for gap in gaps)


def test_the_span_form_runs_and_is_for_encoders(run):
    result = run(None, "--form", "span", "--num_train_epochs", 30, "--learning_rate", 2e-3, "--limit", 4,
                 "--input_length", 40, "--output_length", 30, "--optimizer", "adafactor")  # fmt: skip
    assert result["summary"]["em"] > 0
    with pytest.raises(UserError, match="has no sentinels"):
        run(None, "--form", "span", family="smollm2")


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
        ("t5", ["--freeze_level", "2"], "--freeze_level 2 freezes the whole base"),
        ("t5", ["--learning_rate", "1e30"], "lower --learning_rate"),
        ("t5", ["--method", "targeted", "--phi", "/nowhere"], "no Train-Attention here"),
        ("t5", ["--method", "rho", "--ta_train", "/nowhere"], "no TA-train facts"),
        ("t5", ["--dataset_version", "day", "--data", str(SAMPLE / "month")], "dates are by month"),
        ("t5", ["--method", "recadam", "--recadam.t0_share", "0.25", "--learning_rate", "2e-3"], "diverges"),
        ("t5", ["--method", "recadam"], "pass --recadam.t0_share"),
    ],
)
def test_what_cannot_be_run_is_told(run, family, arguments, message):
    with pytest.raises(UserError, match=message):
        run(None, *arguments, family=family)


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
def test_a_bad_configuration_file_is_told(run, tmp_path, written, message):
    path = tmp_path / "c.json"
    path.write_bytes(written)
    with pytest.raises(UserError, match=message):
        run(path)


def test_another_runs_folder_and_another_models_checkpoint_are_refused(run, tmp_path):
    run(None, out=tmp_path / "run")
    with pytest.raises(UserError, match=r"--limit 0, this one has 2; give this run another --output_dir"):
        run(None, "--limit", 2, out=tmp_path / "run")
    checkpoint = next((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(UserError, match="another model"):
        run(None, "--checkpoint_path", checkpoint, family="smollm2")


def test_dates_with_texts_or_queries_alone_and_duplicate_rows(run, tmp_path):
    folder = tmp_path / "stream"
    folder.mkdir()
    for kind, dropped in (("train", '"2023-10"'), ("test", '"2023-12"')):
        rows = (SAMPLE / "month" / f"datesorted_{kind}.jsonl").read_text().splitlines()
        kept = [row for row in rows if dropped not in row]
        (folder / f"datesorted_{kind}.jsonl").write_text("\n".join([*kept[::-1], kept[0]]) + "\n")
    rows = run(None, "--data", folder)["eval_result"]
    assert list(rows) == ["2023-9", "2023-10", "2023-12", "2024-2"]
    assert rows["2023-10"]["texts"] == 0 and rows["2023-10"]["em"] is not None and rows["2023-10"]["loss"] is None
    assert rows["2023-12"]["facts"] == 0 and rows["2023-12"]["em"] is None and rows["2023-12"]["loss"] > 0
    with pytest.raises(UserError, match="holds no texts"):
        (folder / "datesorted_train.jsonl").write_text("")
        run(None, "--data", folder)


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


def test_vanilla_may_be_typed_for_vannila(run):
    assert run(CONFIGS / "quarter" / "t5_vanilla.json")["method"] == "baseline"
    assert {NAMES[name][0] for name in ("vannila", "vanilla", "baseline")} == {"finetune"}


def test_validation_asks_a_checkpoint_about_every_date_and_trains_nothing(run, tmp_path, capsys):
    settings = ("--num_train_epochs", 20, "--learning_rate", 2e-3, "--optimizer", "adafactor", "--input_length", 40,
                "--output_length", 60)  # fmt: skip
    result = run(None, *settings, out=tmp_path / "run")
    (last,) = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    with pytest.raises(UserError, match="cannot read"):  # it makes no result file
        run(None, *settings, "--check_validation", "true", "--checkpoint_path", last, out=tmp_path / "check")
    rows = list(csv.DictReader((tmp_path / "check" / "validation.csv").open()))
    assert [row["date"] for row in rows] == list(result["eval_result"])
    assert float(rows[-1]["em"]) == result["eval_result"]["2024-2"]["em"] > 0
    assert not (tmp_path / "check" / "checkpoints").exists()


def test_the_log_and_the_predictions_are_what_the_result_says(run, tmp_path):
    result = run(None, "--output_log", tmp_path / "log.csv", "--num_train_epochs", 20, "--learning_rate", 2e-3,
                 "--optimizer", "adafactor", out=tmp_path / "run")  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["date"] for row in rows] == ["2023-9", "2023-10", "2023-12", "2024-2"]
    for row in rows:
        path = tmp_path / "run" / "predictions" / f"{row['date']}_{row['date']}.jsonl"
        said = [json.loads(line) for line in path.read_text().splitlines()]
        assert float(row["em"]) == sum(answer["em"] for answer in said) / len(said)
        assert float(row["em"]) == result["eval_result"][row["date"]]["em"]
    assert (tmp_path / "run" / "stream.png").stat().st_size > 10_000


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


def test_lengths_and_beams_change_what_is_said(run, tmp_path):
    settings = ("--num_train_epochs", 2, "--learning_rate", 1e-3)

    def said(name: str, *arguments: object, family: str = "smollm2") -> list[str]:
        run(None, *settings, *arguments, family=family, out=tmp_path / name)
        path = tmp_path / name / "predictions" / "2023-10_2023-10.jsonl"
        return [json.loads(line)["said"] for line in path.read_text().splitlines()]

    long = said("long")
    assert said("short", "--output_length", 2) != long and said("given", "--input_length", 3) != long
    assert said("beams", "--beams", 3) != long and said("seed", "--seed", 1, "--method", "lora") != long
    assert said("again") == long


def test_batches_and_workers_of_asking_are_the_configured_ones(run, monkeypatch):
    loaded = []
    plain = generation.DataLoader

    def load(prompts, **options):
        loaded.append((max(map(len, prompts.parts)), options["num_workers"]))
        return plain(prompts, **options)

    monkeypatch.setattr(generation, "DataLoader", load)
    run(None, "--eval_batch_size", 3, "--num_workers", 1, "--limit", 4)
    assert set(loaded) == {(3, 1), (1, 1)}  # a month has one fact


def test_checkpoints_are_kept_as_asked(run, tmp_path):
    for kept, count in ((1, 1), (2, 2), (0, 4)):
        run(None, "--keep_checkpoints", kept, "--limit", 1, out=tmp_path / str(kept))
        assert len(list((tmp_path / str(kept) / "checkpoints").iterdir())) == count
        assert not list((tmp_path / str(kept) / "training").iterdir())


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


@pytest.mark.parametrize(
    ("model", "method", "sharded"),
    [("t5", "vanilla", "true"), ("t5", "mixreview", "false"), ("decoder", "lora", "true")],
)
def test_two_processes_give_the_numbers_of_one(t5_folder, tiny_folder, tmp_path, model, method, sharded):
    settings = ("--model", t5_folder if model == "t5" else tiny_folder, "--method", method, "--data", SAMPLE,
                "--dataset_version", "quarter", "--precision", "fp32", "--device", "cpu", "--num_train_epochs", 4,
                "--learning_rate", 1e-3, "--input_length", 40, "--output_length", 60)  # fmt: skip

    def command(arguments: tuple) -> dict:
        name, *rest = arguments
        done = run_module("run", *settings, "--output_dir", tmp_path / name, *rest)
        assert done.returncode == 0, done.stderr
        return load_result(tmp_path / name / "result.pkl")

    one, two = two_at_once(command, [
        ("one", "--gradient_accumulation_steps", 2),
        ("two", "--gradient_accumulation_steps", 1, "--ngpu", 2, "--use_deepspeed", sharded),
    ])  # fmt: skip
    first = True
    for date, row in one["eval_result"].items():  # sums are added in another order, and training goes apart slowly
        assert row["loss"] == pytest.approx(two["eval_result"][date]["loss"], rel=1e-3 if first else 5e-2)
        first = False


def test_a_launcher_with_another_number_of_processes_is_refused(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="pass --ngpu 4"):
        run(None)


def test_the_packaged_decoder_runs_by_its_own_configuration(tmp_path):
    done = run_module("run", "--config", CONFIGS / "quarter" / "smollm2_lora.json", "--data", SAMPLE, "--limit", 3,
                      "--output_dir", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 dates" in done.stdout and load_result(tmp_path / "result.pkl")["summary"]["seconds"] > 0
