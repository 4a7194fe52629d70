"""The meta-step against the published algorithm: documents per second, agreement, extra peak memory, side by side.

Speed: both are timed alternately in this process on the same documents (one theta' each), float32 and, where the
processor has it, bfloat16 for ours. Memory: every row is a process of its own; the reference is the published
algorithm on all the documents at once. What theta_0 makes of a document is known, as after a first visit. The command
fails where a float32 hypergradient's cosine to the published one is below 0.999.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from scripts.bench import prepare, published_step
from scripts.bench.alternate import alternate
from scripts.bench.memory import extra_peak_gib, own_process
from scripts.bench.prepare import uniform_weights
from taalm.checkpoint import write_text
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.problem import Lesson, Theta
from taalm.models.precision import keep_freed_memory

LOWEST_COSINE = 0.999


def load_ours(given: argparse.Namespace, precision: str, inner: InnerConfig) -> tuple[Theta, Lesson]:
    return prepare.meta_step(prepare.lora(given, precision), inner, prepare.facts(given, given.documents))


def ours(theta: Theta, lesson: Lesson) -> Tensor:
    weights = uniform_weights(lesson)
    return theta.hypergradient(HYPERGRADIENTS["jvp"], lesson, weights).weight_gradient * len(weights)


def published(model: torch.nn.Module, lesson: Lesson, inner: InnerConfig) -> Tensor:
    """One document after the other."""
    found = torch.zeros_like(uniform_weights(lesson))
    for index in range(len(found)):
        one = lesson.rows([index])
        _, gradient = published_step.hypergradient(model, one.documents, one.probes, uniform_weights(one), inner)
        found[index, : gradient.shape[1]] = gradient[0]
    return found


def cosines(found: Tensor, reference: Tensor) -> list[float]:
    return torch.nn.functional.cosine_similarity(found.double(), reference.double(), dim=1).tolist()


def speed(given: argparse.Namespace) -> dict:
    inner = InnerConfig(
        warmup_steps=given.warmup_steps,
        steps=given.steps,
        mode="independent",
        token_budget=given.token_budget,
        eps=given.eps,
    )
    loaded = {precision: load_ours(given, precision, inner) for precision in prepare.precisions()}
    theta, lesson = loaded["fp32"]
    model = published_step.load(given.model, given.r, theta.theta_0)
    ways: dict[str, Callable[[], Tensor]] = {"published": lambda: published(model, lesson, inner)}
    ways |= {name: (lambda parts=parts: ours(*parts)) for name, parts in loaded.items()}
    seconds, found = alternate(ways, given.repeats)
    reference = statistics.median(seconds["published"])
    rows = {}
    for name, times in seconds.items():
        agreement = cosines(found[name], found["published"])
        rows[name] = {
            "documents_per_s": len(found[name]) / statistics.median(times),
            "seconds": times,
            "times_published": reference / statistics.median(times),
            "lowest_cosine": min(agreement),
            "median_cosine": statistics.median(agreement),
        }
    documents, tokens = len(found["published"]), int(lesson.documents.attention_mask.sum())
    return {"documents": documents, "tokens": tokens, "threads": torch.get_num_threads(), "rows": rows}


MEMORY = {  # name -> (algorithm, warm-up steps, K)
    "published, all documents at once": ("published", 1, 1),
    "ours": ("ours", 1, 1),
    "ours, 8 warm-up steps": ("ours", 8, 1),
    "ours, K = 4": ("ours", 1, 4),
}


def measure_memory(name: str, given: argparse.Namespace) -> float:
    """GiB that one meta-step takes beside the loaded model; its process does nothing else."""
    algorithm, warmup_steps, steps = MEMORY[name]
    inner = InnerConfig(warmup_steps=warmup_steps, steps=steps, mode="independent", token_budget=given.token_budget)
    theta, lesson = load_ours(given, "fp32", inner)
    if algorithm == "ours":
        return extra_peak_gib(lambda: ours(theta, lesson), theta.model)
    model = published_step.load(given.model, given.r, theta.theta_0)
    given_all = (lesson.documents, lesson.probes, uniform_weights(lesson), inner)
    return extra_peak_gib(lambda: published_step.hypergradient(model, *given_all), model)


def memory() -> dict[str, float]:
    return {name: float(own_process("scripts.bench.meta_step", "--measure", name)) for name in MEMORY}


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--documents", type=int, default=8)
    prepare.add_lora_flags(parser)
    parser.add_argument("--warmup_steps", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1, help="differentiated steps (K)")
    parser.add_argument("--token_budget", type=int, default=256, help="ours: padded tokens that learn side by side")
    parser.add_argument("--eps", type=float, default=1e-6, help="AdamW's; below 1e-6 float32 itself is off (docs)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("results/bench/meta_step.json"), help="file for the figures")
    parser.add_argument("--measure", choices=MEMORY, help=argparse.SUPPRESS)
    given = parser.parse_args()
    keep_freed_memory()
    if given.measure:
        print(measure_memory(given.measure, given))
        return
    figures = {"arguments": {k: str(v) for k, v in vars(given).items()}, "extra_peak_gib": memory(), **speed(given)}
    write_text(given.json, json.dumps(figures, indent=1) + "\n")
    print(f"{figures['documents']} documents, {figures['tokens']} tokens, median of {given.repeats}")
    for name, row in figures["rows"].items():
        print(
            f"{name:10} {row['documents_per_s']:6.3f} documents/s  {row['times_published']:5.2f} x published   "
            f"cosine {row['lowest_cosine']:.5f} at least, {row['median_cosine']:.5f} median"
        )
    for name, gib in figures["extra_peak_gib"].items():
        print(f"{name:34} {gib:6.2f} GiB beside the model")
    lowest = figures["rows"]["fp32"]["lowest_cosine"]
    if lowest < LOWEST_COSINE:
        raise SystemExit(f"a hypergradient's cosine to the published one is {lowest:.5f}, below {LOWEST_COSINE}")


if __name__ == "__main__":
    main()
