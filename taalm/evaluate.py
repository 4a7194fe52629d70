"""Adapt a model to the TO-LEARN documents of LAMA-ckl and see what it learns and forgets.

`python -m taalm.evaluate --method targeted` (scripts/eval/lamackl/*.sh).
"""

import platform
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import NonNegativeInt

from taalm import processes
from taalm.adapt import Adaptation
from taalm.benchmarks import lama_ckl
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig, method_inputs, phi_report, resolve_model, settle_phi
from taalm.checkpoint import load_parameters
from taalm.config import parse, run_entry
from taalm.dry_run import describe
from taalm.errors import UserError
from taalm.facts import Fact
from taalm.halves import learn_halves, scaled_totals
from taalm.memory import peak_gib, reset_peak
from taalm.methods import get_method
from taalm.models.base import load_theta, save_adapter
from taalm.models.precision import Precision, keep_freed_memory, resolve_device
from taalm.models.split import SplitModel
from taalm.results import load_result, save_result, table
from taalm.run_folder import claim
from taalm.scaling import scaled
from taalm.scoring import ProbeBatches, encode_probe, score_batches
from taalm.shares import Share
from taalm.text import pad_token
from taalm.tracking import KEPT, start
from taalm.views import check_questions


@dataclass
class EvaluateConfig(CellConfig):
    """Adapt theta to documents with one method and evaluate it every epoch."""

    data: str = ""
    """Folder with the split's files, or with raw rows (LAMA_ckl/); default TAALM_DATA, else the sample set."""
    to_learn: str = ""
    """The facts to learn; default to_learn.jsonl of the data folder."""
    not_to_forget: str = ""
    """Known facts asked in the descriptive form; default not_to_forget_descriptive.jsonl."""
    not_to_forget_schematic: str = ""
    """Known facts asked in the schematic form; default not_to_forget_schematic.jsonl."""
    train_data: str = ""
    """TA-train facts, for methods that use their documents; default ta_train.jsonl of the data folder."""
    limit: NonNegativeInt = 0
    """Learn only the first so many facts of the file; 0 learns all."""
    swap_halves: bool = False
    """Also adapt to each random half of the facts alone, for read knowledge (twice the time); later is fine too."""
    half_batch: NonNegativeInt = 0
    """Documents per update where a half is learned alone: half of --adapt.batch_size makes as many updates as the
    whole run has; 0 takes --adapt.batch_size."""
    ask_precision: Precision | None = None
    """Ask a copy of theta in this precision where it learns in another (bf16 learns faster, fp32 made the split)."""
    scale: Share = 1.0
    """What LoRA learned counts so many times in the model that is asked and saved (WiSE-FT, taalm/scaling.py)."""
    scales: list[float] = field(default_factory=list)
    """Also ask the final models with their adapters scaled by these shares in place of --scale, [0.5, 0.75]; later is
    fine too."""
    save_adapter: bool = True
    """Save the final adapter in PEFT's format."""
    name: str = ""
    """Name of the result file; default <method>_seed<seed>."""
    out: str = "results/lamackl"
    """Folder of the result files."""


def data_folder(config: EvaluateConfig) -> Path:
    return lama_ckl.data_folder(config.data, config.model.name)


class Asked(NamedTuple):
    """The facts that are asked every epoch, by the flag that names their file."""

    to_learn: list[Fact]
    not_to_forget: list[Fact]
    not_to_forget_schematic: list[Fact]


def settle_questions(config: EvaluateConfig) -> None:
    """What views ask and readout learns from, where no file is given: the facts that phi is trained on."""
    method = get_method(config.method)

    def ta_train() -> str:
        return config.train_data or str(data_folder(config) / "ta_train.jsonl")

    if method.views and (config.views.asked or config.views.held):
        config.views.questions = config.views.questions or ta_train()
        check_questions(config.views)
    if method.readout:
        config.readout.facts = config.readout.facts or ta_train()


