"""Run: pytest tests/test_halves_and_questions.py. An evaluation's halves, what its views ask, in which precision."""

import pytest

from taalm import evaluate
from taalm.checkpoint import load_state
from taalm.errors import UserError
from taalm.results import load_result


@pytest.fixture
def run(tiny_folder, sample_folder, tmp_path):
    def one(name: str, *flags: str) -> dict:
        model = ("--model.name", str(tiny_folder), "--model.first_layer", "0", "--model.precision", "fp32")
        short = ("--limit", "8", "--adapt.epochs", "1", "--adapt.batch_size", "4", "--save_adapter", "false")
        where = ("--data", str(sample_folder), "--out", str(tmp_path), "--name", name, "--quiet", "true")
        evaluate.main([*model, *short, *where, *flags])
        return load_result(tmp_path / f"{name}.pkl")

    return one


@pytest.mark.parametrize(("given", "updates"), [((), 1), (("--half_batch", "2"), 2)])
def test_a_half_makes_as_many_updates_as_the_whole_with_half_the_batch(run, tmp_path, given, updates):
    result = run("finetune", "--swap_halves", "true", *given)
    assert len(result["loss_by_step"]) == 2 and len(result["halves"]) == 2
    for half in range(2):
        _, values = load_state(tmp_path / "runs" / "finetune" / f"half{half}.safetensors")
        assert len(values["losses_by_step"]) == updates


def test_views_ask_what_ta_train_asks_unless_told_otherwise(run, sample_folder, tmp_path):
    asked = ("--method", "oracle+views+kl", "--views.asked", "1", "--views.templates", "[]")
    result = run("asked", *asked)
    assert result["config"]["views"]["questions"] == str(sample_folder / "ta_train.jsonl")
    file, rows = tmp_path / "some.jsonl", (sample_folder / "ta_train.jsonl").read_text().splitlines(keepends=True)
    rows = [row for row in rows if "plays the" not in row]
    file.write_text("".join(rows))
    other = run("other", *asked, "--views.questions", str(file))
    assert other["config"]["views"]["questions"] == str(file)
    assert other["eval_result"][1]["ppl_changed"] != result["eval_result"][1]["ppl_changed"]
    file.write_text("".join(rows[1:]))
    with pytest.raises(UserError, match=r"--views\.questions names has changed"):
        run("other", *asked, "--views.questions", str(file))


def test_without_views_no_questions_are_looked_for(run):
    assert run("plain", "--views.asked", "1", "--method", "finetune")["config"]["views"]["questions"] == ""


def test_a_model_that_learns_in_bf16_can_be_asked_in_fp32(run):
    """What is learned is the same; what is asked is fp32's: before the first update the model of an fp32 run."""
    asked = run("asked", "--model.precision", "bf16", "--ask_precision", "fp32")
    low, full = run("low", "--model.precision", "bf16"), run("full")
    assert asked["loss_by_step"] == low["loss_by_step"] != full["loss_by_step"]
    nll = [result["eval_result"][0]["ppl_changed"] for result in (asked, low, full)]
    assert nll[0] == nll[2] != nll[1]
    after = [result["eval_result"][1]["ppl_changed"] for result in (asked, low, full)]
    assert after[0] != nll[0] and after[0] == pytest.approx(after[1], rel=1e-2)
    with pytest.raises(UserError, match="--ask_precision does not go with"):
        run("shard", "--ask_precision", "fp32", "--model.shard", "true")


def test_other_shares_are_asked_of_the_whole_and_of_the_halves_in_place_of_the_configured_one(run):
    """Share 0 is theta_0, and .5 what --scale 0.5 asks, of the copy in another precision too."""
    learn = ("--method", "oracle", "--adapt.epochs", "15", "--adapt.lr", "3e-2", "--swap_halves", "true")
    given = (*learn, "--model.precision", "bf16", "--ask_precision", "fp32")
    half = run("half", *given, "--scale", "0.5", "--scales", "[0, 0.5, 1]")
    whole = run("whole", *given)
    assert half["scaled"]["0.0"]["acc_unchanged"] == half["eval_result"][0]["acc_unchanged"]
    assert half["scaled"]["0.0"]["adapted_acc"] is not None
    assert run("whole", *given, "--scales", "[1, 0.5]")["scaled"] == {
        share: half["scaled"][share] for share in ("0.5", "1.0")
    }
    more = run("whole", *given, "--swap_halves", "false", "--scales", "[0, 1]")["scaled"]
    assert more["1.0"] == half["scaled"]["1.0"]  # the halves' reading is not lost where they are not asked again
    assert set(more) == {"0.0", "0.5", "1.0"} and "read_knowledge" not in more["0.0"]
    for result, share in ((half, "0.5"), (whole, "1.0")):
        reached = half["scaled"][share]
        for name in ("acc_changed", "acc_unchanged"):
            assert reached[name] == result["eval_result"][15][name]
        for name in ("adapted_acc", "unseen_acc", "read_knowledge", "halves_nf_acc"):
            assert reached[name] == result["summary"][name]
    assert 0 < whole["summary"]["adapted_acc"] != half["summary"]["adapted_acc"]
    assert whole["summary"]["final_acc"] > 0
