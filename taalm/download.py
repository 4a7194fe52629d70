"""Fetch the published archives: `python -m taalm.download temporalwiki` (scripts/data/*.sh).

A download that was cut goes on where it stopped. The SHA-256 of a file is written beside it when it is first complete;
from then on a file with another sum is refused.
"""

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from taalm.checkpoint import atomic_path, write_text, writing
from taalm.config import ROOT, parse, run_entry
from taalm.errors import UserError

HUB = "https://huggingface.co/datasets/seonghyeonye/TemporalWiki/resolve/main"
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
SOURCES: dict[str, list[tuple[str, str, str]]] = {  # name -> (URL, file, folder it is unpacked into, under data/)
    "temporalwiki": [
        (f"{HUB}/{name}.zip", f"{name}.zip", ".") for name in ("Wikipedia_Full", "TWiki_Diffsets", "TWiki_Probes")
    ],
    "lama": [("https://dl.fbaipublicfiles.com/LAMA/data.zip", "data.zip", "LAMA")],
    "online_wiki": [(f"{DRIVE}16nX6OIF8-eZSHU4zvpjjnkPSaluqCgEh", "online_wiki.zip", ".")],
}
BLOCK = 1 << 20


@dataclass
class DownloadConfig:
    """Download and unpack the published data of a benchmark."""

    out: str = str(ROOT / "data")
    """The folder that archives are unpacked into."""
    base_url: str = ""
    """Take the archives from here instead (a mirror); their file names stay."""
    only: str = ""
    """Only the archive of this name, such as TWiki_Probes."""


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, target: Path) -> Path:
    """Fetch the zip file `url` into `target`, going on with what is there.

    Raises UserError: no network, no room, something else than a whole zip file came, or its sum changed.
    """
    recorded = target.with_name(target.name + ".sha256")
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        with writing(partial):
            _fetch(url, partial)
            if not zipfile.is_zipfile(partial):
                partial.unlink()
                raise UserError(f"{url}: what came is not a whole zip file; run the same command again to start over")
            partial.replace(target)
    found = sha256(target)
    if recorded.exists() and recorded.read_text(errors="replace").split()[:1] != [found]:
        raise UserError(f"{target}: its SHA-256 is not the one in {recorded.name}; delete both to download again")
    write_text(recorded, f"{found}  {target.name}\n")
    return target


def _fetch(url: str, partial: Path) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    done = partial.stat().st_size if partial.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
        with urllib.request.urlopen(request, timeout=60) as reply:
            if done and reply.status != 206:  # the server begins at the beginning
                done = 0
            total = done + int(reply.headers.get("Content-Length", 0))
            with (
                partial.open("ab" if done else "wb") as out,
                tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=partial.stem) as bar,
            ):
                while block := reply.read(BLOCK):
                    out.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to fetch
            return
        raise UserError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url}: cannot be reached ({reason}); without a network, put the file at {partial.with_suffix('')} "
            "and run the same command again"
        ) from None
    if total and partial.stat().st_size != total:
        raise UserError(f"{url}: the connection ended early; run the same command again to go on")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file once. Raises UserError for a damaged archive and for one that would write outside `folder`."""
    marker = archive.with_name(archive.name + ".unpacked")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [(member, (folder / member.filename).resolve()) for member in opened.infolist()]
            if marker.exists() and all(place.exists() for _, place in members):
                return
            for member, place in members:
                if not place.is_relative_to(folder.resolve()):
                    raise UserError(f"{archive}: {member.filename!r} would be written outside {folder}")
            for member, place in members:
                if not member.is_dir():
                    with opened.open(member) as source, atomic_path(place) as scratch, scratch.open("wb") as out:
                        shutil.copyfileobj(source, out, BLOCK)
    except UserError:
        raise
    except Exception as error:  # a damaged zip file raises nearly anything
        raise UserError(
            f"{archive}: not a whole zip file ({error}); delete it and {archive.name}.sha256 to download it again"
        ) from None
    write_text(marker, "")


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if name not in SOURCES and not {"-h", "--help"} & set(arguments):
        raise UserError(f"say what to download: {', '.join(SOURCES)}")
    config = parse(DownloadConfig, None, arguments[1:] if name else arguments, f"python -m taalm.download {name}")
    out = Path(config.out)
    archives = [file.removesuffix(".zip") for _, file, _ in SOURCES[name]]
    if config.only and config.only not in archives:
        raise UserError(f"--only {config.only}: there are {', '.join(archives)}")
    for url, file, folder in SOURCES[name]:
        if config.only and file != f"{config.only}.zip":
            continue
        archive = download(f"{config.base_url.rstrip('/')}/{file}" if config.base_url else url, out / "archives" / file)
        unpack(archive, out / folder)
        print(f"{archive.name} is in {(out / folder).resolve()}")


if __name__ == "__main__":
    run_entry(main)