def read_asked(config: EvaluateConfig) -> Asked:
    files = (
        (config.to_learn, "to_learn"),
        (config.not_to_forget, "not_to_forget_descriptive"),
        (config.not_to_forget_schematic, "not_to_forget_schematic"),
    )
    facts, *known = (lama_ckl.facts_file(given, lambda: data_folder(config), name) for given, name in files)
    return Asked(facts[: config.limit or None], *known)


class Evaluation:
    """Everything that the adaptations of one command share: the method, the facts, the probes."""

    def __init__(self, config: EvaluateConfig, asked: Asked):
        def ta_train() -> list[Document]:
            found = lama_ckl.facts_file(config.train_data, lambda: data_folder(config), "ta_train")
            return [Document(text, None, "a TA-train document") for text in sorted({fact.evidence for fact in found})]

        self.config, self.share = config, config.scale
        self.facts, self.known, self.known_schematic = asked
        facts = [fact for some in asked for fact in some]
        pairs = [(fact.subject, fact.object) for fact in facts]
        self.cell = Cell(config, ta_train, pairs, [fact.evidence for fact in facts])

    @cached_property
    def _copy(self) -> SplitModel | None:
        """theta in --ask_precision, which takes over what is learned before it is asked; None asks theta itself."""
        precision, model = self.config.ask_precision, self.cell.model
        if precision is None or precision == model.precision:
            return None
        return SplitModel(load_theta(replace(model, precision=precision))[0])

    def run(self, facts: list[Fact], state_file: Path, adapter: Path | None = None, batch_size: int = 0) -> Adaptation:
        """Adapt a fresh theta to the documents of `facts`, evaluating on all probes every epoch.

        `batch_size` stands in for --adapt.batch_size, unless it is 0.
        """
        split, tokenizer = self.cell.load()
        asked = self._copy or split
        documents = [Document(fact.evidence, fact.object_span(), fact.where, fact.subject) for fact in facts]
        sets = {  # the published files call the two sets changed and unchanged
            "changed": ("to_learn", self.facts, "descriptive"),
            "unchanged": ("not_to_forget", self.known, "descriptive"),
            "unchanged_schematic": ("not_to_forget_schematic", self.known_schematic, "schematic"),
        }
        pad_id = pad_token(tokenizer)
        probes = {
            column: ProbeBatches.make([encode_probe(tokenizer, fact, form) for fact in some], pad_id, asked)
            for column, (_, some, form) in sets.items()
        }

        def evaluate(epoch: int) -> dict:
            if asked is not split:
                own = {name: value for name, value in asked.model.named_parameters() if value.requires_grad}
                load_parameters(own, adaptation.trainable, state_file)
            asked.model.eval()
            entry: dict[str, Any] = {}
            for column, (name, some, _) in sets.items():
                with scaled(asked.model, self.share):
                    scores = score_batches(asked, probes[column])
                entry |= lama_ckl.set_metrics(scores, column)
                entry[name] = lama_ckl.outcomes(some, scores)
            if not self.config.quiet:
                print(
                    f"epoch {epoch}: TO-LEARN {entry['acc_changed']:.3f}  NOT-TO-FORGET {entry['acc_unchanged']:.3f}  "
                    f"Total {entry['acc_changed'] + entry['acc_unchanged']:.3f}",
                    flush=True,
                )
            return entry

        adaptation = self.cell.adaptation(split, tokenizer, documents, evaluate, state_file, batch_size=batch_size)
        adaptation.run()
        if adapter is not None:
            save_adapter(split.model, adapter, self.config.scale)
        return adaptation

    def by_share(self, adaptation: Adaptation) -> dict[float, dict]:
        """What the final model answers with its adapter scaled by each of --scales: an entry of its history each."""
        found = {}
        for share in self.config.scales:
            print(f"adapter scaled by {share}")
            self.share = share
            found[share] = adaptation.evaluate(adaptation.config.epochs)
        self.share = self.config.scale
        return found


