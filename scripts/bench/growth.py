"""How a meta-step's seconds and memory grow with documents, tokens, K, adapter rank and model size.

Every point is a process of its own: seconds are the median of several steps after one that does not count (what theta_0
makes of the documents is then known), memory is what the first step takes beside the weights. Model sizes are Llamas of
random weights with the packaged tokenizer, the last of the packaged model's size. The command fails where seconds are
not linear in tokens.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.bench import prepare
from scripts.bench.alternate import alternate
from scripts.bench.memory import extra_peak_gib, own_process
from scripts.bench.meta_step import ours
from taalm.checkpoint import write_text
from taalm.meta.inner import InnerConfig
from taalm.models.base import ModelConfig, load_tokenizer
from taalm.models.precision import keep_freed_memory

SIZES = {"tiny": (96, 4), "small": (192, 8), "middle": (384, 16), "135M": (576, 30)}  # width, layers
USUAL = {"documents": 8, "repeated": 1, "steps": 1, "r": 16, "size": ""}
GROWTH = {
    "documents": (2, 4, 8, 16),
    "repeated": (1, 2, 3),  # every document several times over: more tokens in each
    "steps": (1, 2, 4),
    "r": (4, 16, 64),
    "size": tuple(SIZES),
}
LOWEST_R2 = 0.95
HIGHEST_POWER = 1.1  # a parabola through few points passes for a line by R^2


def random_model(size: str, model: str, folder: Path) -> str:
    """A Llama of that size with random weights and the tokenizer of `model`."""
    torch.manual_seed(0)
    width, layers = SIZES[size]
    tokenizer = load_tokenizer(model)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=width // 48, num_key_value_heads=width // 48, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def point(given: argparse.Namespace, at: dict) -> dict:
    """Seconds and GiB of one meta-step."""
    facts = prepare.facts(given, at["documents"])
    facts = [replace(fact, evidence=" ".join([fact.evidence] * at["repeated"])) for fact in facts]
    inner = InnerConfig(steps=at["steps"], mode="independent", eps=1e-6)
    with tempfile.TemporaryDirectory() as folder:
        name = random_model(at["size"], given.model, Path(folder)) if at["size"] else given.model
        config = ModelConfig(name=name, r=at["r"], precision="fp32")
        theta, lesson = prepare.meta_step(config, inner, facts, max_length=1024)
    gib = extra_peak_gib(lambda: ours(theta, lesson), theta.model)
    seconds, _ = alternate({"step": lambda: ours(theta, lesson)}, given.repeats)
    tokens = int(prepare.uniform_weights(lesson).sum())
    return {**at, "tokens": tokens, "seconds": statistics.median(seconds["step"]), "gib": gib}


class Fit(NamedTuple):
    """The least-squares line through points, its R^2, and the power of x that y grows with."""

    slope: float
    intercept: float
    r2: float
    power: float


def fit_line(x: list[float], y: list[float]) -> Fit:
    slope, intercept = statistics.linear_regression(x, y)
    power = statistics.linear_regression(list(map(math.log, x)), list(map(math.log, y))).slope
    return Fit(slope, intercept, statistics.correlation(x, y) ** 2, power)


def judge(fit: Fit) -> None:
    """Print the line of seconds by tokens. Raises SystemExit where they do not lie on it."""
    line = f"{fit.intercept:.2f} + {fit.slope * 1000:.2f} per thousand tokens"
    print(f"seconds = {line}, R2 {fit.r2:.3f}; they grow with tokens to the power {fit.power:.2f}")
    if fit.r2 < LOWEST_R2 or fit.power > HIGHEST_POWER:
        raise SystemExit(f"seconds are not linear in tokens: R2 below {LOWEST_R2} or a power above {HIGHEST_POWER}")


def points(text: str) -> tuple[str, list]:
    """What --only says: "r" is every rank of GROWTH, "r=4,64" those two."""
    quantity, _, values = text.partition("=")
    known = {str(value): value for value in GROWTH.get(quantity, ())}
    chosen = values.split(",") if values else list(known)
    if not chosen or not set(chosen) <= set(known):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {GROWTH}")
    return quantity, [known[value] for value in chosen]


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--only", type=points, action="append", help="a quantity alone, as r, or some of it, as r=4,64")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("results/bench/growth.json"), help="file for the figures")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_freed_memory()
    if given.point:
        print(json.dumps(point(given, json.loads(given.point))))
        return
    rows: dict[str, list[dict]] = defaultdict(list)
    for quantity, values in given.only or GROWTH.items():
        for value in values:
            at = json.dumps({**USUAL, quantity: value})
            rows[quantity].append(found := json.loads(own_process("scripts.bench.growth", "--point", at)))
            cost = f"{found['seconds']:7.2f} s {found['gib']:6.2f} GiB"
            print(f"{quantity:10} {value!s:>7}  {found['tokens']:5} tokens {cost}", flush=True)
    measured = rows.get("documents", []) + rows.get("repeated", [])
    tokens, seconds = [row["tokens"] for row in measured], [row["seconds"] for row in measured]
    fit = fit_line(tokens, seconds) if len(set(tokens)) > 2 else None  # two points always lie on a line
    write_text(given.json, json.dumps({"rows": rows, "seconds_by_tokens": fit and fit._asdict()}, indent=1) + "\n")
    if fit:
        judge(fit)


if __name__ == "__main__":
    main()
