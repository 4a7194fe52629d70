"""Run: pytest tests/test_config.py. Where a setting's value comes from, what is refused and how, who owns a folder."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from taalm import config as config_module
from taalm.adapt import AdaptConfig
from taalm.config import CONFIGS, parse, run_entry, save_config
from taalm.errors import UserError
from taalm.evaluate import EvaluateConfig
from taalm.evaluate_twiki import TwikiConfig
from taalm.models.base import ModelConfig
from taalm.run_folder import claim
from taalm.train_ta import TrainTAConfig

ENTRY = "evaluate/lama_ckl"


@pytest.fixture(autouse=True)
def no_preset_in_the_environment(monkeypatch):
    monkeypatch.delenv("PRESET", raising=False)


@pytest.fixture
def presets(tmp_path, monkeypatch) -> Path:
    """A configs/ folder of our own: presets smollm2-135m (the default one) and other."""
    folder = tmp_path / "configs" / ENTRY
    folder.mkdir(parents=True)
    (folder / "smollm2-135m.yaml").write_text("model: {r: 3}\nadapt: {lr: 0.5, epochs: 2}\n")
    (folder / "other.yaml").write_text("model: {name: elsewhere}\n")
    monkeypatch.setattr(config_module, "CONFIGS", tmp_path / "configs")
    return folder


def read(*arguments: object) -> EvaluateConfig:
    return parse(EvaluateConfig, ENTRY, [str(argument) for argument in arguments], "evaluate")


def refusal(*arguments: object) -> str:
    with pytest.raises(UserError) as error:
        read(*arguments)
    return str(error.value)


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


# ---- precedence


@pytest.mark.parametrize("flag_first", [False, True])
def test_default_gives_way_to_preset_to_file_to_flag(presets, tmp_path, flag_first):
    file = yaml_file(tmp_path, "adapt: {epochs: 5, batch_size: 6}\nseed: 7\n")
    order = ["--seed", 9, "--config", file] if flag_first else ["--config", file, "--seed", 9]
    found = read(*order)
    assert found.adapt.clip_norm == AdaptConfig().clip_norm and found.model.name == ModelConfig().name  # default
    assert found.model.r == 3 and found.adapt.lr == 0.5  # preset
    assert found.adapt.epochs == 5 and found.adapt.batch_size == 6  # file over preset and default
    assert found.seed == 9  # flag over file


def test_a_flag_beats_the_preset(presets):
    assert read("--adapt.lr", "1e-5").adapt == AdaptConfig(lr=1e-5, epochs=2)


def test_without_anything_the_defaults_hold():
    defaults = EvaluateConfig()
    assert parse(EvaluateConfig, None, [], "evaluate") == defaults


def test_preset_is_a_flag_or_an_environment_variable(presets, monkeypatch):
    assert read("--preset", "other").model.name == read("--preset=other").model.name == "elsewhere"
    assert read("--preset", "other").model.r == ModelConfig().r  # the default preset is not mixed in
    monkeypatch.setenv("PRESET", "other")
    assert read().model.name == "elsewhere"
    assert read("--preset", "smollm2-135m").model.r == 3  # the flag is the stronger one


def test_a_preset_in_a_file_is_not_silently_ignored(presets, tmp_path):
    file = yaml_file(tmp_path, "preset: other\n")
    try:
        assert read("--config", file).model.name == "elsewhere"
    except UserError as error:
        assert "preset" in str(error)


ENTRIES = {
    "evaluate/lama_ckl": EvaluateConfig,
    "evaluate/temporalwiki": TwikiConfig,
    "train_ta/lama_ckl": TrainTAConfig,
}


@pytest.mark.parametrize(
    "entry", sorted({path.parent.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("*/*/*.yaml")})
)
def test_every_shipped_preset_is_read(entry):
    kind = ENTRIES[entry]
    for path in (CONFIGS / entry).glob("*.yaml"):
        found = dataclasses.asdict(parse(kind, entry, ["--preset", path.stem], "p"))
        for group, settings in yaml.safe_load(path.read_text()).items():
            assert settings.items() <= found[group].items() if isinstance(settings, dict) else found[group] == settings


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["--adapt.epoch", "3"], None, "unknown key --adapt.epoch; did you mean --adapt.epochs?"),
        (["--modle.name", "x"], None, "unknown key --modle.name; did you mean --model.name?"),
        (["--sed", "3"], None, "unknown key --sed; did you mean --seed?"),
        (["--qqqqq", "3"], None, "unknown key --qqqqq (--help lists all keys)"),
        ([], "adapt: {epoch: 3}", "unknown key --adapt.epoch; did you mean --adapt.epochs?"),
        ([], "sed: 3", "unknown key --sed; did you mean --seed?"),
    ],
)
def test_an_unknown_key_names_its_nearest_neighbour(tmp_path, arguments, text, message):
    files = ["--config", yaml_file(tmp_path, text)] if text else []
    assert refusal(*files, *arguments).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "text", "key", "value"),
    [
        (["--adapt.epochs", "many"], None, "adapt.epochs", "many"),
        (["--adapt.epochs", "1.5"], None, "adapt.epochs", "1.5"),
        (["--adapt.lr", "fast"], None, "adapt.lr", "fast"),
        (["--adapt.schedule", "cosin"], None, "adapt.schedule", "cosin"),
        (["--quiet", "maybe"], None, "quiet", "maybe"),
        ([], "adapt: {epochs: many}", "adapt.epochs", "many"),
        ([], "seed: [1]", "seed", "[1]"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_key(tmp_path, arguments, text, key, value):
    files = ["--config", yaml_file(tmp_path, text)] if text else []
    message = refusal(*files, *arguments)
    assert f'"{key}"' in message and value in message and "\n" not in message


@pytest.mark.parametrize("text", ["adapt: [1,\n", "\t- x: y"])
def test_a_broken_or_missing_yaml_file_is_refused(tmp_path, text):
    assert "config" in refusal("--config", yaml_file(tmp_path, text))
    assert "nowhere.yaml" in refusal("--config", tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("name", ["nope", "", "../train_ta/x"])
def test_an_unknown_preset_lists_the_presets(presets, name):
    expected = f"unknown preset {name!r} for evaluate/lama_ckl; the presets are other, smollm2-135m"
    assert refusal("--preset", name) == expected


def test_an_unknown_preset_in_the_environment_lists_the_presets(presets, monkeypatch):
    monkeypatch.setenv("PRESET", "nope")
    assert refusal().endswith("the presets are other, smollm2-135m")


@pytest.mark.parametrize(("word", "value"), [("false", False), ("False", False), ("true", True), ("True", True)])
def test_a_yes_or_no_flag_reads_the_word(word, value):
    found = read("--quiet", word, "--swap_halves", word, "--save_adapter", word)
    assert found.quiet is found.swap_halves is found.save_adapter is value


@pytest.mark.parametrize("word", ["123", "null", "true", "1e3", "[a]", "a: b", "naïve"])
def test_text_stays_text_on_the_command_line_and_through_a_file(tmp_path, word):
    found = read("--name", word)
    assert found.name == word
    save_config(found, tmp_path / "saved.yaml")
    assert read("--config", tmp_path / "saved.yaml").name == word


# ---- saved configurations


def test_a_saved_configuration_read_again_is_the_same(tmp_path):
    arguments = ["--adapt.lr", "1e-5", "--adapt.schedule", "cosine", "--quiet", "true", "--method", "oracle",
                 "--model.dropout", "0.1", "--seed", "3"]  # fmt: skip
    found = read(*arguments)
    assert found != read() and found.adapt.lr == 1e-5
    save_config(found, tmp_path / "saved.yaml")
    assert read("--config", tmp_path / "saved.yaml") == found
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text()) == dataclasses.asdict(found)


def test_a_folder_is_refused_to_another_configuration_by_the_settings_name(tmp_path):
    folder = tmp_path / "run"
    claim(folder, read())
    claim(folder, read("--seed", "1"))  # nothing was done yet: the folder is free
    claim(folder, read())
    (folder / "state.safetensors").touch()
    claim(folder, read())
    before = (folder / "config.yaml").read_text()
    with pytest.raises(
        UserError, match=r"run holds a run with --adapt\.lr 0\.0003, this one has 0\.1; .* another folder"
    ):
        claim(folder, read("--adapt.lr", "0.1"), keep=("quiet",))
    assert (folder / "config.yaml").read_text() == before


def test_what_a_run_reads_may_not_change_under_it(tmp_path):
    claim(tmp_path, read(), inputs={"phi": b"first"})
    claim(tmp_path, read(), inputs={"phi": b"second", "to_learn": [("a", "b")]})  # nothing was done yet
    (tmp_path / "state.safetensors").touch()
    claim(tmp_path, read(), inputs={"phi": b"second", "to_learn": [("a", "b")]})
    with pytest.raises(UserError, match="on other data: what --phi names has changed since; give this run another"):
        claim(tmp_path, read(), inputs={"phi": b"third"})
    with pytest.raises(UserError, match="what --to_learn names has changed"):
        claim(tmp_path, read(), inputs={"to_learn": [("a", "c")]})
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(UserError, match=r"inputs\.json: not what a run has read"):
        claim(tmp_path, read(), inputs={"phi": b"second"})


def test_settings_that_may_differ_do_not_matter(tmp_path):
    claim(tmp_path, read())
    (tmp_path / "state.safetensors").touch()
    claim(tmp_path, read("--quiet", "true", "--adapt.epochs", "9"), keep=("quiet", "adapt.epochs"))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["adapt"]["epochs"] == 9
    with pytest.raises(UserError, match="--quiet True, this one has False"):
        claim(tmp_path, read("--adapt.epochs", "9"))


@pytest.mark.parametrize(
    "flag",
    [
        "--rho.keep=2",
        "--rho.keep=-1",
        "--known_above=0",
        "--review.ratio=-1",
        "--adapt.lr=-1",
        "--adapt.warmup_ratio=2",
    ],
)
def test_a_number_out_of_its_range_is_told_at_once(flag):
    with pytest.raises(UserError, match=flag.partition("=")[0].removeprefix("--").replace(".", r"\.")):
        read(flag)


def test_a_run_made_before_a_setting_existed_had_its_default(tmp_path):
    claim(tmp_path, read())
    (tmp_path / "state").touch()
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("known_above: 1.0\n", ""))
    claim(tmp_path, read())
    path.write_text(path.read_text().replace("known_above: 1.0\n", ""))
    with pytest.raises(UserError, match=r"--known_above 1\.0, this one has 0\.9"):
        claim(tmp_path, read("--known_above", "0.9"))


def test_a_user_error_becomes_one_sentence_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prog", "--sed", "3"])
    with pytest.raises(SystemExit) as exit:
        run_entry(lambda arguments: read(*arguments))
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown key --sed; did you mean --seed?")


def test_an_interrupt_exits_with_130(monkeypatch, capsys):
    def main(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit:
        run_entry(main)
    assert exit.value.code == 130 and "run the same command again" in capsys.readouterr().err