def missing(config: EvaluateConfig, result: dict) -> bool:
    """Whether something is asked for that a finished result does not have yet."""
    halves_asked = config.swap_halves and not result.get("halves")
    return halves_asked or not {str(share) for share in config.scales} <= set(result.get("scaled", {}))


def main(arguments: list[str]) -> None:
    config = parse(EvaluateConfig, "evaluate/lama_ckl", arguments, "python -m taalm.evaluate")
    processes.start(config.model.device)
    if config.dry_run:
        facts = lama_ckl.count_facts(config.to_learn, config.data, config.model.name, "to_learn")
        print(describe(resolve_model(config), config.adapt, min(facts, config.limit or facts)))
        return
    adapter = resolve_model(config).adapter
    if config.scales and adapter == "full":
        raise UserError("--scales needs an adapter to scale; with --model.adapter full there is none")
    if config.ask_precision and config.model.shard:
        raise UserError("--ask_precision does not go with --model.shard, which needs the model that learns")
    if config.scale != 1 and adapter not in ("lora", "qlora"):
        raise UserError(f"--scale {config.scale:g}: only LoRA is scaled so, and the adapter is {adapter}")
    keep_freed_memory()
    name = config.name or f"{config.method}_seed{config.seed}"
    folder, work = Path(config.out), Path(config.out) / "runs" / name
    path = folder / f"{name}.pkl"
    settle_phi(config)
    settle_questions(config)
    reported, asked = phi_report(config), read_asked(config)
    inputs = {flag: [fact.content() for fact in facts] for flag, facts in asked._asdict().items()}
    kept = ("out", "quiet", "dry_run", "swap_halves", "scales", *KEPT)
    claim(work, config, kept, inputs | method_inputs(config))
    before = load_result(path) if path.exists() else {}
    if before and not missing(config, before):
        print(f"{path} is there already:\n{table({name: before})}")
        return
    device = resolve_device(config.model.device)
    reset_peak(device)
    evaluation = Evaluation(config, asked)
    evaluation.cell.log = start(config.track, name, work, config)
    adaptation = evaluation.run(
        evaluation.facts, work / "state.safetensors", work / "adapter" if config.save_adapter else None
    )
    summary = lama_ckl.summary(adaptation.history, evaluation.facts)
    earlier = before.get("summary", {})
    summary |= {"minutes": adaptation.seconds / 60, "peak_gib": max(peak_gib(device), earlier.get("peak_gib", 0.0))}
    by_share = evaluation.by_share(adaptation)

    def learn(number: int, part: list[Fact]) -> tuple[dict[int, dict], dict[float, dict]]:
        found = evaluation.run(part, work / f"half{number}.safetensors", batch_size=config.half_batch)
        return found.history, evaluation.by_share(found)

    halves = learn_halves(evaluation.facts, config.seed, learn) if config.swap_halves else []
    parts = [half.result() for half in halves] or before.get("halves", [])
    if halves:
        summary |= lama_ckl.read_knowledge(parts)
    shares = before.get("scaled", {})
    for share, found in scaled_totals(by_share, halves).items():
        shares[share] = shares.get(share, {}) | found
    result = {
        "config": asdict(config),
        "method": config.method,
        "phi": config.phi if evaluation.cell.method.takes_phi else None,
        "phi_report": reported,
        "facts": len(evaluation.facts),
        "documents": lama_ckl.documents_by_fact(evaluation.facts),
        "eval_result": adaptation.history,
        "halves": parts,
        "loss_by_step": adaptation.losses_by_step,
        "summary": earlier | summary,
        "scaled": shares,
        "framing": lama_ckl.framing(adaptation.history, evaluation.facts),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    if processes.is_main():
        save_result(path, result)
    processes.wait()
    print(table({name: result}))
    print(f"result in {path} and {path.with_suffix('.json')}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
