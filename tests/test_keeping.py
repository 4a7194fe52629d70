"""Run: pytest tests/test_keeping.py. The share of an adapter that keeps enough, and a run that takes it every epoch."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from taalm import evaluate
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.keeping import KNOWN, KeepConfig, Keeping, largest_share
from taalm.results import load_result


@pytest.mark.parametrize("start", [0.0, 0.05, 0.5, 0.65, 0.7, 1.0])
@pytest.mark.parametrize(("wanted", "found"), [(0.5, 1.0), (0.95, 0.65), (0.996, 0.05), (1.0, 0.0)])
def test_the_largest_share_that_keeps_enough_is_found_from_anywhere(start, wanted, found):
    kept = {step: 1 - 0.0035 * step if step < 14 else 0.9 for step in range(1, 20)} | {20: 0.6}  # 13 steps: .9545
    assert largest_share(lambda share: kept[round(20 * share)], wanted, start) == pytest.approx(found)


@pytest.fixture
def file(sample_folder, tmp_path):
    rows = [
        json.loads(line) for line in (sample_folder / "not_to_forget_descriptive.jsonl").read_text().splitlines()[:4]
    ]
    path = tmp_path / "known.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_theta_0_knows_of_the_facts_about_other_subjects_is_kept(file):
    facts = read_facts(file)
    keeping = Keeping(KeepConfig(share=0.6, facts=[str(file), str(file)]), {facts[0].subject})
    assert keeping.facts == facts[1:]
    asked = []

    def answered(share: float) -> list[float]:
        """The second one is not known; the third is lost above .5, the first above .8."""
        asked.append(share)
        return [float(share <= 0.8), float(share > 0), float(share <= 0.5)]

    assert keeping.share(answered, 1.0) == 0.5 and keeping.share(answered, 0.4) == 0.5
    assert asked.count(0) == 1
    keeping.wanted = 0.5
    assert keeping.share(answered, 0.5) == 0.8


def test_without_a_fact_to_keep_there_is_no_share(file):
    config = KeepConfig(share=0.95, facts=[str(file)])
    with pytest.raises(UserError, match="all facts there are about subjects that are asked or taught"):
        Keeping(config, {fact.subject for fact in read_facts(file)})
    with pytest.raises(UserError, match="the model answers none of these 4 facts"):
        Keeping(config, ()).share(lambda share: [0.0, 0.5, 0.0, 0.0], 1.0)


def test_the_facts_to_keep_that_come_with_the_project_are_known_and_each_is_there_once():
    facts = read_facts(KNOWN)
    assert len({fact.task_descriptive for fact in facts}) == len(facts) > 200
    assert all(fact.scores["descriptive"]["smollm2-135m"] == 1 for fact in facts)


@pytest.fixture
def run(tiny_folder, sample_folder, tmp_path):
    def one(name: str, *flags: str) -> dict:
        model = ("--model.name", str(tiny_folder), "--model.first_layer", "0", "--model.precision", "fp32")
        short = ("--limit", "8", "--adapt.epochs", "2", "--adapt.batch_size", "4", "--adapt.lr", "3e-2")
        where = ("--data", str(sample_folder), "--out", str(tmp_path), "--name", name, "--quiet", "true")
        evaluate.main([*model, *short, *where, *flags])
        return load_result(tmp_path / f"{name}.pkl")

    return one


def test_a_run_asks_and_saves_the_model_at_the_share_that_keeps_enough(run, sample_folder, tmp_path, monkeypatch):
    """.5 from the first epoch on: what --scale 0.5 has; other shares are asked beside it."""
    starts, data = [], shutil.copytree(sample_folder, tmp_path / "data")
    tuning = shutil.copyfile(data / "tune_to_learn.jsonl", data / "tune_not_to_forget.jsonl")

    def share(keeping: Keeping, answered, start: float) -> float:
        starts.append(start)
        assert len(answered(0.3)) == len(keeping.facts)
        return 0.5 if len(starts) % 3 != 1 else 1.0  # epoch 0 is theta_0

    monkeypatch.setattr(Keeping, "share", share)
    kept = run("kept", "--data", str(data), "--keep.share", "0.95", "--swap_halves", "true", "--scales", "[1]")
    half, whole = run("half", "--scale", "0.5", "--swap_halves", "true"), run("whole")
    assert kept["config"]["keep"]["facts"] == [str(KNOWN), str(tuning)]
    assert starts == [1.0, 1.0, 0.5] * 3
    shares = [{epoch: entry.pop("share") for epoch, entry in kept["eval_result"].items()}]
    shares += [{epoch: entry.pop("share") for epoch, entry in part["eval_result"].items()} for part in kept["halves"]]
    assert shares == [{0: 1.0, 1: 0.5, 2: 0.5}] * 3
    timeless = [_without_seconds(result["eval_result"]) for result in (kept, half, whole)]
    assert timeless[0] == timeless[1] != timeless[2]
    assert [_without_seconds(part["eval_result"]) for part in kept["halves"]] == [
        _without_seconds(part["eval_result"]) for part in half["halves"]
    ]
    assert kept["scaled"]["1.0"]["acc_changed"] == whole["eval_result"][2]["acc_changed"]
    saved = [load_file(tmp_path / "runs" / name / "adapter/adapter_model.safetensors") for name in ("kept", "half")]
    assert all(saved[0][name].equal(value) for name, value in saved[1].items())


def _without_seconds(history: dict) -> dict:
    return {
        epoch: {name: value for name, value in entry.items() if name != "seconds"} for epoch, entry in history.items()
    }


def test_subjects_that_are_asked_or_taught_are_not_among_the_facts_to_keep(run, sample_folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Keeping, "share", lambda keeping, answered, start: seen.append(keeping.facts) or 1.0)
    rows = {name: read_facts(sample_folder / f"{name}.jsonl") for name in ("to_learn", "ta_train", "tune_to_learn")}
    file, flags = tmp_path / "known.jsonl", ("--keep.share", "0.9", "--adapt.epochs", "0")
    some = [rows["to_learn"][0], rows["ta_train"][0], replace(rows["tune_to_learn"][0], where="")]
    file.write_text("".join(json.dumps(fact.to_row()) + "\n" for fact in some))
    run("plain", *flags, "--keep.facts", f"[{file}]")
    assert seen[0] == some[1:]
    run("taught", *flags, "--keep.facts", f"[{file}]", "--method", "oracle+views+kl", "--views.asked", "1")
    assert seen[1] == some[2:]
    file.write_text(json.dumps(some[2].to_row()) + "\n")
    with pytest.raises(UserError, match=r"--keep\.facts names has changed"):
        run("plain", *flags, "--keep.facts", f"[{file}]", "--scales", "[0.5]")


def test_a_share_is_given_or_found_and_only_lora_has_one(run):
    with pytest.raises(UserError, match=r"--scale 0\.5 and --keep\.share"):
        run("both", "--scale", "0.5", "--keep.share", "0.95")
    with pytest.raises(UserError, match=r"--keep\.share 0\.95: only LoRA is scaled so, and the adapter is full"):
        run("full", "--model.adapter", "full", "--keep.share", "0.95")
    with pytest.raises(UserError, match="the model answers none of these"):
        run("none", "--keep.share", "0.95")
