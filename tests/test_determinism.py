"""Run: pytest tests/test_determinism.py -s. What the same seed repeats to the byte, and by how much the rest varies.

It prints the table of docs/determinism.md. Float32 on the CPU; a random Llama of 2 layers, 128 wide.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from taalm.adapt import Adaptation, AdaptConfig
from taalm.facts import Fact, read_facts
from taalm.models.base import add_lora, load_model
from taalm.models.split import SplitModel
from taalm.models.train_attention import RELEASED, TrainAttention, TrainAttentionConfig
from taalm.results import load_result
from taalm.scoring import encode_probe, score_probes
from taalm.text import Encoded, collate, encode
from taalm.weighters import get_weighter
from tests.conftest import ROOT, run_module, tiny_llama
from tests.test_commands import evaluate_arguments, train_arguments

FACTS = read_facts(ROOT / "data" / "sample" / "lama_ckl" / "to_learn.jsonl")[:24]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_times(result: dict) -> str:
    rows = {epoch: {k: v for k, v in row.items() if k != "seconds"} for epoch, row in result["eval_result"].items()}
    return json.dumps([rows, result["loss_by_step"], result["framing"]])


def test_the_same_seed_gives_the_same_bytes(tiny_folder, sample_folder, tmp_path, monkeypatch):
    """In this process and in another one with other hashes, dropout on; another seed gives other bytes."""
    shared = ("--name", "run", "--method", "targeted+review", "--model.dropout", 0.1, "--model.precision", "fp32")
    monkeypatch.delenv("TAALM_DATA", raising=False)

    def run(command: tuple, elsewhere: bool) -> None:
        if elsewhere:
            done = run_module(*command, PYTHONHASHSEED="1")
            assert done.returncode == 0, done.stderr
        else:
            import_module(command[0]).main(list(map(str, command[1:])))

    found = {}
    for name, seed in (("here", 42), ("elsewhere", 42), ("other", 43)):
        out = tmp_path / name
        train = train_arguments(tiny_folder, sample_folder, out, "--name", "phi", "--seed", seed, "--outer.steps", 4)
        run((*train, "--phi.dropout", 0.1, "--phi.precision", "fp32"), name == "elsewhere")
        given = evaluate_arguments(
            tiny_folder, sample_folder, out, *shared, "--seed", seed, "--phi", out / "phi" / "phi"
        )
        run(given, name == "elsewhere")
        files = [*(out / "runs" / "run" / "adapter").iterdir(), *(out / "phi" / "phi").iterdir()]
        found[name] = {str(file.relative_to(out)): file.read_bytes() for file in files}
        found[name]["history"] = without_times(load_result(out / "run.pkl"))
    assert len(found["here"]) >= 5 and found["here"] == found["elsewhere"]
    for name in found["here"]:
        if name == "history" or name.endswith(".safetensors"):
            assert found["here"][name] != found["other"][name]


def on_two_threads(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    torch.set_num_threads(2)
    try:
        return make()
    finally:
        torch.set_num_threads(1)


def reading(model: nn.Module, phi: TrainAttention, tokenizer, facts: list[Fact]) -> dict[str, dict[str, float]]:
    """What is read off a model and off phi -> what was changed -> the largest difference."""
    pad = tokenizer.pad_token_id
    probes = [encode_probe(tokenizer, fact, form) for fact in facts for form in ("descriptive", "schematic")]
    documents = [encode(tokenizer, fact.evidence) for fact in facts]

    def scores(budget: int = 1024, side: str = "right") -> torch.Tensor:
        return torch.tensor([score.nll for score in score_probes(model, probes, pad, budget, side)]).double()

    @torch.no_grad()
    def weights(size: int = 8, side: str = "right") -> torch.Tensor:
        rows = []
        for start in range(0, len(documents), size):
            batch = collate(documents[start : start + size], pad, side)
            found = phi.weights(batch.input_ids, batch.attention_mask)
            rows += [row[mask.bool()][1:] for row, mask in zip(found, batch.attention_mask, strict=True)]
        return torch.cat(rows).double()

    told, weighed = scores(), weights()

    def largest(found: torch.Tensor) -> float:
        return (found - told).abs().max().item()

    def share(found: torch.Tensor) -> float:
        return (found / weighed - 1).abs().max().item()

    return {
        "NLL of a probe, nats a token": {
            "nothing": largest(scores()),
            "batch": max(largest(scores(budget)) for budget in (1, 128, 4096)),
            "padding side": largest(scores(side="left")),
            "threads": largest(on_two_threads(scores)),
        },
        "phi's weight of a token, share of it": {
            "nothing": share(weights()),
            "batch": max(share(weights(size)) for size in (1, 3, 24)),
            "padding side": share(weights(side="left")),
            "threads": share(on_two_threads(weights)),
        },
    }


def adapting(vocabulary: int, pad: int, documents: list[Encoded], folder: Path) -> dict[str, dict[str, float]]:
    """The same of the adapter that is learned."""

    def adapted(budget: int = 4096) -> torch.Tensor:
        torch.manual_seed(0)
        model = add_lora(tiny_llama(vocabulary, hidden_size=128).requires_grad_(False), r=4, alpha=4, dropout=0.0)
        start = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]).clone()
        config = AdaptConfig(epochs=2, batch_size=8, lr=1e-3, token_budget=budget)
        state, weigh = Path(tempfile.mkdtemp(dir=folder)) / "state", get_weighter("uniform")
        run = Adaptation(SplitModel(model), documents, pad, weigh, config, lambda _: {}, state, 0, quiet=True)
        run.run()
        return (torch.cat([p.detach().flatten() for p in run.trainable.values()]) - start).double()

    way = adapted()

    def distance(found: torch.Tensor) -> float:
        return ((found - way).norm() / way.norm()).item()

    return {
        "the adapter after 6 updates, share of its way": {
            "nothing": distance(adapted()),
            "batch": max(distance(adapted(budget)) for budget in (1, 1024)),
            "threads": distance(on_two_threads(adapted)),
        }
    }


def show_and_check(title: str, measured: dict[str, dict[str, float]], bound: float, capsys) -> None:
    columns = ["nothing", "batch", "padding side", "threads"]
    with capsys.disabled():
        print(f"\n| {title} | " + " | ".join(columns) + " |\n|" + "---|" * 5)
        for what, found in measured.items():
            print(f"| {what} | " + " | ".join(f"{found[c]:.0e}" if c in found else "" for c in columns) + " |")
    for what, found in measured.items():
        assert found["nothing"] == 0 and max(found.values()) < bound, what


def test_what_varies_varies_little(tokenizer, tmp_path, capsys):
    model = tiny_llama(len(tokenizer), hidden_size=128)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    phi = TrainAttention.create(TrainAttentionConfig(backbone=str(tmp_path / "model"), precision="fp32"), "cpu").eval()
    torch.nn.init.normal_(phi.head.weight, std=0.1)
    documents = [encode(tokenizer, fact.evidence) for fact in FACTS]
    found = reading(model.eval(), phi, tokenizer, FACTS)
    found |= adapting(len(tokenizer), tokenizer.pad_token_id, documents, tmp_path)
    show_and_check("random Llama, 128 wide", found, 1e-4, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 0.3)])
def test_what_varies_of_the_packaged_model(precision, bound, tmp_path, capsys):
    model, tokenizer = load_model("smollm2-135m", device="cpu", precision=precision)
    folder = Path(shutil.copytree(RELEASED["smollm2-135m"], tmp_path / "phi"))
    described = json.loads((folder / "config.json").read_text())
    described["train_attention"]["precision"] = precision
    (folder / "config.json").write_text(json.dumps(described))
    phi = TrainAttention.from_pretrained(folder, "cpu")
    found = reading(model, phi, tokenizer, FACTS[:8])
    show_and_check(f"packaged model, {precision}", found, bound, capsys)
