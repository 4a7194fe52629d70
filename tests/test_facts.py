"""Run: pytest tests/test_facts.py. Every bad row is refused with its file and line; where the answer lies."""

import json

import pytest
from datasets import load_dataset

from taalm.errors import UserError
from taalm.facts import Fact, fact_from_row, facts_from_rows, occurrences, read_facts

ROW = {
    "relation_code": "P413",
    "uuid": "a-1",
    "task_descriptive": "Mia Ost plays in the position of goalkeeper .",
    "task_schematic": "Guess the object. \n  subject is Mia Ost , relation is position , object is goalkeeper",
    "subject": "Mia Ost",
    "relation_label": "position",
    "object": "goalkeeper",
    "masked_evidence": "Mia Ost (born 1990) is a football [MASK] from Graz.",
    "evidence": "Mia Ost (born 1990) is a football goalkeeper from Graz.",
    "position": 0.5,
    "evidence_length": 55,
    "invariant": False,
    "scores": {"descriptive": {"m": 0.0}},
}


def changed(**fields) -> dict:
    return {**ROW, **fields}


def fact(**fields) -> Fact:
    return fact_from_row(changed(**fields), "here:1")


def refusal(tmp_path, *lines: dict | str | bytes) -> str:
    """The message for a file whose first line is a good row and whose other lines are `lines`; path written FILE."""
    path = tmp_path / "rows.jsonl"
    raw = [line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
           for line in (ROW, *lines)]  # fmt: skip
    path.write_bytes(b"\n".join(raw) + b"\n")
    with pytest.raises(UserError) as error:
        read_facts(path)
    return str(error.value).replace(str(path), "FILE")


def without(name: str) -> dict:
    return {key: value for key, value in ROW.items() if key != name}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (without("evidence"), "FILE:2: the field 'evidence' is missing"),
        (without("uuid"), "FILE:2: the field 'uuid' is missing"),
        (changed(object=7), "FILE:2: the field 'object' must be text, found 7"),
        (changed(task_schematic=None), "FILE:2: the field 'task_schematic' must be text, found None"),
        (changed(evidence=" \n"), "FILE:2: the document (field 'evidence') is empty"),
        (changed(subject=""), "FILE:2: the field 'subject' is empty"),
        (changed(masked_evidence=ROW["evidence"]), "FILE:2: masked_evidence must contain [MASK] exactly once"),
        (changed(masked_evidence="a [MASK] b [MASK]"), "FILE:2: masked_evidence must contain [MASK] exactly once"),
        (
            changed(masked_evidence="Mia is a [MASK]."),
            "FILE:2: masked_evidence with [MASK] replaced by the object is not the evidence",
        ),
        (
            changed(uuid="b", task_descriptive="Mia Ost plays ."),
            "FILE:2: the object 'goalkeeper' does not occur in task_descriptive 'Mia Ost plays .'",
        ),
        (
            changed(uuid="b", task_schematic="object is"),
            "FILE:2: the object 'goalkeeper' does not occur in task_schematic 'object is'",
        ),
        (ROW, "FILE:2: uuid 'a-1' occurs already at FILE:1"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, message):
    assert refusal(tmp_path, row) == message


@pytest.mark.parametrize("scores", [3, {"descriptive": 0.5}])
def test_scores_that_are_no_table_are_refused(tmp_path, scores):
    assert refusal(tmp_path, changed(uuid="b", scores=scores)).startswith("FILE:2: the field 'scores'")


@pytest.mark.parametrize(("line", "kind"), [("[1, 2]", "list"), ('"text"', "str"), ("3", "int"), ("null", "NoneType")])
def test_a_line_that_is_no_object_is_refused(tmp_path, line, kind):
    assert refusal(tmp_path, line) == f"FILE:2: expected a JSON object, found {kind}"


@pytest.mark.parametrize("line", ['{"uuid": "x', "{'uuid': 1}", "[" * 100_000, "1" * 5000])
def test_a_broken_json_line_is_refused(tmp_path, line):
    assert refusal(tmp_path, line).startswith("FILE:2: not valid JSON (")


def test_blank_lines_are_skipped_but_counted(tmp_path):
    assert refusal(tmp_path, "", "   ", without("object")) == "FILE:4: the field 'object' is missing"


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    latin = json.dumps(changed(uuid="b", subject="Zoë"), ensure_ascii=False).encode("latin-1")
    filler = [changed(uuid=str(index)) for index in range(40)]  # more than one read buffer
    message = refusal(tmp_path, *filler, latin)
    assert "not UTF-8" in message and message.startswith("FILE:42: ")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.jsonl: cannot read this file \(No such file or directory\)"):
        read_facts(tmp_path / "nowhere.jsonl")
    with pytest.raises(UserError, match=r"cannot read this file \(Is a directory\)"):
        read_facts(tmp_path)


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_an_empty_file_is_refused(tmp_path, text):
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=r"empty\.jsonl: holds no facts"):
        read_facts(path)


