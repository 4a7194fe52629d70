"""Run: pytest tests/test_tracking.py. The same scalar names in Weights & Biases (offline) and TensorBoard."""

import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from taalm import evaluate, run_online, train_ta
from taalm.tracking import no_log, scalars
from tests.conftest import ROOT

TRAIN = {"train/loss", "train/learning_rate", "train/tokens_per_s"}


def tracked(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_scalars_are_the_numbers_under_a_prefix():
    values = {"a": 1, "b": {"c": 0.5, "d": "text"}, "e": None, "f": [1.0]}
    assert scalars("eval", values) == {"eval/a": 1, "eval/b.c": 0.5}
    no_log(values, 1)


def test_adaptation_and_evaluation_go_to_tensorboard(tiny_folder, sample_folder, tmp_path):
    command = ["--model.name", str(tiny_folder), "--data", str(sample_folder), "--out", str(tmp_path), "--name", "f",
               "--model.first_layer", "0", "--adapt.epochs", "2", "--adapt.batch_size", "4", "--quiet", "true",
               "--track.to", "tensorboard"]  # fmt: skip
    evaluate.main(command)
    found = tracked(tmp_path / "runs" / "f")
    names = set(found.Tags()["scalars"])
    assert names >= TRAIN | {"eval/acc_changed", "eval/acc_unchanged", "eval/loss"}
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in found.Scalars("eval/acc_changed")] == [2, 4]


def test_phi_and_the_stream_have_names_of_their_own(tiny_folder, sample_folder, tmp_path):
    train_ta.main(["--theta.name", str(tiny_folder), "--phi.backbone", str(tiny_folder), "--theta.first_layer", "0",
                   "--phi.layers", "0", "--data", str(sample_folder), "--outer.steps", "2", "--outer.warm_start", "1",
                   "--outer.batch_size", "2", "--outer.max_length", "40", "--judged", "0", "--out", str(tmp_path),
                   "--name", "r", "--quiet", "true", "--track.to", "tensorboard"])  # fmt: skip
    names = set(tracked(tmp_path / "r").Tags()["scalars"])
    assert names >= {"phi/fit_loss", "phi/task_loss", "phi/gradient_norm", "phi/valid.object_ratio.median"}
    run_online.main(["--model", str(tiny_folder), "--data", str(ROOT / "data" / "sample" / "online_wiki"),
                     "--output_dir", str(tmp_path / "s"), "--limit", "2", "--quiet", "true",
                     "--track.to", "tensorboard"])  # fmt: skip
    found = tracked(tmp_path / "s")
    assert set(found.Tags()["scalars"]) >= TRAIN | {"stream/em", "stream/kg", "stream/seconds"}
    assert [event.step for event in found.Scalars("stream/em")] == [1, 2, 3, 4]


def test_weights_and_biases_works_offline(tiny_folder, sample_folder, tmp_path):
    evaluate.main(["--model.name", str(tiny_folder), "--data", str(sample_folder), "--out", str(tmp_path),
                   "--name", "w", "--model.first_layer", "0", "--adapt.epochs", "1", "--quiet", "true",
                   "--track.to", "wandb_offline"])  # fmt: skip
    wandb.teardown()  # as at the end of a process: finish() alone returns before the file is whole on a busy machine
    (written,) = (tmp_path / "runs" / "w" / "wandb").glob("offline-run-*/*.wandb")
    assert b"train/loss" in written.read_bytes() and b"eval/acc_changed" in written.read_bytes()
