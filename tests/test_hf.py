"""Run: pytest tests/test_hf.py. Token weights in transformers' Trainer and in TRL's."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from taalm.errors import UserError
from taalm.hf import TokenWeightCollator, TokenWeighted, TokenWeightedTrainer
from taalm.losses import target_mask, token_nll, weighted_mean
from taalm.text import collate, encode
from tests.conftest import tiny_llama

TEXTS = [
    "Ana lives in Rome.",
    "Bo works as a poet in Oslo.",
    "Cy sang here.",
    "Di was born in a small town by the sea.",
]


def rows(tokenizer, **columns) -> Dataset:
    encoded = [encode(tokenizer, text) for text in TEXTS]
    return Dataset.from_list(
        [{"input_ids": list(row.input_ids)} | {k: v(row) for k, v in columns.items()} for row in encoded]
    )


def odd_places(input_ids, attention_mask):
    return (torch.arange(input_ids.shape[1], device=input_ids.device) % 2 + 0.1).expand(input_ids.shape)


def arguments(folder, size: int, accumulation: int, **more) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, max_steps=1,
        learning_rate=1.0, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
        use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1, **more,
    )  # fmt: skip


def after_one_update(
    tokenizer, folder, size: int, accumulation: int, weigh=odd_places, data=None, kind=TokenWeightedTrainer
):
    model = tiny_llama(len(tokenizer))
    options = {} if kind is Trainer else {"weigh": weigh}
    trainer = kind(
        model, arguments(folder, size, accumulation), train_dataset=data or rows(tokenizer),
        data_collator=TokenWeightCollator(tokenizer), **options,
    )  # fmt: skip
    trainer.train()
    return {name: value.detach().clone() for name, value in model.named_parameters()}, trainer


def by_hand(tokenizer, weigh=odd_places):
    model = tiny_llama(len(tokenizer))
    batch = collate([encode(tokenizer, text) for text in TEXTS], tokenizer.pad_token_id)
    losses = token_nll(model(**batch.inputs()).logits, batch.input_ids)
    weights = weigh(batch.input_ids, batch.attention_mask)[:, 1:]
    loss = weighted_mean(losses, weights, target_mask(batch.attention_mask))
    loss.backward()
    return {name: (p - p.grad).detach() for name, p in model.named_parameters()}, float(loss.detach())


@pytest.mark.parametrize(("size", "accumulation"), [(4, 1), (2, 2), (1, 4), (3, 2)])
def test_an_update_is_the_weighted_mean_whatever_the_accumulation(tokenizer, tmp_path, size, accumulation):
    found, trainer = after_one_update(tokenizer, tmp_path, size, accumulation)
    expected, loss = by_hand(tokenizer)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-4)


def test_weights_of_the_rows_equal_a_function_and_differ_from_plain_training(tokenizer, tmp_path):
    column = rows(tokenizer, token_weights=lambda row: odd_places(torch.tensor([row.input_ids]), None)[0].tolist())
    found, _ = after_one_update(tokenizer, tmp_path, 2, 2, weigh=None, data=column)
    expected, _ = by_hand(tokenizer)
    plain, _ = after_one_update(tokenizer, tmp_path, 2, 2, kind=Trainer)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-6) for name, value in expected.items())
    assert max(float((plain[name] - value).abs().max()) for name, value in expected.items()) > 1e-3


def test_tokens_without_a_label_are_left_out(tokenizer, tmp_path):
    def half(row):
        return [-100] * (len(row) // 2) + list(row.input_ids[len(row) // 2 :])

    def last_half(input_ids, attention_mask):
        lengths = attention_mask.sum(1, keepdim=True)
        return (torch.arange(input_ids.shape[1]) >= lengths // 2).float()

    found, _ = after_one_update(
        tokenizer,
        tmp_path,
        4,
        1,
        weigh=lambda ids, mask: torch.ones_like(ids).float(),
        data=rows(tokenizer, labels=half),
    )
    expected, _ = by_hand(tokenizer, last_half)
    assert all(torch.allclose(found[name], value, rtol=1e-4, atol=1e-6) for name, value in expected.items())


def test_trl_learns_with_token_weights_and_saves_an_adapter(tokenizer, tmp_path):
    trl = pytest.importorskip("trl")

    class Weighted(TokenWeighted, trl.SFTTrainer):
        pass

    settings = trl.SFTConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=12,
        learning_rate=3e-2, save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1,
        bf16=False, max_length=64,
    )  # fmt: skip
    model = get_peft_model(
        tiny_llama(len(tokenizer)), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    data = Dataset.from_list([{"text": text} for text in TEXTS])
    trainer = Weighted(model, settings, train_dataset=data, processing_class=tokenizer, weigh=odd_places)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_rows_that_do_not_fit_are_refused(tokenizer):
    collator = TokenWeightCollator(tokenizer)
    with pytest.raises(UserError, match=r"input_ids 3, .* token_weights 2"):
        collator([{"input_ids": [0, 5, 6], "token_weights": [1.0, 2.0]}])
    with pytest.raises(UserError, match="some rows have token_weights"):
        collator([{"input_ids": [0, 5], "token_weights": [1.0, 2.0]}, {"input_ids": [0, 5]}])
