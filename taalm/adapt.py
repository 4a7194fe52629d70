"""The continual-training loop: theta learns documents from their weighted loss, epoch by epoch, resumable."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from tqdm import tqdm
from transformers.optimization import Adafactor

from taalm import processes, stopping
from taalm.checkpoint import load_optimizer, load_parameters, load_state, optimizer_tensors, save_state, under
from taalm.errors import NoResult, UserError
from taalm.losses import document_means, target_mask
from taalm.models.split import SplitModel
from taalm.rehearsal import Rehearsal
from taalm.seeds import derive_seed
from taalm.text import Batch, Encoded, by_length, by_tokens, collate, shuffled_buckets
from taalm.tracking import Log, no_log, scalars
from taalm.weighters import Selector, Weighter


@dataclass
class AdaptConfig:
    """How theta learns the documents."""

    epochs: NonNegativeInt = 8
    """Passes over the documents."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """AdamW, or Adafactor at a fixed rate (T5's habit); a method's own optimizer, such as RecAdam, comes first."""
    lr: NonNegativeFloat = 3e-4
    """Learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after its warm-up: stay, or fall to 0 at the last step."""
    warmup_ratio: ClosedUnitInterval = 0.0
    """Linear warm-up, as a share of all steps."""
    batch_size: PositiveInt = 8
    """Documents per update, over all processes together."""
    token_budget: PositiveInt = 1024
    """Padded tokens per forward pass; the gradients of an update's passes are added by their share of its documents."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    clip_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm."""
    learned_below: NonNegativeFloat = 0.0
    """A target whose present loss (nats) is below this is learned: it adds nothing to the update. 0 drops none."""
    max_length: NonNegativeInt = 512
    """Documents are cut to this many tokens; 0 cuts nothing, and a document longer than the model is an error."""
    save_every: PositiveInt = 50
    """Write the resumable state every so many updates, beside every epoch's end."""


def learning_rate(config: AdaptConfig, step: int, steps: int) -> float:
    """The rate of update `step` (from 0) of `steps`."""
    warm = math.ceil(config.warmup_ratio * steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)
    factor = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}[config.schedule]
    return config.lr * factor


MakeOptimizer = Callable[[Sequence[nn.Parameter], AdaptConfig, int], torch.optim.Optimizer]


def plain_optimizer(parameters: Sequence[nn.Parameter], config: AdaptConfig, updates: int) -> torch.optim.Optimizer:
    """The ordinary optimizer; others take the same arguments, `updates` being how many there will be."""
    options = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "adafactor":
        return Adafactor(parameters, **options, scale_parameter=False, relative_step=False)
    return torch.optim.AdamW(parameters, **options)


@torch.no_grad()
def document_losses(split: SplitModel, documents: Sequence[Encoded], pad_id: int) -> list[Tensor]:
    """l_t of every document under the model as it is, (real tokens - 1,) each, on the CPU."""
    split.model.eval()
    device = next(split.model.parameters()).device
    parts = [part for part, _ in processes.in_step(by_length([len(document) for document in documents], 8))]
    batches = (split.with_states(collate([documents[index] for index in part], pad_id).to(device)) for part in parts)
    found = _gathered_losses(split, parts, batches)
    return [found[index] for index in range(len(documents))]


@torch.no_grad()
def _gathered_losses(split: SplitModel, parts: Iterable[Sequence[int]], batches: Iterable[Batch]) -> dict[int, Tensor]:
    """l_t of the documents `parts` (a batch each, padded on the right), and of those of all other processes."""
    found: dict[int, Tensor] = {}
    for part, batch in zip(parts, batches, strict=True):
        losses = split.token_losses(batch).cpu()
        lengths = batch.attention_mask.sum(1).tolist()
        found |= {index: losses[row, : lengths[row] - 1] for row, index in enumerate(part)}
    return processes.gather(found)


