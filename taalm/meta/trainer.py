"""The outer loop: phi learns from hypergradients, theta goes back to theta_0 after every step (TAALM, section 3.2)."""

import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from taalm import processes, stopping
from taalm.checkpoint import (
    load_optimizer,
    load_parameters,
    load_state,
    optimizer_tensors,
    save_state,
    under,
    write_jsonl,
    write_text,
)
from taalm.errors import NoResult, UserError
from taalm.losses import target_mask
from taalm.meta.hypergradient import get_hypergradient
from taalm.meta.lessons import Lessons
from taalm.meta.observe import observe_weights, post_step_losses, snapshot, watched
from taalm.meta.outer_config import OuterConfig
from taalm.meta.problem import Lesson, Theta
from taalm.meta.starts import Starts
from taalm.meta.warm_start import TokenScores, fit_loss, target_shares
from taalm.models.precision import rounds_to_bf16
from taalm.models.train_attention import TrainAttention
from taalm.seeds import derive_seed
from taalm.text import Batch, shuffled_buckets
from taalm.tracking import Log, no_log, scalars
from taalm.weighters import get_weighter
from taalm.weighters.material import Material


class MetaTrainer:
    """Trains phi. One JSON line per step goes to `<folder>/log.jsonl`, the state to `<folder>/state.safetensors`.

    Several processes share every step's documents and add up phi's gradients; theta is never exchanged. With one theta'
    per document the step is the single process's; a joint theta' sees its own process's documents.
    """

    def __init__(
        self, theta: Theta, phi: TrainAttention, train: Lessons, valid: Lessons | None, config: OuterConfig,
        folder: Path, seed: int, quiet: bool = False, track: Log = no_log,
    ):  # fmt: skip
        self.theta, self.phi, self.train, self.valid, self.config = theta, phi, train, valid, config
        self.folder, self.seed, self.quiet, self.track = folder, seed, quiet, track
        self.estimate = get_hypergradient(config.hypergradient)
        if config.hypergradient == "finite_difference" and rounds_to_bf16(theta.model):
            raise UserError(
                "--outer.hypergradient finite_difference: theta's frozen layers multiply in bfloat16, whose rounding "
                "is larger than the differences; pass --theta.precision fp32, or --outer.hypergradient jvp"
            )
        if config.starts > 1 and not (valid and 0 < config.warm_start <= config.steps):
            raise UserError(
                f"--outer.starts {config.starts}: choosing among warm starts needs validation facts, and an "
                f"--outer.warm_start from 1 to --outer.steps ({config.warm_start}, {config.steps})"
            )
        self.rates = [config.lr, config.head_lr]
        self.optimizer = self._fresh_optimizer()
        self.starts = Starts(phi, self.state_file)
        self.step, self.bad_in_a_row, self.skipped, self.seconds = 0, 0, 0, 0.0
        self.scores = TokenScores()
        self.log: list[dict] = []

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        named = self.phi.trainable().items()
        head = [value for name, value in named if name.startswith("head")]
        body = [value for name, value in named if not name.startswith("head")]
        groups = [{"params": part, "lr": rate} for part, rate in zip((body, head), self.rates, strict=True)]
        return torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)

    def run(self) -> dict:
        """Train to the last step, resuming where a state lies; returns the last observation on the validation facts."""
        self.resume()
        if self.valid and self.config.watched and processes.is_main():
            found = watched(self.phi.tokenizer, self.valid, self.config.watched)
            write_text(self.folder / "documents.json", json.dumps(found, ensure_ascii=False))
        bar = tqdm(
            total=self.config.all_steps, initial=self.step, desc="phi", unit="step",
            disable=self.quiet or not processes.is_main() or None,
        )  # fmt: skip
        observed: dict = {}
        batches = self._batches()
        while self.step < self.config.all_steps:
            entry = self.outer_step(next(batches))
            bar.update()
            loss = entry.get("task_loss", entry.get("fit_loss"))
            bar.set_postfix(loss=f"{loss:.3f}", tok_s=f"{entry['tokens_per_s']:.0f}")
            last = self.step == self.config.all_steps
            ends = self._ends_start()
            if self.valid and (last or ends or (self.config.eval_every and self.step % self.config.eval_every == 0)):
                observed = self.observe(self.valid)
                entry["valid"] = observed
                if self.config.watched:
                    entry["snapshot"] = snapshot(self.phi, self.valid, self.config.watched)
                if not self.quiet:
                    ratio = observed["object_ratio"]
                    bar.write(
                        f"step {self.step}: object-to-mean weight ratio on the validation facts, median "
                        f"{ratio['median']:.1f} (quartiles {ratio['q1']:.1f}, {ratio['q3']:.1f})"
                    )
            if ends:
                entry["start"] = self._end_start(observed["object_heaviest"])
            self.log.append(entry)
            self.track(scalars("phi", entry), self.step)
            if last or self.step % self.config.save_every == 0:
                self.save()
            stopping.obey(self.save)
        bar.close()
        return observed or next((e["valid"] for e in reversed(self.log) if "valid" in e), {})

    def _batches(self) -> Iterator[list[int]]:
        """Batches from the current step on; every epoch has an order of its own."""
        count = len(self.train.facts)
        epoch, done = divmod(self.step, -(-count // self.config.batch_size))
        while True:
            seed, drawn = derive_seed(self.seed, epoch), list(range(count))
            if self.config.balance:
                relations = Counter(fact.relation_code for fact in self.train.facts)
                chances = [relations[fact.relation_code] ** -self.config.balance for fact in self.train.facts]
                drawn = random.Random(seed).choices(drawn, chances, k=count)
            lengths = [self.train.lengths[index] for index in drawn]
            order = shuffled_buckets(lengths, self.config.batch_size, seed)
            yield from ([drawn[place] for place in batch] for batch in order[done:])
            epoch, done = epoch + 1, 0

    def outer_step(self, indices: Sequence[int]) -> dict:
        """Update phi on the documents `indices`, by its warm start or by the hypergradient; returns what is logged."""
        dealt = processes.deal(indices)
        mine, share = dealt or indices[:1], len(dealt) / len(indices)
        lesson = self.train.lesson(mine, self.step)
        started = time.perf_counter()
        torch.manual_seed(derive_seed(self.seed, self.step) + processes.rank())  # dropout, the same after a resume
        warm = self.step < self.config.warm_steps
        rate_share = 1.0 if warm or not self.config.warm_start else self.config.refine
        in_start = self.step % self.config.warm_start if warm else self.step
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rate_share * min(1.0, (in_start + 1) / max(1, self.config.warmup_steps))
        self.phi.train()
        documents = lesson.documents
        logits = self.phi.logits(documents.input_ids, documents.attention_mask)
        weights = self.phi.to_weights(logits, documents.attention_mask)[:, 1:]
        loss, logged = (self._fit if warm else self._learn)(lesson, weights, mine)
        real = documents.attention_mask
        sums = [
            share and float(values.sum()) for values in (weights.detach(), logits.detach() * real, real[:, 1:], real)
        ]
        logged, weight_sum, logit_sum, targets, tokens = processes.totals(share * float(logged), *sums)
        norm = self._update(loss, logits, documents, share, logged)
        self.step += 1
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return {
            "step": self.step,
            "fit_loss" if warm else "task_loss": logged,
            "gradient_norm": norm,
            "mean_weight": weight_sum / targets,
            "mean_logit": logit_sum / tokens,
            "skipped": self.skipped,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
        }

    def _fit(self, lesson: Lesson, weights: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The warm start's loss for phi, twice: to differentiate and to log."""
        mask = target_mask(lesson.documents.attention_mask)
        scores = self.scores.batch(self.theta, lesson, indices)
        loss = fit_loss(weights, target_shares(scores, mask, self.config.temperature), mask)
        return loss, loss.detach()

    def _learn(self, lesson: Lesson, weights: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Learn the documents with phi's weights: the surrogate whose gradient is the hypergradient, the task loss."""
        found = self.theta.hypergradient(self.estimate, lesson, weights)
        return (found.weight_gradient * weights).sum(), found.task_loss

    def _update(self, loss: Tensor, logits: Tensor, documents: Batch, share: float, logged: float) -> float:
        """Step phi on `loss` and the anchor unless something is not finite; returns the gradient's norm.

        `share` is how much of the batch these documents are; the other processes have the rest.

        Raises UserError at the fifth bad step in a row.
        """
        mask = documents.attention_mask
        squared = ((logits.square() * mask).sum(1) / mask.sum(1)).mean()
        self.optimizer.zero_grad()
        (share * (loss + self.config.anchor * squared)).backward()
        processes.add_up_gradients(self.phi.trainable().values())
        norm = torch.nn.utils.clip_grad_norm_(list(self.phi.trainable().values()), self.config.clip_norm)
        if torch.isfinite(norm) and math.isfinite(logged):
            self.optimizer.step()
            self.bad_in_a_row = 0
        else:
            self.skipped += 1
            self.bad_in_a_row += 1
            if self.bad_in_a_row == 5:
                raise NoResult(
                    f"five outer steps in a row gave a gradient that is not finite (last at step {self.step + 1}, "
                    f"loss {logged}); lower --inner.lr or --outer.lr, or pass --theta.precision fp32. "
                    f"The state before them is in {self.folder}"
                )
        return float(norm)

    def _ends_start(self) -> bool:
        """Whether one of several warm starts has just ended."""
        warm = self.step <= self.config.warm_steps
        return self.config.starts > 1 and warm and self.step % self.config.warm_start == 0

    def _end_start(self, found: float) -> dict:
        """Begin the next warm start or go on from the best; `found` judges the ended one. Returns what is logged."""
        self.starts.end(found, last=self.step == self.config.warm_steps)
        self.optimizer = self._fresh_optimizer()
        return {"object_heaviest": found, "best": self.starts.found}

    def observe(self, lessons: Lessons) -> dict:
        """Where phi's weights fall on these facts."""
        self.phi.eval()
        batches = lessons.in_batches(self.config.batch_size)
        return observe_weights(
            self.phi,
            [lessons.lesson(indices).documents for indices in batches],
            [[lessons.facts[index] for index in indices] for indices in batches],
        )

    def judge(self, lessons: Lessons, weighters: Sequence[str] = ("train_attention", "uniform", "oracle")) -> dict:
        """The mean task loss on these facts after learning their documents, with each weighter's weights."""
        self.phi.eval()
        held = [lessons.lesson(indices) for indices in lessons.in_batches(self.config.batch_size)]
        losses = {}
        for name in weighters:
            weigh = get_weighter(name, Material(phi=self.phi))
            losses[name] = post_step_losses(self.theta, held, [weigh(lesson.documents) for lesson in held])
        return losses

    @property
    def state_file(self) -> Path:
        return self.folder / "state.safetensors"

    def save(self) -> None:
        if not processes.is_main():
            return
        tensors = {f"phi/{name}": value for name, value in self.phi.trainable().items()}
        values = {
            "step": self.step,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "seconds": self.seconds,
            "log": self.log,
        }
        tensors |= self.starts.state() | optimizer_tensors(self.optimizer) | self.scores.state()
        save_state(self.state_file, tensors, values)
        write_jsonl(self.folder / "log.jsonl", self.log)

    def resume(self) -> None:
        """Go on from the folder's state, if there is one."""
        if not self.state_file.exists():
            return
        tensors, values = load_state(self.state_file, needed=("step", "log"))
        load_parameters(self.phi.trainable(), under(tensors, "phi/"), self.state_file)
        load_optimizer(self.optimizer, tensors)
        self.scores.load(tensors)
        self.starts.load(tensors)
        self.step, self.skipped, self.seconds = values["step"], values["skipped"], values["seconds"]
        self.bad_in_a_row, self.log = values["bad_in_a_row"], values["log"]
        if processes.is_main():
            write_jsonl(self.folder / "log.jsonl", self.log)  # the last save may have ended between its two files
        if not self.quiet:
            tqdm.write(f"resuming at outer step {self.step} from {self.state_file}")
