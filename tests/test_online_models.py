"""Run: pytest tests/test_online_models.py. Encoder-decoders in the shared code: what trains, Modular, generation."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch

from taalm.errors import UserError
from taalm.generation import generate
from taalm.losses import target_mask, token_nll
from taalm.models.base import ModelConfig, kadapter_places, load_theta
from taalm.models.split import SplitModel
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.text import Encoded, collate, encode


def part(name: str) -> str:
    """Which part of a model a parameter belongs to."""
    for word, label in (("lora_", "lora"), ("kadapter", "kadapter"), ("second.", "second"), ("projection", "second")):
        if word in name:
            return label
    if "decoder." in name:
        return "decoder"
    if "encoder." in name:
        return "encoder"
    if "layers.0." in name:
        return "lower"
    if "layers.1." in name:
        return "upper"
    return "embeddings" if "embed" in name or "shared" in name or "lm_head" in name else "norm"


def trained(folder, **settings) -> set[str]:
    model, _ = load_theta(ModelConfig(name=str(folder), r=2, precision="fp32", **settings))
    return {part(name) for name, parameter in model.named_parameters() if parameter.requires_grad}


T5_PARTS = {0: {"embeddings", "encoder", "decoder"}, 1: {"decoder"}, 2: set()}  # the tied embeddings are the encoder's
LLAMA_PARTS = {0: {"embeddings", "lower", "upper", "norm"}, 1: {"upper", "norm", "embeddings"}, 2: set()}
ADAPTERS = {"full": set(), "lora": {"lora"}, "kadapter": {"kadapter"}, "modular": {"second"}}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_trains_in_an_encoder_decoder(t5_folder, adapter, level):
    if adapter == "full" and level == 2:
        with pytest.raises(UserError, match="freezes the whole base"):
            trained(t5_folder, adapter=adapter, freeze_level=level)
        return
    found = trained(t5_folder, adapter=adapter, freeze_level=level, lora_targets="qv")
    assert found == T5_PARTS[level] | ADAPTERS[adapter]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("adapter", ["full", "lora", "kadapter"])
def test_what_trains_in_a_decoder(tiny_folder, adapter, level):
    if adapter == "full" and level == 2:
        return
    model, _ = load_theta(ModelConfig(name=str(tiny_folder), adapter=adapter, freeze_level=level, precision="fp32"))
    found = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tiny_has_an_untied_head = {part(name) for name in found}
    assert tiny_has_an_untied_head == LLAMA_PARTS[level] | ADAPTERS[adapter]
    assert not any("embed_tokens" in name for name in found) or level == 0


def test_lora_on_queries_and_values_only(t5_folder, tiny_folder):
    for folder, names in ((t5_folder, {"q", "v"}), (tiny_folder, {"q_proj", "v_proj"})):
        model, _ = load_theta(ModelConfig(name=str(folder), adapter="lora", r=4, alpha=16, lora_targets="qv"))
        lora = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        assert {name.split(".lora_")[0].rpartition(".")[2] for name in lora} == names
        assert next(iter(model.peft_config.values())).lora_alpha == 16


def test_kadapters_are_spread_over_the_layers():
    assert kadapter_places(32, 3) == [1, 15, -1] and kadapter_places(12, 2) == [1, -1]
    assert (
        kadapter_places(30, 3) == [1, 14, -1]
        and kadapter_places(2, 3) == [0, 1, -1]
        and kadapter_places(1, 2) == [0, -1]
    )


@pytest.mark.parametrize("level", [1, 2])
def test_four_bit_weights_do_not_train(tiny_folder, level):
    config = ModelConfig(name=str(tiny_folder), adapter="qlora", freeze_level=level)
    if level == 2:
        load_theta(config)
        return
    with pytest.raises(UserError, match="nf4 weights do not train"):
        load_theta(config)


@pytest.fixture
def t5(t5_folder) -> Callable:
    def load(**settings) -> tuple[SplitModel, object]:
        torch.manual_seed(0)
        model, tokenizer = load_theta(ModelConfig(name=str(t5_folder), precision="fp32", **settings))
        return SplitModel(model), tokenizer

    return load


def rows(tokenizer) -> list[Encoded]:
    texts = (("Ana lives in", "Ana lives in Rome ."), ("Bo", "Bo was born in Lyon ."))
    return [encode(tokenizer, said, (len(given) + 1, len(said) - 2), ends=True, source=given) for given, said in texts]


def test_modular_starts_as_the_base_and_needs_an_encoder(t5, tiny_folder):
    split, tokenizer = t5(adapter="modular")
    plain, _ = t5(adapter="full")
    batch = collate(rows(tokenizer), 0)
    torch.testing.assert_close(split.logits(batch), plain.logits(batch))
    torch.nn.init.normal_(split.model.encoder.projection.weight)
    assert not torch.allclose(split.logits(batch), plain.logits(batch))
    with pytest.raises(UserError, match="modular needs an encoder"):
        load_theta(ModelConfig(name=str(tiny_folder), adapter="modular"))


def test_losses_of_an_encoder_decoder_are_those_of_its_own_labels(t5):
    split, tokenizer = t5(adapter="full")
    row = rows(tokenizer)[0]
    batch = collate([row], 0)
    found = token_nll(split.logits(batch), batch.input_ids)[target_mask(batch.attention_mask).bool()]
    labels = torch.tensor([row.input_ids[1:]])
    expected = split.model(input_ids=batch.source_ids, attention_mask=batch.source_mask, labels=labels).loss
    torch.testing.assert_close(found.mean(), expected)


def test_padding_of_sources_and_targets_changes_no_number(t5):
    split, tokenizer = t5(adapter="full")
    both = collate(rows(tokenizer), 0)
    for index in range(2):
        alone = both.rows([index])
        length = alone.input_ids.shape[1]
        torch.testing.assert_close(split.logits(both)[index, :length], split.logits(alone)[0], rtol=1e-4, atol=1e-5)


def test_an_answer_ends_with_its_end(tokenizer):
    row = encode(tokenizer, "Ana lives in Rome .", (13, 17), ends=True)
    assert row.input_ids[-1] == tokenizer.eos_token_id and row.answer[-1]
    said = [token for token, marked in zip(row.input_ids, row.answer, strict=True) if marked]
    assert tokenizer.decode(said[:-1]).strip() == "Rome ."


def test_generation_is_greedy_whatever_the_batch(t5, tiny_folder):
    texts = ["Ana lives in", "The capital of France", "x"]
    decoder = SplitModel(load_theta(ModelConfig(name=str(tiny_folder), adapter="kadapter", precision="fp32"))[0])
    for split, tokenizer in (t5(adapter="full"), (decoder, load_theta(ModelConfig(name=str(tiny_folder)))[1])):
        together = generate(split, tokenizer, texts, 8, 6)
        assert together == [generate(split, tokenizer, [text], 8, 6)[0] for text in texts]
        assert together == generate(split, tokenizer, texts, 8, 6, batch_size=1, workers=1)


def test_phi_reads_what_an_encoder_decoder_says(t5_folder, t5, tmp_path):
    torch.manual_seed(0)
    phi = TrainAttention.create(TrainAttentionConfig(backbone=str(t5_folder), r=2, precision="fp32"))
    torch.nn.init.normal_(phi.head.weight)
    _, tokenizer = t5(adapter="full")
    batch = collate(rows(tokenizer), 0)
    weights = phi.weights(batch.input_ids, batch.attention_mask)
    targets = target_mask(batch.attention_mask)
    torch.testing.assert_close(weights.sum(1), targets.sum(1))
    assert weights[:, 1:][targets.bool()].std() > 0
    phi.save_pretrained(tmp_path)
    again = TrainAttention.from_pretrained(tmp_path)
    assert asdict(again.config) == asdict(phi.config)
    torch.testing.assert_close(again.weights(batch.input_ids, batch.attention_mask), weights)
