"""Run: pytest tests/test_disk.py. A disk that is full or read-only: one sentence, whole files, and the run goes on."""

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from taalm.config import run_entry
from taalm.errors import UserError
from taalm.heatmap import save_page
from taalm.models import packaged
from taalm.plots.style import plt, write
from taalm.results import load_result, save_result
from tests.conftest import ONLINE_SAMPLE, ROOT, run_module
from tests.test_adapt_documents import ROWS, written
from tests.test_commands import evaluate_arguments, losses, train_arguments
from tests.test_heatmap import DOCUMENT
from tests.test_report import lama


def contents(folder: Path) -> dict[str, bytes]:
    """Every finished file under a folder; what is being written has another ending."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".part" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


class Disk:
    """Runs commands in this process; of their whole-file writes, number `full` finds the disk full."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.folder, self.writes, self.full, self.before = Path(), 0, None, {}
        self.sync = os.fsync
        monkeypatch.setattr("taalm.checkpoint.os.fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        number, self.writes = self.writes, self.writes + 1
        if number == self.full:
            self.before = contents(self.folder)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sync(handle)

    def run(self, command: tuple, full: int | None = None) -> str:
        """What the command says on stderr; "" where it ended well."""
        self.writes, self.full = 0, full
        module, *arguments = map(str, command)
        self.monkeypatch.setattr("sys.argv", [module, *arguments])
        self.monkeypatch.delenv("TAALM_DATA", raising=False)
        self.capsys.readouterr()
        with contextlib.suppress(SystemExit):
            run_entry(import_module(module).main)
            return ""
        return self.capsys.readouterr().err


def commands(tiny: Path, sample: Path, folder: Path) -> dict[str, tuple]:
    quiet = ("--quiet", "true")
    evaluate = evaluate_arguments(tiny, sample, folder, "--method", "finetune", "--name", "run", *quiet)
    train = train_arguments(tiny, sample, folder, "--outer.steps", 4, "--outer.save_every", 2, "--name", "phi", *quiet)
    folder.mkdir(exist_ok=True)
    adapt = ("taalm.adapt_documents", written(folder.parent, ROWS), "--out", folder, "--method", "finetune",
             "--model.name", tiny, "--model.first_layer", 0, "--adapt.epochs", 2, *quiet)  # fmt: skip
    stream = ("taalm.run_online", "--model", tiny, "--data", ONLINE_SAMPLE, "--dataset_version", "quarter",
              "--limit", 1, "--output_dir", folder, "--freeze_level", 2, "--method", "lora", *quiet)  # fmt: skip
    return {"evaluate": evaluate, "train_ta": train, "adapt_documents": adapt, "run_online": stream}


def numbers(name: str, folder: Path) -> object:
    """What a finished run found, without its times."""
    if name == "train_ta":
        return losses(folder / "phi")
    if name == "adapt_documents":
        return json.loads((folder / "report.json").read_text())["documents"]
    found = load_result(folder / ("run.pkl" if name == "evaluate" else "result.pkl"))
    return {when: {k: v for k, v in row.items() if k != "seconds"} for when, row in found["eval_result"].items()}


@pytest.mark.parametrize("name", ["evaluate", "train_ta", "adapt_documents", "run_online"])
def test_a_write_of_a_run_may_find_the_disk_full(name, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys):
    """One of its writes fails: nothing is torn or left lying, and the run then goes on to the same numbers."""
    disk = Disk(monkeypatch, capsys)

    def run(folder: str, full: int | None) -> str:
        disk.folder = tmp_path / folder
        return disk.run(commands(tiny_folder, sample_folder, disk.folder)[name], full)

    assert run("whole", None) == ""
    expected, writes = numbers(name, tmp_path / "whole"), disk.writes
    assert writes > 6
    tried = range(0, writes, -(-writes // 10))
    for number in tried:
        said = run(f"full{number}", number)
        assert said.startswith("error: ") and said.count("\n") == 1, said
        assert str(disk.folder) in said and "No space left" in said and "make room" in said, said
        assert contents(disk.folder) == disk.before and not litter(disk.folder)
        assert run(f"full{number}", None) == ""
        assert numbers(name, disk.folder) == expected
    with capsys.disabled():
        print(f"\n{name}: {len(tried)} of {writes} writes failed")


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A file system of that size; skips where none may be mounted."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("name", ["evaluate", "train_ta", "adapt_documents"])
def test_a_disk_that_is_really_full(name, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys):
    """From no room at all, 16 KiB more for every attempt of one run, until it ends."""
    disk = Disk(monkeypatch, capsys)
    monkeypatch.setattr("taalm.checkpoint.os.fsync", disk.sync)
    disk.folder = tmp_path / "small" / "out"
    with small_disk(tmp_path / "small", "1m"):
        command = commands(tiny_folder, sample_folder, disk.folder)[name]
        filler, refusals = tmp_path / "small" / "filler", 0
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(1 << 21))
        before = contents(disk.folder)
        while said := disk.run(command):
            assert said.startswith("error: ") and said.count("\n") == 1, said
            assert str(disk.folder) in said and "No space left" in said and "make room" in said, said
            now = contents(disk.folder)
            assert all(now[file] for file in now if file != ".lock" and "/." not in file) and not litter(disk.folder)
            assert set(before) <= set(now)
            before, refusals = now, refusals + 1
            os.truncate(filler, max(0, filler.stat().st_size - 16384))
            assert refusals < 100
        found = numbers(name, disk.folder)
    with capsys.disabled():
        print(f"\n{name}: refused {refusals} times")
    assert refusals > 3
    disk.folder = tmp_path / "whole"
    assert disk.run(commands(tiny_folder, sample_folder, disk.folder)[name]) == ""
    assert found == numbers(name, disk.folder)


def test_a_file_that_grows_over_its_limit_is_a_sentence_too(tiny_folder, sample_folder, tmp_path):
    """RLIMIT_FSIZE: the kernel refuses the state's bytes, not a stand-in."""
    command = commands(tiny_folder, sample_folder, tmp_path / "out")["evaluate"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert done.returncode == 2 and "File too large" in done.stderr and "state.safetensors" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not litter(tmp_path / "out")
    assert run_module(*command).returncode == 0


def refuse_all(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("how", ["below a file", "proc", "read-only"])
@pytest.mark.parametrize("name", ["evaluate", "train_ta", "adapt_documents", "run_online"])
def test_a_folder_that_cannot_be_written_is_a_sentence(
    name, how, tiny_folder, sample_folder, tmp_path, monkeypatch, capsys
):
    disk = Disk(monkeypatch, capsys)
    command = [*commands(tiny_folder, sample_folder, tmp_path / "out")[name]]
    (tmp_path / "file").write_text("in the way")
    place = {"below a file": tmp_path / "file" / "out", "proc": Path("/proc/out"), "read-only": tmp_path / "out"}[how]
    if how == "read-only":
        monkeypatch.setattr("taalm.run_folder.Path.mkdir", refuse_all)
    flag = "--output_dir" if name == "run_online" else "--out"
    command[command.index(flag) + 1] = place
    said = disk.run(tuple(command))
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert str(place) in said and "cannot write" in said and "name a place" in said
    assert (tmp_path / "file").read_text() == "in the way"


def test_results_pictures_pages_and_reports_say_where_they_cannot_be_written(tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    save_result(results / "a.pkl", lama("finetune", 1))
    before = contents(results)
    disk = Disk(monkeypatch, capsys)
    disk.folder = results
    for full in range(5):
        said = disk.run(("taalm.report", results), full)
        assert said.startswith("error: ") and said.count("\n") == 1 and "No space left" in said, said
        assert before.items() <= contents(results).items() and not litter(results)
    for make in (
        lambda place: save_result(place / "x.pkl", {"eval_result": {}}),
        lambda place: save_page([DOCUMENT], place / "x.html"),
        lambda place: write(plt.figure(), place / "x.png"),
    ):
        with pytest.raises(UserError, match=r"x\.\w+: cannot write this file \(.+\); name a place"):
            make(results / "a.pkl")
    assert contents(results)["a.pkl"] == before["a.pkl"]
    plt.close("all")


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TAALM_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cache/smollm2-135m: cannot write this file"):
        packaged.packaged_folder("smollm2-135m")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_is_printed_may_find_the_disk_full_too(tmp_path):
    save_result(tmp_path / "a.pkl", lama("finetune", 1))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "taalm", "results", str(tmp_path)], cwd=ROOT, stdout=full, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: what this command prints: No space left on device; make room and run it again\n"


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    save_result(tmp_path / "a.pkl", lama("finetune", 1))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "taalm", "results", str(tmp_path)], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