class Adaptation:
    """One theta learning one set of documents.

    `evaluate(epoch)` is called before the first epoch and after each; what it returns (plain values) is kept by epoch
    together with the training loss in `history`, and survives a kill with the rest of the state.
    `importance`, where given, says how often each document's mean loss counts in an update; else all count once.
    Several processes share every update's documents and add up their gradients; each document counts once.
    """

    def __init__(
        self, split: SplitModel, documents: Sequence[Encoded], pad_id: int, weigh: Weighter | Selector,
        config: AdaptConfig, evaluate: Callable[[int], dict], state_file: Path, seed: int, quiet: bool = False,
        make_optimizer: MakeOptimizer = plain_optimizer, rehearsal: Rehearsal | None = None, accelerator: Any = None,
        log: Log = no_log, importance: Sequence[float] = (),
    ):  # fmt: skip
        self.split, self.model, self.documents, self.pad_id = split, split.model, list(documents), pad_id
        self.weigh, self.config, self.evaluate, self.rehearsal = weigh, config, evaluate, rehearsal
        self.state_file, self.seed, self.quiet, self.log = state_file, seed, quiet, log
        self.trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.accelerator = accelerator or Accelerator(cpu=next(self.model.parameters()).device.type == "cpu")
        updates = config.epochs * self.steps_per_epoch
        optimizer = make_optimizer(list(self.trainable.values()), config, updates)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.lengths = [len(document) for document in self.documents]
        self.importance = torch.tensor(importance or [1.0] * len(self.documents))
        self.digest = hashlib.sha256(repr([document.input_ids for document in self.documents]).encode()).hexdigest()
        self.states: dict[int, Tensor] = {}  # per document, what enters the first trained layer
        self.epoch, self.batch, self.losses, self.seconds = 0, 0, [], 0.0
        self.history: dict[int, dict] = {}
        self.losses_by_step: list[float] = []

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.documents) // self.config.batch_size)

    def run(self) -> dict[int, dict]:
        """Train to the last epoch, resuming where a state lies; returns {epoch: {loss, seconds, **evaluated}}."""
        self._resume()
        if 0 not in self.history:
            self.history[0] = {"loss": None, "seconds": 0.0, **self.evaluate(0)}
            self._save()
        total = self.config.epochs * self.steps_per_epoch
        bar = tqdm(
            total=total, initial=self.epoch * self.steps_per_epoch + self.batch, desc="adapt", unit="step",
            disable=self.quiet or not processes.is_main() or None,
        )  # fmt: skip
        while self.epoch < self.config.epochs:
            order = shuffled_buckets(self.lengths, self.config.batch_size, derive_seed(self.seed, self.epoch))
            for indices in order[self.batch :]:
                started = time.perf_counter()
                loss = self._update(indices)
                seconds = time.perf_counter() - started
                self.seconds += seconds
                self.losses.append(loss * len(indices))
                self.losses_by_step.append(loss)
                self.batch += 1
                bar.update()
                speed = sum(self.lengths[index] for index in indices) / seconds
                bar.set_postfix(loss=f"{loss:.3f}", tok_s=f"{speed:.0f}")
                step = self.epoch * self.steps_per_epoch + self.batch
                rate = self.optimizer.param_groups[0]["lr"]
                self.log({"train/loss": loss, "train/learning_rate": rate, "train/tokens_per_s": speed}, step)
                if self.batch % self.config.save_every == 0:
                    self._save()
                stopping.obey(self._save)
            self.epoch, self.batch = self.epoch + 1, 0
            mean_loss = math.fsum(self.losses) / len(self.documents)
            self.losses = []
            self.history[self.epoch] = {"loss": mean_loss, "seconds": self.seconds, **self.evaluate(self.epoch)}
            self.log(scalars("eval", self.history[self.epoch]), self.epoch * self.steps_per_epoch)
            self._save()
        bar.close()
        return self.history

    def _update(self, indices: Sequence[int]) -> float:
        """One optimizer step on the documents `indices`; returns the mean weighted loss over them."""
        step = self.epoch * self.steps_per_epoch + self.batch
        torch.manual_seed(derive_seed(self.seed, step) + processes.rank())  # dropout, the same after a resume
        rate = learning_rate(self.config, step, self.config.epochs * self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad()
        share = self.rehearsal.document_share(len(indices), self.epoch, step) if self.rehearsal else 1.0
        parts = processes.in_step(indices, lambda mine: by_tokens(mine, self.lengths, self.config.token_budget))
        batches = [self._batch(part) for part, _ in parts]
        total = 0.0
        for (part, counts), batch, weights in zip(parts, batches, self._weights(parts, batches), strict=True):
            loss = self._loss(part, batch, weights) * (counts * len(part) / len(indices))
            self.accelerator.backward(share * loss)
            total += float(loss.detach())
        if self.rehearsal:
            for extra in self.rehearsal.losses(len(indices), self.epoch, step):
                self.accelerator.backward(extra)
        (total,) = processes.totals(total)
        processes.add_up_gradients(self.trainable.values())
        norm = float(processes.whole(self.accelerator.clip_grad_norm_(self.trainable.values(), self.config.clip_norm)))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise NoResult(
                f"the loss is {total} at update {step + 1}; lower the learning rate or take precision fp32 "
                f"(its gradient's norm is {norm}). What was done before is kept in {self.state_file}"
            )
        self.optimizer.step()
        return total

    def _batch(self, indices: Sequence[int]) -> Batch:
        """The documents as a batch, with their states where the model has frozen layers: computed once a document."""
        device = next(iter(self.trainable.values())).device
        batch = collate([self.documents[index] for index in indices], self.pad_id).to(device)
        if all(index in self.states for index in indices):
            known = [self.states[index] for index in indices]
            return replace(batch, states=nn.utils.rnn.pad_sequence(known, batch_first=True))
        batch = self.split.with_states(batch)
        if batch.states is not None and self.config.epochs > 1:
            for row, index in enumerate(indices):
                self.states[index] = batch.states[row, : len(self.documents[index])].clone()
        return batch

    def _weights(self, parts: Sequence[tuple[list[int], bool]], batches: Sequence[Batch]) -> list[Tensor]:
        """The weights (B, T) of this process's batches of one update; a selector sees all documents of the update."""
        if not isinstance(self.weigh, Selector):
            return [self.weigh(batch) for batch in batches]
        self.model.eval()  # no dropout, as in the losses that these are compared with
        losses = _gathered_losses(self.split, [part for part, _ in parts], batches)
        self.model.train()
        whole = collate([self.documents[index] for index in sorted(losses)], self.pad_id)
        padded = nn.utils.rnn.pad_sequence([losses[index] for index in sorted(losses)], batch_first=True)
        weights = dict(zip(sorted(losses), self.weigh.select(whole, padded), strict=True))
        return [
            torch.stack([weights[index][: batch.input_ids.shape[1]] for index in part])
            for (part, _), batch in zip(parts, batches, strict=True)
        ]

    def _loss(self, part: Sequence[int], batch: Batch, weights: Tensor) -> Tensor:
        """L(theta; D, w) of the documents `part`, whose batch this is."""
        weights = weights[:, 1:].to(batch.input_ids.device)
        losses = self.split.token_losses(batch, asked=weights != 0)
        if self.config.learned_below:
            losses = losses * (losses.detach() >= self.config.learned_below)
        means = document_means(losses, weights, target_mask(batch.attention_mask))
        return (self.importance[part].to(means.device) * means).mean()

    def _save(self) -> None:
        tensors = {f"theta/{name}": value for name, value in self.trainable.items()}
        tensors = processes.collect(tensors | optimizer_tensors(self.optimizer))
        if not processes.is_main():
            return
        values = {
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "losses_by_step": self.losses_by_step,
            "seconds": self.seconds,
            "history": json.dumps(self.history),
            "documents": self.digest,
        }
        save_state(self.state_file, tensors, values)

    def _resume(self) -> None:
        if not self.state_file.exists():
            return
        tensors, values = load_state(self.state_file, needed=("epoch", "batch", "history"))
        if values.get("documents", self.digest) != self.digest:
            raise UserError(
                f"{self.state_file}: its run learned other texts (documents, or the views that were made of them); "
                "delete it to start anew"
            )
        load_parameters(self.trainable, under(tensors, "theta/"), self.state_file)
        load_optimizer(self.optimizer, tensors)
        self.epoch, self.batch, self.losses = values["epoch"], values["batch"], values["losses"]
        self.losses_by_step, self.seconds = values["losses_by_step"], values["seconds"]
        self.history = {int(epoch): entry for epoch, entry in json.loads(values["history"]).items()}
        if not self.quiet:
            tqdm.write(f"resuming at epoch {self.epoch}, batch {self.batch} from {self.state_file}")
