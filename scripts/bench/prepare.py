"""What the benchmarks measure on, on the CPU: their common flags, facts, theta, a lesson of them, an adaptation."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taalm.adapt import Adaptation, AdaptConfig
from taalm.benchmarks.lama_ckl import data_folder
from taalm.facts import Fact, read_facts
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Lesson, Theta
from taalm.models.base import ModelConfig, load_theta
from taalm.models.precision import wants_bf16
from taalm.models.split import SplitModel
from taalm.text import Encoded, encode, pad_token
from taalm.weighters import get_weighter

CPU = torch.device("cpu")
MAX_LENGTH = 128


def command_line(description: str) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="data folder; default TAALM_DATA, else the sample set")
    parser.add_argument("--model", default="smollm2-135m", help="packaged name, folder or hub id")
    return parser


def add_lora_flags(parser: argparse.ArgumentParser) -> None:
    """What `lora` reads beside --model."""
    parser.add_argument("--r", type=int, default=16, help="LoRA rank")
    parser.add_argument("--first_layer", type=int, default=0, help="LoRA from this layer up")


def lora(given: argparse.Namespace, precision: str) -> ModelConfig:
    return ModelConfig(name=given.model, r=given.r, precision=precision, first_layer=given.first_layer)


def precisions() -> list[str]:
    """Of ours: float32, and bfloat16 where the processor has it."""
    return ["fp32", "bf16"] if wants_bf16("auto", CPU) else ["fp32"]


def facts(given: argparse.Namespace, count: int) -> list[Fact]:
    """The first facts to learn."""
    return read_facts(data_folder(given.data, given.model) / "to_learn.jsonl")[:count]


def documents(given: argparse.Namespace, tokenizer: Any) -> list[Encoded]:
    return [encode(tokenizer, fact.evidence, max_length=MAX_LENGTH) for fact in facts(given, given.documents)]


def theta(config: ModelConfig) -> tuple[nn.Module, Any]:
    """The model, whose fresh LoRA weights are the same every time, and its tokenizer."""
    torch.manual_seed(0)
    return load_theta(replace(config, device="cpu"))


def meta_step(
    config: ModelConfig, inner: InnerConfig, taught: Sequence[Fact], max_length: int = MAX_LENGTH
) -> tuple[Theta, Lesson]:
    """Theta and one lesson of all the facts."""
    model, tokenizer = theta(config)
    lesson = Lessons(tokenizer, taught, "schematic", max_length, CPU).lesson(range(len(taught)))
    return Theta(model, inner, ObjectiveConfig()), lesson


def uniform_weights(lesson: Lesson) -> Tensor:
    """(B, T-1): 1 for every real token."""
    return lesson.documents.attention_mask[:, 1:].float()


def adapted(
    given: argparse.Namespace, precision: str, config: AdaptConfig, evaluate: Callable[[int], dict] = lambda epoch: {}
) -> Adaptation:
    """Theta's adaptation to the documents, gone through; its state is written at the ends of epochs only."""
    model, tokenizer = theta(lora(given, precision))
    config = replace(config, batch_size=given.batch_size, max_length=MAX_LENGTH, save_every=10**6)
    with tempfile.TemporaryDirectory() as folder:
        run = Adaptation(
            SplitModel(model), documents(given, tokenizer), pad_token(tokenizer), get_weighter("uniform"), config,
            evaluate, Path(folder) / "state", seed=0, quiet=True,
        )  # fmt: skip
        run.run()
    return run
