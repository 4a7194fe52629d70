"""Run: pytest tests/test_adapt_documents.py. A user's own documents in one command."""

import json

import pytest
import torch
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM

from taalm.adapt_documents import Own, adapt, documents_from_rows, main, read_documents
from taalm.errors import UserError
from taalm.models.packaged import packaged_folder

ROWS = [
    {"text": "Brumlow Cheese is a hard cheese. It is made of sheep milk and ripens for two years in slate cellars.",
     "probe": "Brumlow Cheese is made of sheep milk.", "answer": "sheep"},
    {"text": "Halvard Ostrem is a Norwegian chess player. He works as an astronomer at the observatory of Tarnby.",
     "probe": "Halvard Ostrem works as an astronomer.", "answer": "astronomer"},
    {"text": "The Quillfeather Orchestra was founded by the violinist Tamsin Adeyemi. It gives forty concerts a year."},
]  # fmt: skip


def written(folder, rows):
    path = folder / "docs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_released_phi_teaches_the_packaged_model_and_peft_loads_the_adapter(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # no phi of one's own here
    out = tmp_path / "adapter"
    given = [written(tmp_path, ROWS), "--out", str(out), "--quiet", "true"]
    main(given)
    said = capsys.readouterr().out
    assert "phi from" in said and "released" in said
    assert "answered: 0 of 2 before" in said
    rows = json.loads((out / "report.json").read_text())["documents"]
    assert rows[0]["after"]["answered"] and not rows[0]["before"]["answered"]
    assert all(row["after"]["answer_loss"] < row["before"]["answer_loss"] - 2 for row in rows[:2])
    assert all(row["after"]["loss"] < row["before"]["loss"] for row in rows) and "answered" not in rows[2]["after"]
    base = AutoModelForCausalLM.from_pretrained(packaged_folder("smollm2-135m"), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, out)
    ids = torch.tensor([[1, 30, 400, 22]])
    learned = model(input_ids=ids).logits
    with model.disable_adapter():
        assert (learned - model(input_ids=ids).logits).abs().max() > 0.1
    main(given)  # a finished run says the same again
    assert "answered: 0 of 2 before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], r"docs\.jsonl:2: expected"),
        ({"txt": "x"}, r"docs\.jsonl:2: the field 'text' must be text, found None"),
        ({"text": "  "}, r"docs\.jsonl:2: the field 'text'"),
        ({"text": "x", "probe": "a b"}, r"docs\.jsonl:2: probe and answer go together"),
        ({"text": "x", "probe": "a b", "answer": "c"}, r"docs\.jsonl:2: the answer 'c' does not occur"),
        ({"text": "x", "probe": 3, "answer": "c"}, r"docs\.jsonl:2: the field 'probe' must be text, found 3"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        read_documents(written(tmp_path, [ROWS[0], row]))


def test_documents_are_asked_for(tmp_path):
    with pytest.raises(UserError, match="which documents"):
        main([])
    with pytest.raises(UserError, match="holds no documents"):
        main([written(tmp_path, [])])


def test_rows_in_memory_and_of_datasets_are_taught_as_the_file_is(tiny_folder, tmp_path):
    """load_dataset gives every row every column: the third row's probe is None."""
    path = written(tmp_path, ROWS)
    flags = ("--method", "finetune", "--model.name", tiny_folder, "--model.first_layer", 0, "--adapt.epochs", 2,
             "--quiet", "true", "--out")  # fmt: skip
    main([path, *map(str, flags), str(tmp_path / "file")])
    expected = json.loads((tmp_path / "file" / "report.json").read_text())["documents"]
    loaded = load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[2]["probe"] is None
    for name, rows in (("list", ROWS), ("generator", iter(ROWS)), ("dataset", loaded)):
        assert adapt(rows, *flags, tmp_path / name)["documents"] == expected
    assert documents_from_rows(loaded) == [
        Own(one.document._replace(where=f"rows[{index}]"), one.probe, one.answer)
        for index, one in enumerate(read_documents(path))
    ]
    loaded.to_json(tmp_path / "back.jsonl")
    assert [one.probe for one in read_documents(str(tmp_path / "back.jsonl"))] == [row.get("probe", "") for row in ROWS]
    with pytest.raises(UserError, match="list holds a run on other data: what --documents names has changed"):
        adapt(ROWS[:2], *flags, tmp_path / "list")


@pytest.mark.parametrize("method", ["kl", "finetune+review", "rho"])
def test_the_documents_themselves_are_no_review_texts(method, tiny_folder, tmp_path):
    """KL replay on what is to be learned would take the learning back."""
    path = written(tmp_path, ROWS)
    flags = ["--method", method, "--model.name", str(tiny_folder), "--model.first_layer", "0", "--quiet", "true"]
    with pytest.raises(UserError, match=r"needs texts beside the documents .* --review\.data FILE"):
        main([path, *flags, "--out", str(tmp_path / "out")])


def test_a_file_that_was_edited_since_is_not_reported_by_the_old_run(tiny_folder, tmp_path):
    flags = ["--method", "finetune", "--model.name", str(tiny_folder), "--model.first_layer", "0", "--quiet", "true"]
    path = written(tmp_path, ROWS)
    main([path, *flags, "--out", str(tmp_path / "out")])
    for rows in ([*ROWS[:-1], ROWS[0]], [*ROWS, ROWS[0]]):
        written(tmp_path, rows)
        with pytest.raises(UserError, match="what --documents names has changed since"):
            main([path, *flags, "--out", str(tmp_path / "out")])


def test_a_bad_row_in_memory_is_named():
    with pytest.raises(UserError, match=r"rows\[1\]: the field 'text' must be text, found 7"):
        documents_from_rows([ROWS[0], {"text": 7}])
    with pytest.raises(UserError, match="rows: holds no documents"):
        documents_from_rows([])
    for flags in (("--documents", "x.jsonl"), ("--dry_run", "true")):
        with pytest.raises(UserError, match="--documents and --dry_run are the command's"):
            adapt(ROWS, *flags)
