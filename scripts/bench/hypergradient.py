"""Time, extra peak memory and agreement of the three hypergradient estimators on the same real documents.

Each estimator runs in a process of its own (so that peaks do not mix), one after the other; the hypergradients are
compared at the end, and the command fails unless jvp's cosine to double_backward is above 0.9999.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from scripts.bench import prepare
from scripts.bench.memory import extra_peak_gib, own_process
from taalm.checkpoint import write_text
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.models.base import ModelConfig


def measure(estimator: str, given: argparse.Namespace, out: Path) -> dict:
    """The figures of one estimator, run `repeats` times; its hypergradient is written into `out`."""
    config = ModelConfig(name=given.model, precision=given.precision)
    inner = InnerConfig(warmup_steps=given.warmup_steps, steps=given.steps)
    theta, lesson = prepare.meta_step(config, inner, prepare.facts(given, given.documents))
    weights = prepare.uniform_weights(lesson)
    found, seconds = None, []

    def step() -> None:
        nonlocal found
        started = time.perf_counter()
        found = theta.hypergradient(HYPERGRADIENTS[estimator], lesson, weights)
        seconds.append(time.perf_counter() - started)

    extra = extra_peak_gib(step, theta.model)
    for _ in range(given.repeats - 1):
        step()
    save_file({"gradient": found.weight_gradient}, out / f"{estimator}.safetensors")
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "extra_peak_gib": extra,
        "task_loss": float(found.task_loss),
        "tokens": int(lesson.documents.attention_mask.sum()),
    }


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--warmup_steps", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1, help="differentiated steps (K)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given, given.scratch)))
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for estimator in HYPERGRADIENTS:
            said = own_process("scripts.bench.hypergradient", "--measure", estimator, "--scratch", folder)
            figures[estimator] = json.loads(said)
        gradients = {name: load_file(Path(folder) / f"{name}.safetensors")["gradient"] for name in figures}
    reference = gradients["double_backward"].flatten()
    tokens = figures["double_backward"]["tokens"]
    print(
        f"{given.documents} documents, {tokens} tokens, {given.precision}, K = {given.steps}, median of {given.repeats}"
    )
    print(f"{'estimator':18} {'seconds':>8} {'extra GiB':>10} {'cosine':>10} {'relative error':>15}")
    for name, entry in figures.items():
        found = gradients[name].flatten()
        entry["cosine"] = float(torch.nn.functional.cosine_similarity(found.double(), reference.double(), dim=0))
        entry["relative_error"] = float((found - reference).norm() / reference.norm())
        print(
            f"{name:18} {entry['seconds']:8.2f} {entry['extra_peak_gib']:10.2f} {entry['cosine']:10.7f} "
            f"{entry['relative_error']:15.1e}"
        )
    if given.json:
        write_text(given.json, json.dumps(figures, indent=1) + "\n")
    if figures["jvp"]["cosine"] <= 0.9999:
        raise SystemExit("jvp does not agree with double_backward: cosine at most 0.9999")


if __name__ == "__main__":
    main()
