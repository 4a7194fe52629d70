"""What a model says when it is given a beginning (decoders) or a source (encoder-decoders)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import GenerationConfig

from taalm import processes
from taalm.models.split import SplitModel
from taalm.text import Encoded, by_length, collate, pad_token, start_token


class _Prompts(Dataset):
    """Batches of similar length, padded on the left for decoders: generation goes on at the right end."""

    def __init__(self, rows: Sequence[Encoded], parts: Sequence[Sequence[int]], pad_id: int, side: str):
        self.rows, self.parts, self.pad_id, self.side = rows, parts, pad_id, side

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = collate([self.rows[row] for row in self.parts[index]], self.pad_id, self.side)
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def _encode(split: SplitModel, tokenizer: Any, texts: Sequence[str], input_length: int) -> list[Encoded]:
    if split.seq2seq:
        found = [tokenizer(text, verbose=False)["input_ids"][:input_length] for text in texts]
    else:
        start = start_token(tokenizer)
        plain = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts)
        found = [[start, *ids][:input_length] for ids in plain]
    return [Encoded(tuple(ids), (False,) * len(ids)) for ids in found]


@torch.no_grad()
def generate(
    split: SplitModel, tokenizer: Any, texts: Sequence[str], input_length: int, output_length: int,
    batch_size: int = 64, beams: int = 1, workers: int = 0,
) -> list[str]:  # fmt: skip
    """The most likely continuation or answer of each text, of at most `output_length` tokens: greedy, or by `beams`.

    Texts are cut to `input_length` tokens. Sentinels stay in what is returned, padding and EOS do not. `workers` > 0
    processes prepare the batches. Several processes share the texts, and each returns all answers.
    """
    split.model.eval()
    rows = _encode(split, tokenizer, texts, input_length)
    parts = [part for part, _ in processes.in_step(by_length([len(row) for row in rows], batch_size))]
    device = next(split.model.parameters()).device
    settings = GenerationConfig(
        max_new_tokens=output_length, num_beams=beams, do_sample=False, use_cache=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=pad_token(tokenizer),
        decoder_start_token_id=start_token(tokenizer) if split.seq2seq else None,
    )  # fmt: skip
    prompts = _Prompts(rows, parts, pad_token(tokenizer), "right" if split.seq2seq else "left")
    silent = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    found: dict[int, str] = {}
    for part, inputs in zip(parts, DataLoader(prompts, batch_size=None, num_workers=workers), strict=True):
        given = 0 if split.seq2seq else inputs["input_ids"].shape[1]
        inputs = {name: value.to(device) for name, value in inputs.items()}
        said = split.model.generate(**inputs, generation_config=settings, synced_gpus=processes.count() > 1)
        for index, ids in zip(part, said[:, given:].tolist(), strict=True):
            found[index] = tokenizer.decode([token for token in ids if token not in silent])
    found = processes.gather(found)
    return [found[index] for index in range(len(texts))]
