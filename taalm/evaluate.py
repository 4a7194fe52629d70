"""Adapt a model to the TO-LEARN documents of LAMA-ckl and see what it learns and forgets.

`python -m taalm.evaluate --method targeted` (scripts/eval/lamackl/*.sh).
"""

import os
import platform
import random
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt

from taalm.adapt import Adaptation, AdaptConfig
from taalm.benchmarks import lama_ckl
from taalm.config import parse, run_entry
from taalm.errors import UserError
from taalm.facts import Fact
from taalm.models.base import ModelConfig, load_theta, position_limit
from taalm.models.precision import keep_freed_memory
from taalm.models.split import SplitModel
from taalm.models.train_attention import TrainAttention
from taalm.results import load_result, save_result, table
from taalm.run_folder import claim
from taalm.scoring import ProbeBatches, encode_probe, score_batches
from taalm.text import check_length, describe_truncation, encode, pad_token
from taalm.weighters import get_weighter

METHODS = {"finetune": "uniform", "targeted": "train_attention", "oracle": "oracle"}


@dataclass
class EvaluateConfig:
    """Adapt theta to documents with one method and evaluate it every epoch."""

    method: str = "finetune"
    """finetune, targeted (phi's weights) or oracle (the object's tokens)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    phi: str = ""
    """Folder of a trained phi for targeted; default the newest under --phi_runs."""
    phi_runs: str = "runs/train_ta/lama_ckl"
    """Where to look for a trained phi."""
    data: str = ""
    """Folder with the split's files, or with raw rows (LAMA_ckl/); default TAALM_DATA, else the sample set."""
    to_learn: str = ""
    """The facts to learn; default to_learn.jsonl of the data folder."""
    not_to_forget: str = ""
    """Known facts asked in the descriptive form; default not_to_forget_descriptive.jsonl."""
    not_to_forget_schematic: str = ""
    """Known facts asked in the schematic form; default not_to_forget_schematic.jsonl."""
    limit: NonNegativeInt = 0
    """Learn only the first so many facts of the file; 0 learns all."""
    swap_halves: bool = False
    """Also adapt to each random half of the facts alone, for read knowledge (twice the time)."""
    save_adapter: bool = True
    """Save the final adapter in PEFT's format."""
    name: str = ""
    """Name of the result file; default <method>_seed<seed>."""
    out: str = "results/lamackl"
    """Folder of the result files."""
    seed: int = 42
    """Seed of the adapter's fresh weights and of the order of documents."""
    quiet: bool = False
    """No progress."""