def test_rows_survive_the_way_to_a_file_and_back(tmp_path):
    rows = [
        ROW,
        changed(uuid="b", subject="Žofie 東", evidence="Žofie 東: goalkeeper", masked_evidence="Žofie 東: [MASK]"),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    facts = read_facts(path)
    assert [f.to_row() for f in facts] == rows
    assert [f.where for f in facts] == [f"{path}:1", f"{path}:2"]
    assert [fact_from_row(f.to_row(), "elsewhere") for f in facts] == facts


def test_optional_fields_have_defaults_and_unknown_ones_are_dropped():
    short = {name: ROW[name] for name in list(ROW)[:9]}
    found = fact_from_row({**short, "note": "x"}, "here:1").to_row()
    assert found == {**short, "position": 0.0, "evidence_length": 0, "invariant": False, "scores": {}}


@pytest.mark.parametrize(
    ("subject", "object", "probe", "start"),
    [
        ("Paris Saint-Germain", "Paris", "Paris Saint-Germain is based in Paris .", 32),
        ("University of Oslo", "Oslo", "Oslo is home to University of Oslo .", 0),
        ("Guinea-Bissau", "Guinea", "Guinea borders Guinea-Bissau .", 0),
        ("Ann", "poet", "A poet , Ann is a poet .", 18),  # two outside the subject: the last, where the slot is
        ("Luxembourg", "Luxembourg", "The capital of Luxembourg is Luxembourg .", 29),
        ("Guatemala", "Guatemala City", "The capital of Guatemala is Guatemala City .", 28),
        ("Guatemala", "Guatemala City", "Guatemala City is the capital of Guatemala .", 0),  # the subject in the object
    ],
)
def test_the_answer_is_the_occurrence_outside_the_subject(subject, object, probe, start):
    document = {"masked_evidence": "[MASK] !", "evidence": f"{object} !"}
    found = fact(subject=subject, object=object, task_descriptive=probe, task_schematic=f"is {object}", **document)
    assert found.answer_span("descriptive") == (start, start + len(object))


def test_the_answer_of_the_schematic_form_is_its_end():
    probe = "Guess the object. \n  subject is Oslo , relation is capital of , object is Oslo"
    found = fact(subject="Oslo", object="Oslo", task_schematic=probe, task_descriptive="Oslo Oslo",
                 masked_evidence="[MASK]", evidence="Oslo")  # fmt: skip
    assert found.answer_span("schematic") == (len(probe) - 4, len(probe))


def test_the_objects_place_in_the_document_is_that_of_the_mask():
    document = {"masked_evidence": "a banana, [MASK] pear", "evidence": "a banana, a pear"}
    found = fact(object="a", task_descriptive="is a", task_schematic="is a", **document)
    assert found.object_span() == (10, 11)


@pytest.mark.parametrize(
    ("document", "first"),
    [
        ("[MASK] is what Mia Ost is.", True),
        ("Mia Ost is a [MASK].", False),
        ("She is a [MASK].", True),  # the subject is not named at all
        ("Mia Ost , a [MASK] ; Mia Ost", False),
    ],
)
def test_object_first_says_which_the_document_names_first(document, first):
    found = fact(masked_evidence=document, evidence=document.replace("[MASK]", "goalkeeper"))
    assert found.object_first() is first


def test_occurrences_include_overlapping_ones():
    assert occurrences("aaXa", "a") == [(0, 1), (1, 2), (3, 4)] and occurrences("aaa", "aa") == [(0, 2), (1, 3)]
    assert occurrences("abc", "x") == []


def test_rows_of_datasets_are_facts_as_those_of_the_file_are(tmp_path):
    """load_dataset gives every row every column: the second one's position and one model's scores are None."""
    short = {name: value for name, value in changed(uuid="b").items() if name != "position"}
    rows = [ROW, {**short, "scores": {"schematic": {"n": 1.0}}}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert facts_from_rows(table) == facts_from_rows(rows) == read_facts(path)
    assert [fact.where for fact in facts_from_rows(table)] == ["rows[0]", "rows[1]"]
    table.to_json(tmp_path / "back.jsonl")
    assert read_facts(tmp_path / "back.jsonl") == read_facts(path)


def test_bad_rows_in_memory_are_named():
    with pytest.raises(UserError, match=r"rows\[1\]: uuid 'a-1' occurs already at rows\[0\]"):
        facts_from_rows([ROW, ROW])
    with pytest.raises(UserError, match=r"rows\[0\]: expected a JSON object, found str"):
        facts_from_rows(["text"])
    with pytest.raises(UserError, match="rows: holds no facts"):
        facts_from_rows(iter(()))
