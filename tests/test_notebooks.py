"""Run: pytest tests/test_notebooks.py. Every notebook from a clean kernel, on results that small runs make."""

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from taalm import evaluate, run_online, train_ta
from taalm.results import save_result
from tests.conftest import ROOT, two_at_once

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(name: str, environment: dict) -> nbformat.NotebookNode:
    """The notebook after a run from a clean kernel. Raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "notebooks")}})
    clean = {key: value for key, value in os.environ.items() if key not in ("TAALM_DATA", "PRESET")}
    client.execute(env={**clean, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in environment.items()}})
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> str:
    """All text of a notebook's outputs."""
    found = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return " ".join(json.dumps(output) for output in found)


def figures(notebook: nbformat.NotebookNode) -> int:
    return outputs(notebook).count('"image/png"')


@pytest.fixture(scope="module")
def made(tiny_folder, sample_folder, tmp_path_factory):
    """A folder of small runs' results."""
    folder = tmp_path_factory.mktemp("results")
    common = ["--model.name", str(tiny_folder), "--data", str(sample_folder), "--out", str(folder / "lamackl"),
              "--model.first_layer", "0", "--adapt.epochs", "1", "--quiet", "true"]  # fmt: skip
    for method, seed in (("finetune", 1), ("finetune", 2), ("oracle", 1)):
        evaluate.main([*common, "--method", method, "--seed", str(seed), "--name", f"{method}_s{seed}"])
    for method in ("vanilla", "lora"):
        run_online.main(["--model", str(tiny_folder), "--data", str(ROOT / "data" / "sample" / "online_wiki"),
                         "--method", method, "--output_dir", str(folder / "online" / method), "--limit", "2",
                         "--quiet", "true"])  # fmt: skip
    train_ta.main(["--theta.name", str(tiny_folder), "--phi.backbone", str(tiny_folder), "--theta.first_layer", "0",
                   "--phi.layers", "0", "--data", str(sample_folder), "--outer.steps", "3", "--outer.warm_start", "2",
                   "--outer.batch_size", "2", "--outer.eval_every", "1", "--outer.max_length", "40", "--judged", "2",
                   "--out", str(folder / "ta"), "--name", "r", "--quiet", "true"])  # fmt: skip
    numbers = {"unchanged": 6.2, "changed": 6.9, "average": 6.55}
    for index, period in enumerate(("0901-1001", "1001-1101", "1101-1201")):
        save_result(folder / "twiki" / f"finetune_{index}.pkl", {
            "method": "finetune", "period": period, "stand_in": True, "before": numbers, "summary": numbers,
            "eval_result": {0: {}, 1: {}},
        })  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def lama(tmp_path_factory):
    """Two facts of T-REx."""
    folder = tmp_path_factory.mktemp("LAMA")
    (folder / "TREx").mkdir()
    relation = {"relation": "P19", "label": "place of birth", "template": "[X] was born in [Y] ."}
    (folder / "relations.jsonl").write_text(json.dumps(relation) + "\n")
    rows = [
        {"uuid": name, "predicate_id": "P19", "sub_label": name, "obj_label": "Rome",
         "evidences": [{"masked_sentence": f"{name} was born in [MASK] . " + "And then much else happened . " * 8}]}
        for name in ("Ana", "Bo")
    ]  # fmt: skip
    (folder / "TREx" / "P19.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_every_notebook_runs_and_draws(made, lama, tiny_folder, tmp_path):
    wanted = {
        "observation_lamackl": ({"TAALM_RESULTS": made / "lamackl"}, 3, "finetune_s2"),
        "observation_twiki": ({"TAALM_RESULTS": made / "twiki"}, 1, "1101-1201"),
        "observation_online": ({"TAALM_RESULTS": made / "online"}, 1, "vanilla"),
        "TAALM_train_observing_history": ({"TAALM_RUNS": made / "ta"}, 1, "srcdoc"),
        "LAMA_ckl_pipeline": (
            {"TAALM_LAMA": lama, "TAALM_MODELS": tiny_folder, "TAALM_OUT": tmp_path / "made"}, 1, "candidates      2",
        ),
    }  # fmt: skip
    assert set(wanted) == {path.stem for path in NOTEBOOKS}
    done = two_at_once(lambda name: execute(name, wanted[name][0]), list(wanted))
    for notebook, (name, (_, drawn, shown)) in zip(done, wanted.items(), strict=True):
        assert figures(notebook) == drawn and shown in outputs(notebook), name


def test_a_broken_pickle_gives_one_clear_sentence(made, tmp_path):
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    with pytest.raises(CellExecutionError, match=r"bad\.pkl: this pickle wants to import"):
        execute("observation_lamackl", {"TAALM_RESULTS": tmp_path})


def test_notebooks_are_committed_with_outputs_of_real_runs():
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1)), path
        assert figures(notebook) >= 1 and str(ROOT) not in outputs(notebook), path
