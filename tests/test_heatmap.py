"""Run: pytest tests/test_heatmap.py. The page, the pictures and the command that weighs; the page in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.image import imread

from taalm import train_ta, weigh
from taalm.errors import UserError
from taalm.heatmap import OUTLINE, SHADE, Weighed, by_word_class, frame, page, picture, save_page, snapshots_of, visible
from taalm.weighters.ner import load_pipeline

TEXT = "<b>Ana</b> & Bo met in Lyon"
PLACES = [(0, 3), (3, 6), (6, 10), (11, 12), (13, 15), (16, 19), (20, 22), (23, 27)]
DOCUMENT = Weighed(
    "row <1>", TEXT, PLACES, [False] * 7 + [True],
    {"phi": [0.5, 2.0, 0.0, 0.1, 1.0, 0.2, 0.1, 4.0], "oracle": [0.0] * 7 + [1.0], "nothing": [0.0] * 8},
)  # fmt: skip


def test_the_page_escapes_text_and_shades_by_weight():
    written = page([DOCUMENT], "a <title>")
    assert "<b>" not in written and "&lt;b&gt;Ana" not in written  # the tokens cut it
    assert (
        re.sub("<[^>]*>", "", written.split('class="text">')[1].split("</div>")[0])
        == "&lt;b&gt;Ana&lt;/b&gt; &amp; Bo met in Lyon"
    )
    assert "a &lt;title&gt;" in written and "row &lt;1&gt;" in written and "http" not in written
    shades = [float(found) for found in re.findall(r"/ ([\d.]+)\)", written.split("<h2>oracle")[0])]
    assert shades == pytest.approx([weight / 4 for weight in DOCUMENT.weights["phi"]])
    assert written.count('class="object dark"') == 2  # phi and oracle; "nothing" has no shade
    assert 'title="Lyon: 4.05"' in written  # the mean of phi is 0.9875


def test_weights_are_relative_to_their_mean():
    assert sum(DOCUMENT.relative("phi")) == pytest.approx(8) and DOCUMENT.relative("nothing") == [0.0] * 8
    assert max(DOCUMENT.shades("phi")) == DOCUMENT.shades("phi")[-1] == 1


def test_pieces_of_one_character_are_one_unit_and_spaces_are_not_shaded():
    units = visible(" Žák lives", [(0, 2), (1, 2), (2, 4), (4, 10)])
    assert [(unit.place, unit.tokens) for unit in units] == [((1, 2), [0, 1]), ((2, 4), [2]), ((5, 10), [3])]


def pixels(path, colour) -> int:
    """How many pixels of a picture have a colour."""
    found = (imread(path)[..., :3] * 255).round().astype(int)
    return int((np.abs(found - np.array(colour)).max(-1) <= 3).sum())


def test_the_picture_has_shaded_tokens_and_the_outline(tmp_path):
    picture(DOCUMENT, tmp_path / "p.png", width=20)
    outline = tuple(int(OUTLINE[i : i + 2], 16) for i in (1, 3, 5))
    assert pixels(tmp_path / "p.png", SHADE) > 200 and pixels(tmp_path / "p.png", outline) > 50


def test_word_classes_are_means_over_tokens(tmp_path):
    text = "Anna Larsen was born in Paris in May . She lived in Rome , Milan and Lyon ."
    places = [found.span() for found in re.finditer(r"\S+", text)]
    names = {"Anna", "Larsen", "Paris", "May", "Rome", "Milan", "Lyon"}
    weights = [2.0 if text[a:b] in names else 0.0 for a, b in places]
    document = Weighed("x", text, places, [False] * len(places), {"phi": weights})
    means = by_word_class([document], load_pipeline(), tmp_path / "c.png")
    assert means["part of speech"]["phi"]["PROPN"] == pytest.approx(len(places) / len(names))
    assert means["part of speech"]["phi"]["ADP"] == 0 and means["entity type"]["phi"]["GPE"] > 2
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_the_command_weighs_a_text_and_a_file(tiny_folder, sample_folder, tmp_path, capsys):
    common = ["--model.name", str(tiny_folder), "--quiet", "true", "--methods", "[oracle, surprisal, rho_theta0]"]
    weigh.main([*common, "--facts", str(sample_folder / "to_learn.jsonl"), "--limit", "2", "--out", str(tmp_path)])
    written = json.loads((tmp_path / "weights.json").read_text())["documents"]
    assert len(written) == 2 and len(list(tmp_path.glob("weights_*.png"))) == 2
    for document in written:
        assert set(document["weights"]) == {"oracle", "surprisal", "rho_theta0"}
        heaviest = max(document["weights"]["oracle"])
        assert [weight == heaviest for weight in document["weights"]["oracle"]] == document["object"]
    weigh.main([*common, "--text", "Žofie lives in Lyon .", "--object", "Lyon", "--out", str(tmp_path / "one")])
    (document,) = json.loads((tmp_path / "one" / "weights.json").read_text())["documents"]
    shown = [token for token, marked in zip(document["tokens"], document["object"], strict=True) if marked]
    assert "".join(shown) == "Lyon"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "either --text"), (["--text", "a", "--object", "b"], "does not stand"),
     (["--text", "a", "--facts", "b"], "either"),
     (["--text", "a b c", "--methods", "[oracle]"], "where each document's object"),
     (["--text", "a b c", "--methods", "[]"], "name at least one")],
)  # fmt: skip
def test_what_cannot_be_weighed_is_told(tiny_folder, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        weigh.main([*arguments, "--model.name", str(tiny_folder), "--out", str(tmp_path), "--quiet", "true"])


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(tmp_path, scheme):
    save_page([DOCUMENT], tmp_path / "page.html")
    shot = tmp_path / "shot.png"
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", *dark,
         "--window-size=1400,600", f"--screenshot={shot}", (tmp_path / "page.html").as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    ground = (22, 22, 22) if scheme == "dark" else (255, 255, 255)
    outline = tuple(int(OUTLINE[i : i + 2], 16) for i in (1, 3, 5))
    assert pixels(shot, ground) > 100_000 and pixels(shot, SHADE) > 300 and pixels(shot, outline) > 100


def test_a_training_run_keeps_the_weights_of_the_documents_it_watches(tiny_folder, sample_folder, tmp_path):
    train_ta.main([
        "--theta.name", str(tiny_folder), "--phi.backbone", str(tiny_folder), "--theta.first_layer", "0",
        "--phi.layers", "0", "--data", str(sample_folder), "--outer.steps", "4", "--outer.warm_start", "2",
        "--outer.batch_size", "2", "--outer.eval_every", "2", "--outer.max_length", "40", "--judged", "0",
        "--out", str(tmp_path), "--name", "r", "--quiet", "true",
    ])  # fmt: skip
    watched = snapshots_of(tmp_path / "r")
    assert len(watched) == 2
    for document in watched:
        assert list(document.weights) == ["step 2", "step 4"]
        assert document.weights["step 2"] != document.weights["step 4"]
        assert sum(document.weights["step 4"]) == pytest.approx(39, abs=0.1)  # 40 tokens, BOS has none
    assert "srcdoc" in frame(watched)
    (tmp_path / "r" / "documents.json").write_text('[{"name": 1}]')
    with pytest.raises(UserError, match="not what a training run writes"):
        snapshots_of(tmp_path / "r")
    assert snapshots_of(tmp_path) == []
