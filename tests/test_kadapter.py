"""Run: pytest tests/test_kadapter.py. K-Adapter as a PEFT method: formula, frozen base, save and load."""

import subprocess
import sys

import pytest
import torch
from peft import get_peft_model

from taalm.errors import UserError
from taalm.models.kadapter import KAdapterConfig
from tests.conftest import ROOT, tiny_gpt2, tiny_llama, tiny_t5

IDS = torch.tensor([[0, 5, 9, 11, 7], [0, 8, 3, 2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
MAKE = {"llama": tiny_llama, "gpt2": tiny_gpt2, "t5": tiny_t5}


def adapted(kind: str, **settings):
    model = MAKE[kind](64).eval()
    torch.manual_seed(4)
    return get_peft_model(model, KAdapterConfig(**{"layers": [0, 1, -1], **settings}))


@pytest.mark.parametrize("kind", list(MAKE))
def test_at_scale_0_the_base_is_unchanged_and_else_it_is_not(kind):
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": IDS}
    base = MAKE[kind](64).eval()(**inputs).logits
    silent, loud = adapted(kind, scale=0.0).eval(), adapted(kind).eval()
    torch.testing.assert_close(silent(**inputs).logits, base)
    assert (loud(**inputs).logits - base).abs().max() > 1e-3
    with loud.disable_adapter():
        torch.testing.assert_close(loud(**inputs).logits, base)


@pytest.mark.parametrize("kind", list(MAKE))
def test_only_the_adapters_train(kind):
    model = adapted(kind)
    model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
    named = dict(model.named_parameters())
    assert {name for name, p in named.items() if p.requires_grad} == {name for name in named if "kadapter_" in name}
    trained = [p for p in named.values() if p.requires_grad]
    assert trained and all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


def test_the_output_is_the_papers_formula():
    model = adapted("llama", scale=0.3).eval()
    llama, layer = model.base_model.model.model, model.base_model.model.model.norm
    states = model(input_ids=IDS, output_hidden_states=True).hidden_states
    blocks, norm = layer.kadapter_blocks["default"], layer.kadapter_norm["default"]
    positions = torch.arange(5)[None].expand(2, -1)
    rotary = llama.rotary_emb(states[0], positions)
    causal = torch.full((5, 5), float("-inf")).triu(1)[None, None]

    def block(number: int, x: torch.Tensor) -> torch.Tensor:
        found = blocks[f"{number}_0"](x, attention_mask=causal, position_embeddings=rotary, position_ids=positions)
        return found[0] if isinstance(found, tuple) else found

    last_layer = llama.layers[-1](states[1], attention_mask=causal, position_embeddings=rotary, position_ids=positions)
    last = layer.base_layer(last_layer[0] if isinstance(last_layer, tuple) else last_layer)
    output = block(2, block(1, block(0, states[0]) + states[1]) + last)
    logits = model.base_model.model.lm_head(last + 0.3 * norm(output))
    torch.testing.assert_close(model(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-5)


def test_padding_on_either_side_gives_the_same_logits():
    model = adapted("llama").eval()
    right = model(input_ids=IDS[1:], attention_mask=MASK[1:]).logits[0, :3]
    ids, mask = torch.tensor([[2, 2, 0, 8, 3]]), torch.tensor([[0, 0, 1, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 1, 2]])
    left = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[0, 2:]
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_on_t5_the_adapters_read_the_encoder():
    model = adapted("t5").eval()
    places = {name.split(".kadapter")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert places == {"base_model.model.encoder.final_layer_norm"}
    padded = torch.nn.functional.pad(IDS, (0, 2)), torch.nn.functional.pad(MASK, (0, 2))
    longer = model(input_ids=padded[0], attention_mask=padded[1], labels=IDS).logits
    torch.testing.assert_close(longer, model(input_ids=IDS, attention_mask=MASK, labels=IDS).logits)


def test_a_saved_folder_loads_in_a_fresh_process(tmp_path):
    model = adapted("llama").eval()
    model.save_pretrained(tmp_path / "adapter")
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    torch.save({"logits": expected.detach()}, tmp_path / "expected.pt")
    code = (
        "import sys, torch, taalm.models.kadapter\n"
        "from peft import PeftModel\n"
        "from tests.conftest import tiny_llama\n"
        "from tests.test_kadapter import IDS, MASK\n"
        "model = PeftModel.from_pretrained(tiny_llama(64), sys.argv[1]).eval()\n"
        "found = model(input_ids=IDS, attention_mask=MASK).logits\n"
        "torch.testing.assert_close(found, torch.load(sys.argv[2])['logits'])\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "adapter"), str(tmp_path / "expected.pt")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="layer 15"):
        adapted("llama", layers=[1, 15, -1])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_with_past_keys_kept_says_the_same(kind, beams):
    model = adapted(kind, scale=3.0, blocks=2).eval()
    ids, mask = torch.tensor([[2, 2, 0, 8, 3], [0, 5, 9, 11, 7]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    said = {}
    for cache in (False, True):
        said[cache] = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=12, num_beams=beams, do_sample=False, use_cache=cache,
            pad_token_id=2, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    assert torch.equal(said[True].sequences, said[False].sequences)
    torch.testing.assert_close(torch.stack(said[True].scores), torch.stack(said[False].scores), rtol=1e-4, atol=1e-4)
    with model.disable_adapter():
        other = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, num_beams=beams, do_sample=False)
    assert not torch.equal(other, said[True].sequences)
