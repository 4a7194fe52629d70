"""Run: pytest tests/test_scaling.py. A scaled adapter against interpolated weights."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from taalm.errors import UserError
from taalm.models.base import add_lora, save_adapter
from taalm.models.kadapter import KAdapterConfig
from taalm.scaling import scaled
from tests.conftest import tiny_llama

IDS = torch.tensor([[0, 5, 9, 11, 7]])


@pytest.fixture
def lora():
    model = add_lora(tiny_llama(64).requires_grad_(False), r=2, alpha=4, dropout=0.0).eval()
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    return model


@torch.no_grad()
def test_lora_scaled_is_interpolation_of_the_weights(lora):
    base = tiny_llama(64).eval()
    whole, zero = lora(input_ids=IDS).logits, base(input_ids=IDS).logits
    with scaled(lora, 0.3):
        found = lora(input_ids=IDS).logits
    with scaled(lora, 0.0):
        torch.testing.assert_close(lora(input_ids=IDS).logits, zero)
    torch.testing.assert_close(lora(input_ids=IDS).logits, whole)
    merged = lora.merge_and_unload()
    for start, end in zip(base.parameters(), merged.parameters(), strict=True):
        start.lerp_(end, 0.3)
    torch.testing.assert_close(found, base(input_ids=IDS).logits, rtol=1e-4, atol=1e-5)
    assert (found - whole).abs().max() > 1e-2


@torch.no_grad()
def test_a_saved_adapter_counts_as_often_as_it_was_asked(lora, tmp_path):
    with scaled(lora, 0.3):
        found = lora(input_ids=IDS).logits
    whole = lora(input_ids=IDS).logits
    save_adapter(lora, tmp_path / "adapter", 0.3)
    loaded = PeftModel.from_pretrained(tiny_llama(64).eval(), tmp_path / "adapter")
    torch.testing.assert_close(loaded(input_ids=IDS).logits, found)
    torch.testing.assert_close(lora(input_ids=IDS).logits, whole)


@torch.no_grad()
def test_kadapter_scaled_to_nothing_is_the_base():
    model = get_peft_model(tiny_llama(64).eval(), KAdapterConfig(layers=[0, -1])).eval()
    whole = model(input_ids=IDS).logits
    with scaled(model, 0.0):
        torch.testing.assert_close(model(input_ids=IDS).logits, tiny_llama(64).eval()(input_ids=IDS).logits)
    torch.testing.assert_close(model(input_ids=IDS).logits, whole)


def test_a_model_without_an_adapter_cannot_be_scaled():
    with pytest.raises(UserError, match="needs an adapter"), scaled(tiny_llama(64), 0.5):
        pass
