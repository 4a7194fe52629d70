"""Run: pytest tests/test_low_rank.py. The fused LoRA layer equals PEFT's, in value and in every kind of derivative."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from peft import LoraConfig, get_peft_model
from torch import nn

from taalm.models.low_rank import FusedLora, LowRankSum, Misaligned, fuse_lora, learns_by_document

B, T, IN, OUT, R = 3, 4, 5, 6, 2


def plain(y0, x, a, b, scale):
    return y0 + (x @ a.mT) @ b.mT * scale


def fused(*given):
    return LowRankSum.apply(*given)[0]


@pytest.fixture(params=["shared", "by document"])
def made(request):
    torch.manual_seed(0)
    own = (B,) if request.param == "by document" else ()
    return [
        torch.randn(shape, dtype=torch.float64) for shape in ((B, T, OUT), (B, T, IN), (*own, R, IN), (*own, OUT, R))
    ]


def test_value_and_first_and_second_derivatives(made):
    assert torch.autograd.gradcheck(
        lambda *given: fused(*given, 0.7), [t.requires_grad_() for t in made], check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(lambda *given: fused(*given, 0.7), made, check_fwd_over_rev=True)
    torch.testing.assert_close(fused(*made, 0.7), plain(*made, 0.7))


@pytest.mark.parametrize("moved", [[0], [1], [2], [3], [2, 3]])
def test_tangents_of_some_inputs_alone(made, moved):
    results = []
    for way in (fused, plain):
        with forward_ad.dual_level(), torch.no_grad():
            given = [forward_ad.make_dual(t, torch.ones_like(t)) if i in moved else t for i, t in enumerate(made)]
            results.append(forward_ad.unpack_dual(way(*given, 0.7)).tangent)
    torch.testing.assert_close(*results)


@pytest.fixture
def layers():
    """PEFT's model and the same model with fused layers; B is not 0."""
    torch.manual_seed(0)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = get_peft_model(
            nn.Sequential(nn.Linear(IN, OUT)), LoraConfig(r=R, target_modules=["0"], lora_dropout=0.5)
        )
        nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
        found.append(model)
    fuse_lora(found[1])
    assert type(found[1].base_model.model[0]) is FusedLora
    return found


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_gives_pefts_numbers_with_dropout_too(layers, training):
    x, found = torch.randn(B, T, IN), []
    for model in layers:
        torch.manual_seed(1)
        found.append(model.train(training)(x))
        found[-1].square().sum().backward()
    torch.testing.assert_close(*found)
    gradients = [[p.grad for p in model.parameters() if p.requires_grad] for model in layers]
    assert len(gradients[0]) == 2 and all(
        torch.allclose(*pair, rtol=1e-4, atol=1e-5) for pair in zip(*gradients, strict=True)
    )


def test_what_else_peft_can_do_goes_its_way(layers):
    x = torch.randn(B, T, IN)
    plain_model, model = (model.eval() for model in layers)
    with model.disable_adapter(), plain_model.disable_adapter():
        torch.testing.assert_close(model(x), plain_model(x))
    torch.testing.assert_close(model.merge_and_unload()(x), plain_model(x))


def test_documents_that_were_flattened_are_noticed(layers):
    layer = layers[1].base_model.model[0].eval()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    own = {"lora_A.default.weight": a.repeat(B, 1, 1), "lora_B.default.weight": b.repeat(B, 1, 1)}
    x = torch.randn(B, T, IN)
    torch.testing.assert_close(torch.func.functional_call(layer, own, (x,)), layer(x))
    with pytest.raises(Misaligned):
        torch.func.functional_call(layer, own, (x.flatten(0, 1),))
    assert learns_by_document(layers[1]) and not learns_by_document(layers[0])