def find_phi(config: EvaluateConfig) -> Path:
    """The phi that was given, or the newest trained one. Raises UserError, saying how to make one."""
    if config.phi:
        return Path(config.phi)
    found = sorted(Path(config.phi_runs).glob("*/phi/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"no trained phi under {config.phi_runs}; make one with `bash scripts/train_TA/lama_ckl.sh`, "
            "or name one with --phi FOLDER"
        )
    return found[-1].parent


def peak_gib() -> float:
    """Peak memory of this process: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Evaluation:
    """Everything that the adaptations of one command share: data, phi, probes."""

    def __init__(self, config: EvaluateConfig):
        if config.method not in METHODS:
            raise UserError(f"--method {config.method}: unknown; the methods are {', '.join(METHODS)}")
        self.config = config

        def folder() -> Path:
            return lama_ckl.data_folder(config.data, config.model.name)

        self.facts = lama_ckl.facts_file(config.to_learn, folder, "to_learn")[: config.limit or None]
        known = lama_ckl.facts_file(config.not_to_forget, folder, "not_to_forget_descriptive")
        known_schematic = lama_ckl.facts_file(config.not_to_forget_schematic, folder, "not_to_forget_schematic")
        self.known, self.known_schematic = known, known_schematic
        self.phi, self.phi_folder = None, None
        if config.method == "targeted":
            self.phi_folder = find_phi(config)
            print(f"targeted: phi from {self.phi_folder}")
            self.phi = TrainAttention.from_pretrained(self.phi_folder, config.model.device)
        self.weigh = get_weighter(METHODS[config.method], self.phi)

    def run(self, facts: list[Fact], state_file: Path, adapter: Path | None = None) -> Adaptation:
        """Adapt a fresh theta to the documents of `facts`, evaluating on all probes every epoch."""
        config = self.config
        torch.manual_seed(config.seed)
        model, tokenizer = load_theta(config.model)
        if self.phi is not None:
            self.phi.check_tokenizer(tokenizer)
        limit = position_limit(config.model.name)
        documents = []
        for fact in facts:
            row = encode(tokenizer, fact.evidence, fact.object_span(), config.adapt.max_length or None)
            check_length(len(row), limit, fact.where)
            documents.append(row)
        cut = describe_truncation(documents, config.adapt.max_length)
        if cut and not config.quiet:
            print(cut)
        split, pad_id = SplitModel(model), pad_token(tokenizer)
        sets = {  # the published files call the two sets changed and unchanged
            "changed": ("to_learn", self.facts, "descriptive"),
            "unchanged": ("not_to_forget", self.known, "descriptive"),
            "unchanged_schematic": ("not_to_forget_schematic", self.known_schematic, "schematic"),
        }
        probes = {
            column: ProbeBatches.make([encode_probe(tokenizer, fact, form) for fact in asked], pad_id, split)
            for column, (_, asked, form) in sets.items()
        }

        def evaluate(epoch: int) -> dict:
            model.eval()
            entry: dict[str, Any] = {}
            for column, (name, asked, _) in sets.items():
                scores = score_batches(split, probes[column])
                entry |= lama_ckl.set_metrics(scores, column)
                entry[name] = lama_ckl.outcomes(asked, scores)
            if not config.quiet:
                print(
                    f"epoch {epoch}: TO-LEARN {entry['acc_changed']:.3f}  NOT-TO-FORGET {entry['acc_unchanged']:.3f}  "
                    f"Total {entry['acc_changed'] + entry['acc_unchanged']:.3f}",
                    flush=True,
                )
            return entry

        adaptation = Adaptation(
            split, documents, pad_id, self.weigh, config.adapt, evaluate, state_file, config.seed,
            config.quiet,
        )  # fmt: skip
        adaptation.run()
        if adapter is not None:
            model.save_pretrained(adapter)
        return adaptation


def halves(facts: list[Fact], seed: int) -> list[list[Fact]]:
    """The facts in two random halves; facts that share a document stay together."""
    documents = sorted({fact.evidence for fact in facts})
    if len(documents) < 2:
        raise UserError("--swap_halves needs facts of at least two documents")
    random.Random(seed).shuffle(documents)
    first = set(documents[: len(documents) // 2])
    return [[f for f in facts if f.evidence in first], [f for f in facts if f.evidence not in first]]


def swapped(evaluation: Evaluation, state: Callable[[str], Path]) -> dict[str, float | None]:
    """Read knowledge (docs/lama_ckl.md): adapt to each half alone, ask about both."""
    accuracies, members = [], []
    for index, part in enumerate(halves(evaluation.facts, evaluation.config.seed)):
        print(f"half {index + 1}: adapting to {len(part)} of {len(evaluation.facts)} facts")
        history = evaluation.run(part, state(f"half{index}")).history
        accuracies.append({uuid: outcome[0] for uuid, outcome in history[max(history)]["to_learn"].items()})
        members.append({fact.uuid for fact in part})
    return lama_ckl.read_knowledge(accuracies, members)


def main(arguments: list[str]) -> None:
    config = parse(EvaluateConfig, "evaluate/lama_ckl", arguments, "python -m taalm.evaluate")
    keep_freed_memory()
    name = config.name or f"{config.method}_seed{config.seed}"
    folder, work = Path(config.out), Path(config.out) / "runs" / name
    path = folder / f"{name}.pkl"
    claim(work, config, keep=("quiet",))
    if path.exists():
        print(f"{path} is there already:\n{table({name: load_result(path)})}")
        return
    evaluation = Evaluation(config)
    adaptation = evaluation.run(
        evaluation.facts, work / "state.safetensors", work / "adapter" if config.save_adapter else None
    )
    summary = lama_ckl.summary(adaptation.history, evaluation.facts)
    summary |= {"minutes": adaptation.seconds / 60, "peak_gib": peak_gib()}
    if config.swap_halves:
        summary |= swapped(evaluation, lambda part: work / f"{part}.safetensors")
    result = {
        "config": asdict(config),
        "method": config.method,
        "phi": str(evaluation.phi_folder) if evaluation.phi_folder else None,
        "facts": len(evaluation.facts),
        "eval_result": adaptation.history,
        "loss_by_step": adaptation.losses_by_step,
        "summary": summary,
        "framing": lama_ckl.framing(adaptation.history, evaluation.facts),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    save_result(path, result)
    print(table({name: result}))
    print(f"result in {path} and {path.with_suffix('.json')}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(run_entry(main))
