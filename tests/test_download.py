"""Run: pytest tests/test_download.py. Downloads against a local server: whole, cut, changed, unreachable, hostile."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from taalm.download import download, main, sha256, unpack
from taalm.errors import UserError
from tests.test_scripts import run_script


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, text in files.items():
            out.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


@pytest.fixture
def server():
    """(address, files, requests): serves `files` with ranges and notes the range of every request."""
    files, requests = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, wanted = files.get(self.path.lstrip("/")), self.headers.get("Range")
            requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if body is None or start >= len(body):
                self.send_error(404 if body is None else 416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:])

        def log_message(self, *args):
            pass

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
