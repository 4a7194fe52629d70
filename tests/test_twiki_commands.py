"""Run: pytest tests/test_twiki_commands.py. TemporalWiki's scripts on small made-up probes and a tiny model."""

import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taalm.benchmarks.temporal_wiki import PERIODS, SETS, read_triples
from taalm.benchmarks.temporal_wiki_pairs import PairsConfig
from taalm.benchmarks.temporal_wiki_pairs import build as build_pairs
from taalm.benchmarks.temporal_wiki_stand_in import StandInConfig, build, default_folder, source_digest
from taalm.config import parse
from taalm.errors import UserError
from taalm.evaluate_twiki import TwikiConfig
from taalm.facts import read_facts, read_jsonl
from taalm.results import load_result
from tests.conftest import ROOT, run_module, two_at_once
from tests.test_scripts import TINY_TRAIN, run_script

RELATIONS = ("place of birth", "occupation", "capital")
PARAGRAPH = (
    "The river rises in the hills . It flows past three villages and a mill . Boats are rare @-@ but not unknown . "
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A data folder with probes, WikiText and templates, but no DIFFSETs."""
    folder, rng = tmp_path_factory.mktemp("raw"), random.Random(0)
    for part in ("TemporalWiki/eval", "wikitext-2", "wikidata"):
        (folder / part).mkdir(parents=True)
    for period in PERIODS:
        for name in SETS:
            rows = [
                {
                    "subject": f"Nora {period[:2]}{name[0]}{n}",
                    "relation": rng.choice(RELATIONS),
                    "object": f"Place {n % 7}",
                }
                for n in range(40)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "TemporalWiki" / "eval" / f"{period}_{name}.jsonl").write_text(text)
    (folder / "wikitext-2" / "test.txt").write_text(f" = Title = \n\n {PARAGRAPH}\n {PARAGRAPH * 2}\n")
    templates = "Wikidata ID,Relation,Template\nP36,capital,<subject> has its capital at <object>.\n"
    (folder / "wikidata" / "templates.csv").write_text(templates)
    return folder


def test_the_stand_in_states_changed_facts_and_keeps_training_facts_apart(raw, tmp_path):
    out = build(StandInConfig(data=str(raw), out=str(tmp_path / "s"), documents=10, unchanged=6))
    evaluated = set()
    for period, diffset in PERIODS.items():
        changed = read_triples(out / "eval" / f"{period}_changed.jsonl")
        rows = [row for _, row in read_jsonl(out / "train" / f"diffset_{diffset}_filtered.jsonl")]
        assert len(changed) == len(rows) == 10
        for triple, row in zip(changed, rows, strict=True):
            start, end = row["object_span"]
            assert row["text"][start:end] == triple.object and triple.subject in row["text"]
            assert "Guess the object" not in row["text"] and " @" not in row["text"]
        asked = changed + read_triples(out / "eval" / f"{period}_unchanged.jsonl")
        evaluated |= {triple.subject for triple in asked}
    for name in ("ta_train", "tune_to_learn", "to_learn"):
        assert evaluated.isdisjoint(fact.subject for fact in read_facts(out / f"{name}.jsonl"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")}
    build(StandInConfig(data=str(raw), out=str(out), documents=10, unchanged=6))
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")}


def test_a_missing_source_is_named(raw, tmp_path):
    with pytest.raises(UserError, match=r"0901-1001_changed\.jsonl"):
        build(StandInConfig(data=str(tmp_path), out=str(tmp_path / "s")))


@pytest.fixture(scope="module")
def stand_in(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("stand_in")
    return build(StandInConfig(data=str(raw), out=str(out), documents=10, unchanged=6))


def test_training_for_temporalwiki_then_every_script(raw, stand_in, tiny_folder, tmp_path):
    trained = run_script(
        "train_TA/temporalwiki.sh", tmp_path, *TINY_TRAIN.split(), "--theta.name", tiny_folder, "--phi.backbone",
        tiny_folder, "--out", "phis", TAALM_DATA=str(raw),
    )  # fmt: skip
    shutil.rmtree(default_folder() / source_digest(raw))
    assert trained.returncode == 0, trained.stderr
    scripts = sorted((ROOT / "scripts" / "eval" / "twiki").glob("*.sh"))

    def evaluate(script: Path) -> subprocess.CompletedProcess:
        return run_script(
            f"eval/twiki/{script.name}", tmp_path, "--model.name", tiny_folder, "--model.first_layer", 0, "--data",
            stand_in, "--limit", 4, "--probes", 4, "--adapt.batch_size", 2, "--out", "results", "--phi_runs", "phis",
        )  # fmt: skip

    for script, done in zip(scripts, two_at_once(evaluate, scripts), strict=True):
        assert done.returncode == 0, done.stderr
        assert "stand-in stream" in done.stdout and "1101-1201" in done.stdout
        results = [load_result(tmp_path / "results" / f"{script.stem}_{index}.pkl") for index in range(3)]
        assert [result["period"] for result in results] == list(PERIODS) and all(r["stand_in"] for r in results)


def test_each_period_goes_on_from_the_last(stand_in, tiny_folder, tmp_path):
    same = stand_in.parent / "same"  # every period asks the same probes
    for diffset in PERIODS.values():
        (same / "train").mkdir(parents=True, exist_ok=True)
        text = (stand_in / "train" / f"diffset_{diffset}_filtered.jsonl").read_text()
        (same / "train" / f"diffset_{diffset}_filtered.jsonl").write_text(text)
    for period in PERIODS:
        (same / "eval").mkdir(exist_ok=True)
        for name in SETS:
            text = (stand_in / "eval" / f"0901-1001_{name}.jsonl").read_text()
            (same / "eval" / f"{period}_{name}.jsonl").write_text(text)
    done = run_module(
        "taalm.evaluate_twiki", "--method", "finetune", "--data", same, "--model.name", tiny_folder, "--adapt.lr", 1e-2,
        "--model.first_layer", 0, "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [load_result(tmp_path / f"finetune_seed42_{index}.pkl") for index in range(3)]
    for earlier, later in itertools.pairwise(results):
        for key in ("unchanged", "changed", "average"):
            assert later["before"][key] == pytest.approx(earlier["summary"][key], rel=1e-6)
        assert later["summary"]["changed"] != pytest.approx(later["before"]["changed"], rel=1e-3)
        for name in SETS:
            losses = later["eval_result"][1][f"nll_{name}"]
            assert sum(losses) / len(later["subjects"][name]) == pytest.approx(later["summary"][name], rel=1e-3)
    assert not results[0]["stand_in"]  # no mark: these are taken for real DIFFSETs


def test_without_data_it_is_said_how_to_get_it(tmp_path):
    done = run_module("taalm.evaluate_twiki", "--data", tmp_path, "--out", tmp_path / "o")
    assert done.returncode == 2 and "scripts/data/temporalwiki.sh" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def lama(tmp_path_factory):
    """LAMA in small: 30 people, each with a birth place and a made-up employer."""
    folder = tmp_path_factory.mktemp("lama")
    (folder / "TREx").mkdir()
    relations = [
        {"relation": "P19", "template": "[X] was born in [Y] .", "label": "place of birth"},
        {"relation": "P108", "template": "[X] works for [Y] .", "label": "employer"},
    ]
    (folder / "relations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in relations))
    rows = [{"predicate_id": "P19", "sub_label": f"Ana Lund {n}", "obj_label": f"Town{n}"} for n in range(30)]
    (folder / "TREx" / "P19.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"predicate_id": "P108", "sub_label": "Ana Lund 29", "obj_label": "Ana"}]
    (folder / "TREx" / "P108.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_real_diffsets_give_training_pairs_and_no_subject_of_a_probe(lama, stand_in, tiny_folder, tmp_path):
    """The paragraph that states a fact becomes its document; the script trains on them."""
    data = tmp_path / "TemporalWiki"
    shutil.copytree(stand_in / "eval", data / "eval")
    asked = {"subject": "Ana Lund 3", "relation": "employer", "object": "Acme"}
    with (data / "eval" / "0901-1001_changed.jsonl").open("a") as file:
        file.write(json.dumps(asked) + "\n")
    (data / "train").mkdir()
    texts = [f"Nothing here.\nLong ago, Ana Lund {n}, a smith, moved to Town{n}. Mills stood." for n in range(26)]
    texts += [
        "Ana Lund 26 went to Town261.",
        "Town27 is near Ana Lund 27.",
        "Ana Lund 29 is Ana to friends.",
        "Ana Lund 28 left. Town28 is far.",
    ]
    for diffset, part in zip(PERIODS.values(), (texts[:10], texts[10:20], texts[20:]), strict=True):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (data / "train" / f"diffset_{diffset}_filtered.jsonl").write_text(rows)
    trained = run_script(
        "train_TA/temporalwiki.sh", tmp_path, *TINY_TRAIN.split(), "--theta.name", tiny_folder, "--phi.backbone",
        tiny_folder, "--out", "phis", TAALM_DATA=str(data), TWIKI_LAMA=str(lama),
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    found = [
        f for name in ("ta_train", "tune_to_learn", "to_learn") for f in read_facts(data / "train_ta" / f"{name}.jsonl")
    ]
    assert {fact.subject for fact in found} == {f"Ana Lund {n}" for n in [*range(26), 27] if n != 3}
    for method in ("rho", "review"):  # which read the training pairs' texts
        done = run_script(
            f"eval/twiki/{method}.sh", tmp_path, "--model.name", tiny_folder, "--model.first_layer", 0, "--limit", 4,
            "--probes", 4, "--out", "results", TAALM_DATA=str(data),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not load_result(tmp_path / "results" / f"{method}_0.pkl")["stand_in"]
    for fact in found:
        start, end = fact.object_span()
        assert fact.evidence[start:end] == fact.object and fact.subject in fact.evidence
        assert fact.relation_code == "P19" and "Nothing" not in fact.evidence


def test_too_few_pairs_and_no_lama_are_told(lama, stand_in, tmp_path):
    shutil.copytree(stand_in / "eval", tmp_path / "eval")
    shutil.copytree(stand_in / "train", tmp_path / "train")
    with pytest.raises(UserError, match="state 0 facts"):
        build_pairs(PairsConfig(data=str(tmp_path), lama=str(lama)))
    with pytest.raises(UserError, match=r"scripts/data/lama\.sh"):
        build_pairs(PairsConfig(data=str(tmp_path), lama=str(tmp_path)))


STUB = """#!{python}
import pathlib, sys
calls = pathlib.Path("calls.txt")
calls.write_text((calls.read_text() if calls.exists() else "") + " ".join(sys.argv[1:]) + chr(10))
if "taalm.train_ta" in sys.argv:  # what a trained phi leaves
    flags = dict(zip(sys.argv, sys.argv[1:]))
    folder = pathlib.Path(flags["--out"]) / f"seed{{flags['--seed']}}"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("")
"""


def test_the_table_is_made_again_by_one_script_that_goes_on(tmp_path):
    """What scripts/reproduce_twiki.sh runs, with a Python that only writes its calls down."""
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    for again in (False, True):
        done = run_script("reproduce_twiki.sh", tmp_path, PYTHON=str(stub), OUT=str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        calls = [line.split() for line in (tmp_path / "calls.txt").read_text().splitlines()]
        (tmp_path / "calls.txt").unlink()
        trained = [call for call in calls if "taalm.train_ta" in call]
        assert [call[call.index("--seed") + 1] for call in trained] == ([] if again else ["42", "43", "44"])
        configs = [
            parse(TwikiConfig, "evaluate/temporalwiki", call[2:], "evaluate_twiki")
            for call in calls
            if "taalm.evaluate_twiki" in call
        ]
        assert len({config.name for config in configs}) == len(configs) == 1 + 3 * 5
        assert all(config.name.endswith(f"_s{config.seed}") for config in configs)
        assert [config.adapt.epochs for config in configs] == [0, *[1] * 15]
        phis = [config.phi for config in configs if config.method == "targeted"]
        assert phis == [str(tmp_path / "out" / "twiki_phi" / f"seed{seed}" / "phi") for seed in (42, 43, 44)]
        assert calls[-1] == ["-m", "taalm.period_intervals", str(tmp_path / "out" / "twiki"), "--against", "finetune"]
