"""Run: pytest tests/test_publish.py. Committed copies of results: the same tables, small, no paths, no text."""

import pickle

import pytest

from taalm import intervals, publish
from taalm.benchmarks import lama_ckl
from taalm.errors import UserError
from taalm.results import load_results, save_result, table

EPOCHS = 5


def history(facts: list[str], known: list[str], top: int, half: int = 0) -> dict[int, dict]:
    found = {}
    for epoch in range(EPOCHS):
        right = {uuid: float(epoch >= 1 and index % 3 <= (epoch == top) + half) for index, uuid in enumerate(facts)}
        found[epoch] = {
            "loss": 1.0 / (epoch + 1),
            "acc_changed": sum(right.values()) / len(facts),
            "acc_unchanged": 1 - epoch / 20,
            "acc_unchanged_schematic": 0.9,
            "to_learn": {uuid: [value, 2.0] for uuid, value in right.items()},
            "not_to_forget": {uuid: [float(index != epoch), 0.5] for index, uuid in enumerate(known)},
            "not_to_forget_schematic": {uuid: [1.0, 0.5] for uuid in known},
        }
    return found


def result(seed: int, facts: list[str], known: list[str]) -> dict:
    whole = history(facts, known, top=2 + seed % 2)
    halves = [{"facts": facts[h::2], "eval_result": history(facts, known, top=3, half=h)} for h in range(2)]
    last = whole[EPOCHS - 1]
    summary = {"top_acc": whole[2]["acc_changed"], "final_total": last["acc_changed"] + last["acc_unchanged"]}
    return {
        "config": {"seed": seed, "data": "/somewhere/LAMA", "review": {"data": "/somewhere/valid.txt", "weight": 4.0}},
        "method": "targeted",
        "phi": "/somewhere/phi",
        "eval_result": whole,
        "halves": halves,
        "summary": summary | lama_ckl.read_knowledge(halves),
        "framing": {"do-nothing": {"total": 1.0}},
        "documents": {uuid: uuid[:2] for uuid in facts},
    }


def test_copies_make_the_same_tables_and_are_small_and_name_no_path(tmp_path):
    facts, known = [f"{index:02d}-fact" for index in range(30)], [f"known-{index}" for index in range(20)]
    for seed in (42, 43):
        save_result(tmp_path / "own" / f"targeted_s{seed}.pkl", result(seed, facts, known))
    publish.main([str(tmp_path / "own"), str(tmp_path / "copies")])
    own, copies = load_results(tmp_path / "own"), load_results(tmp_path / "copies")
    assert table(copies) == table(own) and intervals.table(copies) == intervals.table(own)
    for seed, top in ((42, 2), (43, 3)):
        copy = copies[f"targeted_s{seed}"]
        with_outcomes = [epoch for epoch, entry in copy["eval_result"].items() if "to_learn" in entry]
        assert with_outcomes == [0, top, EPOCHS - 1]
        assert [entry["acc_changed"] for entry in copy["eval_result"].values()] == [
            entry["acc_changed"] for entry in own[f"targeted_s{seed}"]["eval_result"].values()
        ]
        assert copy["config"] == {"seed": seed, "data": "LAMA", "review": {"data": "valid.txt", "weight": 4.0}}
        written = (tmp_path / "copies" / f"targeted_s{seed}.pkl").read_bytes()
        assert b"somewhere" not in written
        assert len(written) < 0.7 * len(pickle.dumps(own[f"targeted_s{seed}"], protocol=4))


def test_results_of_other_benchmarks_are_refused(tmp_path):
    save_result(tmp_path / "month.pkl", {"config": {}, "eval_result": {0: {}}, "summary": {"em": 0.5}})
    with pytest.raises(UserError, match=r"month\.pkl: no result of LAMA-ckl"):
        publish.main([str(tmp_path), str(tmp_path / "copies")])
