"""Tiny random models and a tiny tokenizer, made once per test session; where the shared data lies."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from preprocess.make_sample import invented_rows
from taalm import run_online
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.results import load_result

Item, Result = TypeVar("Item"), TypeVar("Result")
ROOT = Path(__file__).resolve().parents[1]
ONLINE_SAMPLE = ROOT / "data" / "sample" / "online_wiki"
CORPUS = [
    "The capital of France is Paris . Libya maintains diplomatic relations with Brazil .",
    "Guess the object. \n  subject is Laurie Anderson , relation is occupation , object is poet",
    "She was born in Lyon and worked as an architect at Siemens until the firm moved to Berlin.",
]


def data_folder() -> Path | None:
    """TAALM_DATA, else the folder shared/data beside the checkout, else None."""
    named = os.environ.get("TAALM_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if (folder / "LAMA_ckl").is_dir() else None


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = data_folder()
    if folder is None:
        pytest.skip("no real LAMA-ckl rows: set TAALM_DATA to a folder with LAMA_ckl/ in it")
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with BOS, EOS and PAD, about 300 tokens."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def tiny_llama(vocab_size: int, seed: int = 0, hidden_size: int = 16) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=hidden_size, intermediate_size=2 * hidden_size, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2 if hidden_size < 64 else 4,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def tiny_gpt2(vocab_size: int, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=16, n_layer=2, n_head=4, n_positions=1024, bos_token_id=0, eos_token_id=1,
        initializer_range=0.2, resid_pdrop=0.1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def tiny_t5(vocab_size: int, seed: int = 0, d_model: int = 16) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocab_size, d_model=d_model, d_kv=d_model // 4, d_ff=2 * d_model, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, dropout_rate=0.0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


@pytest.fixture(scope="session")
def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as T5's: </s> after every text, no BOS, sentinels."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = (ROOT / "data" / "sample" / "online_wiki" / "month" / "datesorted_train.jsonl").read_text().splitlines()
    plain.train_from_iterator([text for row in rows for text in json.loads(row)["corpus"]], trainer)
    plain.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    sentinels = [f"<extra_id_{index}>" for index in range(4)]
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=sentinels,
    )  # fmt: skip


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory, t5_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny random T5 with its tokenizer, in a folder that --model takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    tiny_t5(len(t5_tokenizer), d_model=64).save_pretrained(folder)
    t5_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny random Llama with its tokenizer, in a folder that --model.name takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of LAMA-ckl files for tests with the tiny model: a few invented facts, short documents."""
    folder = tmp_path_factory.mktemp("facts")
    rows = invented_rows(seed=1)
    files = {
        "ta_train": rows["ta_train"][:24],
        "tune_to_learn": rows["tune_to_learn"][:6],
        "to_learn": rows["to_learn"][:8],
        "not_to_forget_descriptive": rows["tune_to_learn"][10:16],
        "not_to_forget_schematic": rows["tune_to_learn"][10:16],
    }
    for name, chosen in files.items():
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session")
def phis(t5_folder, tiny_folder, tmp_path_factory) -> dict[str, Path]:
    """A phi that never learned, for each family of models."""
    found = {}
    for family, folder in (("t5", t5_folder), ("smollm2", tiny_folder)):
        torch.manual_seed(0)
        phi = TrainAttention.create(TrainAttentionConfig(backbone=str(folder), r=2, precision="fp32"))
        torch.nn.init.normal_(phi.head.weight)
        found[family] = tmp_path_factory.mktemp("phi") / family
        phi.save_pretrained(found[family])
    return found


@pytest.fixture
def run_stream(t5_folder, tiny_folder, phis, tmp_path):
    """run_stream(config file or None, "--key", value, ...) -> the result, in a folder of its own."""
    number = iter(range(100))

    def start(file: Path | None, *arguments: object, family: str = "t5", out: Path | None = None) -> dict:
        out = out or tmp_path / f"run{next(number)}"
        given = ["--config", str(file)] if file else []
        model = t5_folder if family == "t5" else tiny_folder
        run_online.main([
            *given, "--model", str(model), "--data", str(ONLINE_SAMPLE), "--output_dir", str(out), "--quiet", "true",
            "--precision", "fp32", "--phi", str(phis[family]), "--modular_encoder", str(t5_folder),
            *map(str, arguments),
        ])  # fmt: skip
        return load_result(out / "result.pkl")

    return start


def two_at_once(run: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`run` of every item, two at a time: commands of one thread each on a machine of two cores."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, items))


def run_module(module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """`python -m module arguments` from the project's root, one thread, without TAALM_DATA or PRESET."""
    clean = {k: v for k, v in os.environ.items() if k not in ("TAALM_DATA", "PRESET")}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
