"""Weights fitted to the answers: `python -m taalm.ceiling --out results/ceiling`, then
`python -m taalm.evaluate --method given --weights results/ceiling/weights.jsonl`.

No phi: the weights of every document are trained by the exact hypergradient on the document's *own probe*, the one that
it is judged on: the best ones for a single learning step, of which many epochs may make less (docs/experiments.md, 26).
Like oracle's, it is no method. Facts of one document have one set of weights, trained on the first one's probe.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from taalm import stopping
from taalm.benchmarks.lama_ckl import data_folder, facts_file
from taalm.checkpoint import write_jsonl
from taalm.config import parse, run_entry
from taalm.errors import UserError
from taalm.facts import Fact, read_jsonl
from taalm.losses import target_mask
from taalm.meta.hypergradient import get_hypergradient
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Lesson, Theta
from taalm.models.base import ModelConfig, load_theta
from taalm.models.precision import keep_freed_memory
from taalm.models.train_attention import softmax_weights
from taalm.run_folder import claim


@dataclass
class CeilingConfig:
    """Train the weights of every document on its own probe."""

    theta: ModelConfig = field(default_factory=ModelConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: str = ""
    """Folder with the split's files, or with raw rows (LAMA_ckl/); default TAALM_DATA, else the sample set."""
    to_learn: str = ""
    """The facts; default to_learn.jsonl of the data folder."""
    limit: NonNegativeInt = 0
    """Only the first so many facts of the file; 0 takes all."""
    steps: PositiveInt = 12
    """Updates of a document's weights."""
    lr: PositiveFloat = 0.5
    """Adam's rate on their logits."""
    batch_size: PositiveInt = 8
    """Documents at a time; a batch that is done is kept."""
    max_length: NonNegativeInt = 512
    """Documents are cut to this many tokens, as --adapt.max_length does; 0 cuts nothing."""
    out: str = "results/ceiling"
    """Folder of weights.jsonl: a line for each document with its text, the weights of its tokens after BOS, and its
    batch's task loss after learning with equal weights and with these."""
    seed: int = 42
    """Seed of theta's fresh adapter."""
    quiet: bool = False
    """No progress."""


def train_weights(theta: Theta, lesson: Lesson, steps: int, lr: float) -> tuple[Tensor, float, float]:
    """The weights (B, T-1) after `steps` updates from equal ones, and the lesson's task loss before and after."""
    mask, estimate = target_mask(lesson.documents.attention_mask), get_hypergradient("jvp")
    logits = torch.zeros_like(mask).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=lr)
    before = theta.post_step_loss(lesson, mask)
    for _ in range(steps):
        weights = softmax_weights(logits, mask.bool())
        found = theta.hypergradient(estimate, lesson, weights)
        optimizer.zero_grad()
        (found.weight_gradient * weights).sum().backward()
        optimizer.step()
    weights = softmax_weights(logits, mask.bool()).detach()
    return weights, before, theta.post_step_loss(lesson, weights)


def one_per_document(facts: Sequence[Fact]) -> list[Fact]:
    """The first fact of every document: a document has one set of weights."""
    return list({fact.evidence: fact for fact in reversed(facts)}.values())[::-1]


def main(arguments: list[str]) -> None:
    config = parse(CeilingConfig, "ceiling", arguments, "python -m taalm.ceiling")
    if config.objective.restriction or config.objective.retention:
        raise UserError("--objective.restriction and --objective.retention are phi's: a ceiling is of the task alone")
    keep_freed_memory()
    path = Path(config.out) / "weights.jsonl"
    facts = facts_file(config.to_learn, lambda: data_folder(config.data, config.theta.name), "to_learn")
    inputs = {"to_learn": [fact.content() for fact in facts]}
    claim(Path(config.out), config, keep=("out", "limit", "quiet"), inputs=inputs)
    facts = one_per_document(facts[: config.limit or None])
    done = {row["text"]: row for _, row in read_jsonl(path)} if path.exists() else {}
    left = [fact for fact in facts if fact.evidence not in done]
    torch.manual_seed(config.seed)
    model, tokenizer = load_theta(config.theta)
    theta = Theta(model, config.inner, config.objective)
    if theta.split.seq2seq:
        raise UserError("taalm.ceiling is for decoders")
    device = next(model.parameters()).device
    lessons = Lessons(tokenizer, left, config.objective.form, config.max_length, device)
    bar = tqdm(total=len(left), desc="ceiling", unit="document", disable=config.quiet or None)
    for indices in lessons.in_batches(config.batch_size):
        lesson = lessons.lesson(indices)
        weights, before, after = train_weights(theta, lesson, config.steps, config.lr)
        for row, index in enumerate(indices):
            values = weights[row, : lessons.lengths[index] - 1].tolist()
            text = left[index].evidence
            done[text] = {"text": text, "weights": [round(value, 5) for value in values], "batch": [before, after]}
        write_jsonl(path, done.values())
        bar.update(len(indices))
        bar.set_postfix(before=f"{before:.3f}", after=f"{after:.3f}")
        stopping.obey(lambda: None)
    bar.close()
    rows = [done[fact.evidence]["batch"] for fact in facts]
    before, after = (sum(row[place] for row in rows) / len(rows) for place in (0, 1))
    print(f"weights of {len(facts)} documents in {path}")
    print(f"task loss after learning with equal weights {before:.3f}, with these {after:.3f}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
