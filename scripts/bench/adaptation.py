"""Adaptation against transformers' Trainer with PEFT: tokens per second at the same loss curve, side by side.

Both learn the same documents in the same order with the same LoRA layers, start and AdamW, in float32; ours in bfloat16
too, where the processor has it. The Trainer's rows are its batch sizes (an update has as many documents in each). The
command fails where the float32 loss curves differ.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from scripts.bench import prepare, published_step
from taalm.adapt import AdaptConfig
from taalm.checkpoint import write_text
from taalm.losses import document_means, target_mask
from taalm.models.base import load_tokenizer
from taalm.models.precision import keep_freed_memory
from taalm.seeds import derive_seed
from taalm.text import shuffled_buckets

LARGEST_DIFFERENCE = 0.02  # nats between the two loss curves, at any update
Run = Callable[[], tuple[float, list[float]]]  # -> seconds, loss of every update


def ours(given: argparse.Namespace, precision: str) -> tuple[float, list[float]]:
    run = prepare.adapted(given, precision, AdaptConfig(epochs=given.epochs, lr=given.lr))
    return run.seconds, run.losses_by_step


class InOrder(Trainer):
    """The Trainer on a dataset whose order is the order of learning."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def trainer(given: argparse.Namespace, batch_size: int) -> tuple[float, list[float]]:
    plain, tokenizer = prepare.theta(prepare.lora(given, "fp32"))
    lora = {name: p.detach() for name, p in plain.named_parameters() if p.requires_grad}
    model = published_step.load(given.model, given.r, lora, attention="sdpa").train()
    rows = prepare.documents(given, tokenizer)
    batches = [
        batch
        for epoch in range(given.epochs)
        for batch in shuffled_buckets([len(row) for row in rows], given.batch_size, derive_seed(0, epoch))
    ]
    data = [{"input_ids": list(rows[index].input_ids)} for batch in batches for index in batch]

    def collate(items: list[dict]) -> dict:
        return tokenizer.pad(items, return_tensors="pt") | {"labels": torch.zeros(len(items))}

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        batch = loss.batch
        mask = target_mask(batch["attention_mask"])
        nll = nn.functional.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none"
        ).view(mask.shape)
        return document_means(nll, torch.ones_like(nll), mask).sum() / given.batch_size

    def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
        loss.batch = kwargs

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=batch_size, use_cpu=True, seed=0,
            gradient_accumulation_steps=given.batch_size // batch_size, learning_rate=given.lr, weight_decay=0.0,
            lr_scheduler_type="constant", max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, remove_unused_columns=False, optim="adamw_torch",
        )  # fmt: skip
        run = InOrder(model, arguments, train_dataset=data, data_collator=collate, compute_loss_func=loss)
        started = perf_counter()
        run.train()
        seconds = perf_counter() - started
    handle.remove()
    return seconds, [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def main() -> None:
    parser = prepare.command_line(__doc__)
    parser.add_argument("--documents", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=16, help="documents of an update")
    parser.add_argument("--lr", type=float, default=3e-4)
    prepare.add_lora_flags(parser)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("results/bench/adaptation.json"), help="file for the figures")
    given = parser.parse_args()
    keep_freed_memory()
    logging.set_verbosity_error()
    sizes = [size for size in (4, 8, 16) if given.batch_size % size == 0]
    ways: dict[str, Run] = {f"Trainer, {size} at once": lambda size=size: trainer(given, size) for size in sizes}
    ways |= {f"ours, {name}": lambda name=name: ours(given, name) for name in prepare.precisions()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {}
    for _ in range(given.repeats):
        for name, way in ways.items():
            taken, losses[name] = way()
            seconds[name].append(taken)
    tokens = given.epochs * sum(map(len, prepare.documents(given, load_tokenizer(given.model))))
    best = min(statistics.median(seconds[name]) for name in ways if name.startswith("Trainer"))
    rows = {}
    for name, times in seconds.items():
        apart = max(abs(one - other) for one, other in zip(losses[name], losses["ours, fp32"], strict=True))
        rows[name] = {
            "tokens_per_s": tokens / statistics.median(times),
            "seconds": times,
            "times_the_best_trainer": best / statistics.median(times),
            "largest_loss_difference": apart,
            "losses": losses[name],
        }
        print(
            f"{name:20} {rows[name]['tokens_per_s']:7.1f} tokens/s  {rows[name]['times_the_best_trainer']:5.2f} x the "
            f"best Trainer   loss differs from ours in fp32 by {apart:.4f} at most"
        )
    arguments = {key: str(value) for key, value in vars(given).items()}
    write_text(given.json, json.dumps({"arguments": arguments, "tokens": tokens, "rows": rows}, indent=1) + "\n")
    worst = max(row["largest_loss_difference"] for name, row in rows.items() if "bf16" not in name)
    if worst > LARGEST_DIFFERENCE:
        raise SystemExit(f"the loss curves differ by {worst:.4f}, more than {LARGEST_DIFFERENCE}")


if __name__ == "__main__":
    main()
