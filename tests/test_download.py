"""Run: pytest tests/test_download.py. Downloads against a local server: whole, cut, changed, unreachable, hostile."""

import io
import random
import resource
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from taalm.download import download, main, sha256, unpack
from taalm.errors import UserError
from tests.test_mutations import mutated
from tests.test_scripts import run_script


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, text in files.items():
            out.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


class Requests(list):
    breaks: dict[str, int]


@pytest.fixture
def server():
    """(address, files, requests): serves `files` with ranges and notes the range of every request.

    `requests.breaks` says after how many bytes of a file the connection ends, once.
    """
    files, requests, breaks = {}, Requests(), {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, wanted = files.get(self.path.lstrip("/")), self.headers.get("Range")
            requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if body is None or start >= len(body):
                self.send_error(404 if body is None else 416)
                return
            told = len(body)
            if self.path in breaks:  # the connection ends there
                body = body[: breaks.pop(self.path)]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(told - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *args):
            pass

    requests.breaks = breaks
    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", files, requests
    running.shutdown()


def test_a_download_that_was_cut_goes_on_where_it_stopped(server, tmp_path):
    address, files, requests = server
    files["a.zip"] = archive(x="1" * 5000)
    (tmp_path / "a.zip.partial").write_bytes(files["a.zip"][:100])
    download(f"{address}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == files["a.zip"] and requests == ["bytes=100-"]
    assert (tmp_path / "a.zip.sha256").read_text().split()[0] == sha256(tmp_path / "a.zip")
    download(f"{address}/a.zip", tmp_path / "a.zip")
    assert len(requests) == 1  # it is there


def test_a_file_that_changed_is_refused(server, tmp_path):
    address, files, _ = server
    files["a.zip"] = archive(x="1")
    download(f"{address}/a.zip", tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(b"other")
    with pytest.raises(UserError, match="SHA-256"):
        download(f"{address}/a.zip", tmp_path / "a.zip")


def test_no_network_and_no_such_file_are_one_sentence(server, tmp_path):
    with pytest.raises(UserError, match=r"cannot be reached.*put the file at"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")
    with pytest.raises(UserError, match="404"):
        download(f"{server[0]}/none.zip", tmp_path / "none.zip")


def test_the_command_downloads_and_unpacks_all_archives(server, tmp_path, capsys):
    address, files, requests = server
    files["Wikipedia_Full.zip"] = archive(Wikipedia_Full__AA__wiki_00="{}")
    files["TWiki_Diffsets.zip"] = archive(**{"TWiki_Diffsets__d.csv": "text\n"})
    files["TWiki_Probes.zip"] = archive(**{"twiki_probes__p.jsonl": "{}"})
    main(["temporalwiki", "--out", str(tmp_path), "--base_url", address])
    assert (tmp_path / "TWiki_Diffsets" / "d.csv").read_text() == "text\n"
    assert (tmp_path / "Wikipedia_Full" / "AA" / "wiki_00").exists() and (
        tmp_path / "twiki_probes" / "p.jsonl"
    ).exists()
    main(["temporalwiki", "--out", str(tmp_path), "--base_url", address])
    assert len(requests) == 3
    (tmp_path / "TWiki_Diffsets" / "d.csv").unlink()  # unpacked again from the archive that is there
    main(["temporalwiki", "--out", str(tmp_path), "--base_url", address, "--only", "TWiki_Diffsets"])
    assert (tmp_path / "TWiki_Diffsets" / "d.csv").read_text() == "text\n" and len(requests) == 3
    with pytest.raises(UserError, match="--only Twiki_Probes: there are Wikipedia_Full, TWiki_Diffsets, TWiki_Probes"):
        main(["temporalwiki", "--out", str(tmp_path), "--base_url", address, "--only", "Twiki_Probes"])
    with pytest.raises(UserError, match="temporalwiki, lama"):
        main(["nothing"])


def test_the_scripts_download_from_a_mirror_and_go_on_with_a_cut_file(server, tmp_path):
    address, files, requests = server
    for name in ("Wikipedia_Full", "TWiki_Diffsets", "TWiki_Probes", "data"):
        files[f"{name}.zip"] = archive(**{f"{name}__file": name * 50})
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "TWiki_Probes.zip.partial").write_bytes(files["TWiki_Probes.zip"][:40])
    for script, last in (("temporalwiki", "preprocess_temporalwiki_dataset.py (--raw"), ("lama", "data.zip is in")):
        done = run_script(f"data/{script}.sh", tmp_path, "--out", tmp_path, "--base_url", address)
        assert done.returncode == 0 and last in done.stdout, done.stderr
    assert "bytes=40-" in requests and (tmp_path / "archives" / "TWiki_Probes.zip.sha256").exists()
    done = run_script("data/lama.sh", tmp_path, "--out", tmp_path / "new", "--base_url", "http://127.0.0.1:9")
    assert done.returncode == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr


def test_an_archive_cannot_leave_its_folder(tmp_path):
    (tmp_path / "bad.zip").write_bytes(archive(**{"..__outside": "x"}))
    with pytest.raises(UserError, match="outside"):
        unpack(tmp_path / "bad.zip", tmp_path / "in")
    assert not (tmp_path / "outside").exists()
    (tmp_path / "torn.zip").write_bytes(archive(x="1" * 999)[:50])
    with pytest.raises(UserError, match="not a whole zip"):
        unpack(tmp_path / "torn.zip", tmp_path / "in")


def test_a_connection_that_breaks_again_and_again_gives_the_whole_file_in_the_end(server, tmp_path):
    address, files, requests = server
    files["a.zip"] = archive(x="".join(str(number) for number in range(2000)))
    for end in (0, 1, 700, 701, len(files["a.zip"]) - 1):
        requests.breaks["/a.zip"] = end
        with pytest.raises(UserError, match=r"a\.zip: the connection ended early; run the same command again to go on"):
            download(f"{address}/a.zip", tmp_path / "a.zip")
        assert not (tmp_path / "a.zip").exists() and (tmp_path / "a.zip.partial").stat().st_size == end
    assert download(f"{address}/a.zip", tmp_path / "a.zip").read_bytes() == files["a.zip"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "a.zip.sha256"]


@pytest.mark.parametrize("there", [b"", b"<html>an older file of another length, much longer than the new one"])
def test_what_is_no_zip_file_is_refused_and_the_next_call_starts_over(server, tmp_path, there):
    """A page instead of the file; a rest of another file that the server has nothing to add to."""
    address, files, _ = server
    files["a.zip"] = b"" if there else b"<html>Sorry, no downloads today</html>"
    if there:
        (tmp_path / "a.zip.partial").write_bytes(there)
    with pytest.raises(UserError, match=r"a\.zip: what came is not a whole zip file; run the same command again"):
        download(f"{address}/a.zip", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
    files["a.zip"] = archive(x="1")
    assert download(f"{address}/a.zip", tmp_path / "a.zip").read_bytes() == files["a.zip"]


def test_a_disk_that_fills_up_keeps_what_came(server, tmp_path):
    address, files, requests = server
    files["a.zip"] = archive(x=hex(random.Random(0).getrandbits(80_000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a\.zip\.partial: cannot write this file \(File too large\); make room"):
            download(f"{address}/a.zip", tmp_path / "a.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a.zip.partial").stat().st_size == 4000
    assert download(f"{address}/a.zip", tmp_path / "a.zip").read_bytes() == files["a.zip"]
    assert requests[-1] == "bytes=4000-"


def test_an_address_that_is_none_is_told(tmp_path):
    for address in ("nowhere/a.zip", "http://[/a.zip"):
        with pytest.raises(UserError, match="cannot be reached"):
            download(address, tmp_path / "a.zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write this file"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "file" / "a.zip")


def test_damaged_archives_are_unpacked_whole_or_refused(tmp_path):
    rng, path, refused = random.Random(4), tmp_path / "a.zip", 0
    whole = archive(one="1" * 300, folder__two="2" * 300, three=str(rng.getrandbits(4000)))
    for number in range(260):
        path.write_bytes(mutated(whole, rng))
        out = tmp_path / str(number)
        try:
            unpack(path, out)
        except UserError as error:
            refused += 1
            assert str(error).startswith((f"{path}: ", f"{out}")) and not (tmp_path / "a.zip.unpacked").exists()
        (tmp_path / "a.zip.unpacked").unlink(missing_ok=True)
        assert not list(tmp_path.rglob("*.part"))
    assert refused > 130 and {path.name for path in tmp_path.iterdir() if not path.name.isdigit()} == {"a.zip"}
