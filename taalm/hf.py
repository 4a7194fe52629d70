"""Token weights in somebody's own Hugging Face training: a Trainer, a mixin for other Trainers (TRL's), a collator.

phi = TrainAttention.from_pretrained("smollm2-135m")
trainer = TokenWeightedTrainer(model, args, train_dataset=rows, data_collator=TokenWeightCollator(tokenizer),
                               weigh=phi.weights)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer

from taalm.errors import UserError
from taalm.losses import document_means, target_mask, token_nll
from taalm.text import pad_token

Weigh = Callable[[Tensor, Tensor], Tensor]  # (input_ids, attention_mask) -> weights, all (B, T)
WEIGHTS = "token_weights"  # the column of weights that a dataset or a collator brings


class TokenWeightCollator:
    """Pads rows of `input_ids` (and `labels`, `token_weights` where they have them) into a batch, padded on the right.

    A row without labels learns all its tokens; label -100 leaves a token out. Rows are dicts of lists.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.pad_id = pad_token(tokenizer)

    def __call__(self, rows: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, Tensor]:
        fill = {"input_ids": self.pad_id, "attention_mask": 0, "labels": -100, WEIGHTS: 0.0}
        columns = [
            {
                "input_ids": row["input_ids"],
                "attention_mask": row.get("attention_mask", [1] * len(row["input_ids"])),
                "labels": row.get("labels", row["input_ids"]),
                **({WEIGHTS: row[WEIGHTS]} if WEIGHTS in row else {}),
            }
            for row in rows
        ]
        if len({tuple(row) for row in columns}) > 1:
            raise UserError(f"some rows have {WEIGHTS} and others have none; give all of them weights, or none")
        for row in columns:
            if len({len(values) for values in row.values()}) > 1:
                lengths = ", ".join(f"{name} {len(values)}" for name, values in row.items())
                raise UserError(f"a row's columns have different lengths ({lengths}); each has one value a token")
        return {
            name: nn.utils.rnn.pad_sequence(
                [torch.as_tensor(row[name]) for row in columns], batch_first=True, padding_value=fill[name]
            )
            for name in columns[0]
        }


class TokenWeighted:
    """For any Trainer of causal language models: `class Mine(TokenWeighted, SFTTrainer): ...`.

    Learns L(theta; D, w) of docs/method.md: every document's weighted mean loss, and the mean over all documents of an
    update, gradient accumulation and processes included. Weights come from `weigh(input_ids, attention_mask)`
    (phi.weights, or any function), else from the batches' `token_weights` (B, T).
    """

    def __init__(self, *args: Any, weigh: Weigh | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.weigh = weigh
        self.args.remove_unused_columns = False  # a model's forward does not name the weights
        self.loss_is_scaled_for_ga = True  # by the number of documents of the whole update

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of an update, and how many documents they hold, over all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(len(batch["input_ids"]) for batch in samples), device=device)
        return samples, self.accelerator.gather(count).sum()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The update's loss, this micro-batch's share of it; outside training the mean over the batch."""
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        with torch.no_grad():
            weights = self._weights(inputs, ids, mask)
        left_out = ("labels", WEIGHTS)
        outputs = model(**{name: value for name, value in inputs.items() if name not in left_out})
        counted = target_mask(mask)
        if inputs.get("labels") is not None:
            counted = counted * (inputs["labels"][:, 1:] != -100)
        losses = document_means(token_nll(outputs.logits, ids), weights[:, 1:].to(counted.device), counted)
        documents = len(ids) if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        loss = losses.sum() / documents  # the gradients of processes are averaged
        return (loss, outputs) if return_outputs else loss

    def _weights(self, inputs: Mapping[str, Any], ids: Tensor, mask: Tensor) -> Tensor:
        if self.weigh is not None:
            return self.weigh(ids, mask)
        if WEIGHTS not in inputs:
            raise UserError(f"no weights: give the Trainer weigh=phi.weights, or the rows a column {WEIGHTS}")
        return inputs[WEIGHTS]


class TokenWeightedTrainer(TokenWeighted, Trainer):
    """transformers' Trainer with a weight for every token."""
