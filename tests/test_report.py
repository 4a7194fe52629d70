"""Run: pytest tests/test_report.py. A folder of results as a page: LAMA-ckl, TemporalWiki, the stream."""

import re

import pytest

from taalm.errors import UserError
from taalm.plots.__main__ import main as plot
from taalm.report import main, settings
from taalm.results import save_result


def lama(method: str, seed: int) -> dict:
    history = {
        epoch: {"acc_changed": 0.1 * epoch, "acc_unchanged": 0.9, "to_learn": {"u": [float(epoch), 1.0]},
                "not_to_forget": {"v": [1.0, 1.0]}}
        for epoch in range(2)
    }  # fmt: skip
    framing = {"do-nothing": {"top_acc": 0.0, "nf_acc": 0.9, "total": 0.9}}
    return {"method": method, "config": {"method": method, "adapt": {"lr": 0.1}, "seed": seed}, "eval_result": history,
            "summary": {"top_acc": 0.1, "nf_acc": 0.9, "total": 1.0}, "framing": framing}  # fmt: skip


def twiki(period: str) -> dict:
    values = {"unchanged": 6.0, "changed": 7.0, "average": 6.5}
    return {"method": "finetune", "period": period, "before": values, "summary": values, "eval_result": {0: {}},
            "config": {"seed": 1}, "stand_in": True}  # fmt: skip


def stream(method: str) -> dict:
    row = {"em": 0.25, "bwt": None, "fwt": 0.1, "kg": 0.75}
    return {"method": method, "config": {"method": method}, "eval_result": {"2021-9": row},
            "summary": {"em": 0.25, "seconds": 3.0}}  # fmt: skip


@pytest.mark.parametrize(
    ("made", "shown", "pictures"),
    [
        ({"finetune_s1": lama("finetune", 1), "<b>_s2": lama("oracle", 2)}, "relation|do-nothing", 3),
        ({"finetune_0": twiki("0901-1001"), "finetune_1": twiki("1001-1101")}, "6.500", 1),
        ({"lora": stream("lora"), "vanilla": stream("vanilla")}, "0.250", 1),
    ],
)
def test_the_page_has_numbers_pictures_and_settings(tmp_path, made, shown, pictures):
    for name, result in made.items():
        save_result(tmp_path / f"{name}.pkl", result)
    (tmp_path / "w.html").write_text("<p>weights</p>")
    main([str(tmp_path), "--weights", str(tmp_path / "w.html")])
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert re.search(shown, page) and re.search(shown, text)
    assert page.count("data:image/png;base64,") == pictures == len(list((tmp_path / "report").glob("*.png")))
    assert "<b>" not in page and "&lt;p&gt;weights" in page and "http" not in page
    assert "| commit |" in text and "| versions |" in text


def test_settings_are_those_that_differ():
    rows = settings({"a": lama("finetune", 1), "b": lama("finetune", 2)})
    assert rows == [["setting", "a", "b"], ["seed", "1", "2"]]


def test_an_empty_folder_and_a_missing_page_are_told(tmp_path):
    with pytest.raises(UserError, match="no result files"):
        main([str(tmp_path)])
    save_result(tmp_path / "a.pkl", lama("finetune", 1))
    with pytest.raises(UserError, match="no such page"):
        main([str(tmp_path), "--weights", str(tmp_path / "none.html")])


def test_a_kind_of_picture_of_some_results_is_drawn(tmp_path, capsys):
    for name, seed in (("finetune_s1", 1), ("oracle_s1", 1)):
        save_result(tmp_path / f"{name}.pkl", lama(name, seed))
    plot([str(tmp_path)])
    plot([str(tmp_path), "--kind", "plane", "--only", "oracle_s1"])
    drawn = [(tmp_path / f"{kind}.png").read_bytes() for kind in ("curves", "plane")]
    assert all(png.startswith(b"\x89PNG") for png in drawn) and drawn[0] != drawn[1]
    assert "plane in" in capsys.readouterr().out
    for wrong, said in (
        (["--kind", "pie"], "curves, plane, gains"),
        (["--only", "x"], "there is no result x; there are"),
    ):
        with pytest.raises(UserError, match=said):
            plot([str(tmp_path), *wrong])
