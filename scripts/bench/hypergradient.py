"""Time, extra peak memory and agreement of the three hypergradient estimators on the same real documents.

Each estimator runs in a process of its own (so that peaks do not mix), one after the other; the hypergradients are
compared at the end, and the command fails unless jvp's cosine to double_backward is above 0.9999.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from scripts.bench.memory import extra_peak_gib
from taalm.benchmarks.lama_ckl import data_folder
from taalm.facts import read_facts
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Theta
from taalm.models.base import ModelConfig, load_theta


def measure(estimator: str, given: argparse.Namespace, out: Path) -> None:
    """Run one estimator `repeats` times; write its hypergradient and figures into `out`."""
    torch.manual_seed(0)
    model, tokenizer = load_theta(ModelConfig(name=given.model, precision=given.precision))
    theta = Theta(model, InnerConfig(warmup_steps=given.warmup_steps, steps=given.steps), ObjectiveConfig())
    facts = read_facts(data_folder(given.data, given.model) / "to_learn.jsonl")[: given.documents]
    taught = Lessons(tokenizer, facts, "schematic", 128, torch.device("cpu"))
    lesson = taught.lesson(range(len(facts)))
    weights = lesson.documents.attention_mask[:, 1:].float()
    found, seconds = None, []

    def step() -> None:
        nonlocal found
        started = time.perf_counter()
        found = theta.hypergradient(HYPERGRADIENTS[estimator], lesson, weights)
        seconds.append(time.perf_counter() - started)

    extra = extra_peak_gib(step, model)
    for _ in range(given.repeats - 1):
        step()
    save_file({"gradient": found.weight_gradient}, out / f"{estimator}.safetensors")
    figures = {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "extra_peak_gib": extra,
        "task_loss": float(found.task_loss),
        "tokens": int(lesson.documents.attention_mask.sum()),
    }
    (out / f"{estimator}.json").write_text(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="data folder; default TAALM_DATA, else the sample set")
    parser.add_argument("--model", default="smollm2-135m", help="packaged name, folder or hub id")
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
        measure(given.measure, given, given.scratch)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for estimator in HYPERGRADIENTS:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "scripts.bench.hypergradient",
                *sys.argv[1:],
                "--measure",
                estimator,
            ]
            subprocess.run([*command, "--scratch", folder], check=True)
            figures[estimator] = json.loads((scratch / f"{estimator}.json").read_text())
        gradients = {name: load_file(scratch / f"{name}.safetensors")["gradient"] for name in figures}
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
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    if figures["jvp"]["cosine"] <= 0.9999:
        raise SystemExit("jvp does not agree with double_backward: cosine at most 0.9999")


if __name__ == "__main__":
    main()
