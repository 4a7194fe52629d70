"""TemporalWiki: learn three periods of documents in sequence, ask about changed and unchanged facts after each.

`python -m taalm.evaluate_twiki --method targeted` (scripts/eval/twiki/*.sh).
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse.typing import NonNegativeInt

from taalm import processes
from taalm.benchmarks.lama_ckl import set_metrics, short_hash
from taalm.benchmarks.temporal_wiki import PERIODS, SETS, Triple, document_rows, read_triples, summary
from taalm.benchmarks.temporal_wiki_pairs import PAIRS
from taalm.benchmarks.temporal_wiki_stand_in import MARK, stream_folder
from taalm.cell import Cell, Document
from taalm.cell_config import CellConfig, method_inputs, resolve_model, settle_phi
from taalm.config import parse, run_entry
from taalm.dry_run import describe
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.models.base import save_adapter
from taalm.models.precision import keep_freed_memory
from taalm.models.split import SplitModel
from taalm.results import load_result, save_result
from taalm.run_folder import claim
from taalm.scoring import ProbeBatches, score_batches
from taalm.text import pad_token
from taalm.tracking import KEPT, start


@dataclass
class TwikiConfig(CellConfig):
    """Learn TemporalWiki's three periods in sequence with one method."""

    train_script: ClassVar[str] = "temporalwiki"

    phi_runs: str = "runs/train_ta/temporalwiki"
    """Where to look for a trained phi."""
    data: str = ""
    """Folder with train/ and eval/, or one with TemporalWiki/ in it (without DIFFSETs a stand-in stream is made);
    default TAALM_DATA, else data/TemporalWiki of the project."""
    limit: NonNegativeInt = 0
    """Learn only the first so many documents of each period; 0 learns all."""
    probes: NonNegativeInt = 0
    """Ask only the first so many probes of each file; 0 asks all."""
    name: str = ""
    """Name of the result files, <name>_0 to <name>_2; default <method>_seed<seed>."""
    out: str = "results/twiki"
    """Folder of the result files."""


def documents_of(path: Path, stand_in: bool) -> list[Document]:
    """The documents of a period; the stand-in's say where their object stands."""
    rows = document_rows(path)
    return [Document(row["text"], tuple(row["object_span"]) if stand_in else None, where) for where, row in rows]


class Stream:
    """The periods of one command: their documents and probes, and the method that learns them."""

    def __init__(self, config: TwikiConfig):
        with processes.main_first():  # a stand-in stream is made at the first use
            self.config, self.folder = config, stream_folder(config.data)
        self.stand_in = (self.folder / MARK).is_file()
        self.probes = {
            (period, name): read_triples(self.folder / "eval" / f"{period}_{name}.jsonl")[: config.probes or None]
            for period in PERIODS
            for name in SETS
        }

        def ta_train() -> list[Document]:
            path = (self.folder if self.stand_in else self.folder / PAIRS) / "ta_train.jsonl"
            if not path.is_file():
                raise UserError(f"{path}: no TA-train texts; `bash scripts/train_TA/temporalwiki.sh` makes them")
            return [Document(fact.evidence, None, fact.where) for fact in read_facts(path)]

        pairs = [(triple.subject, triple.object) for triples in self.probes.values() for triple in triples]
        self.cell = Cell(config, ta_train, pairs)

    def learn(self, index: int, split: SplitModel, tokenizer: Any, state_file: Path) -> dict:
        """Learn period `index` from where theta is; returns its result."""
        period, diffset = list(PERIODS.items())[index]
        documents = documents_of(self.folder / "train" / f"diffset_{diffset}_filtered.jsonl", self.stand_in)
        probes = {name: self._batches(self.probes[period, name], split, tokenizer) for name in SETS}

        def evaluate(epoch: int) -> dict:
            split.model.eval()
            entry: dict[str, Any] = {}
            for name in SETS:
                scores = score_batches(split, probes[name])
                entry |= set_metrics(scores, name) | {f"nll_{name}": [round(score.nll, 4) for score in scores]}
            if not self.config.quiet:
                found = f"unchanged {entry['ppl_unchanged']:.3f}  changed {entry['ppl_changed']:.3f}"
                print(f"period {period}, epoch {epoch}: mean object NLL {found}", flush=True)
            return entry

        chosen = documents[: self.config.limit or None]
        adaptation = self.cell.adaptation(split, tokenizer, chosen, evaluate, state_file)
        history = adaptation.run()
        return {
            "config": asdict(self.config),
            "method": self.config.method,
            "period": period,
            "stand_in": self.stand_in,
            "documents": len(chosen),
            "subjects": {name: [short_hash(t.subject) for t in self.probes[period, name]] for name in SETS},
            "eval_result": history,
            "loss_by_step": adaptation.losses_by_step,
            "summary": {**summary(history), "minutes": adaptation.seconds / 60},
            "before": summary({0: history[0]}),
        }

    def _batches(self, triples: list[Triple], split: SplitModel, tokenizer: Any) -> ProbeBatches:
        return ProbeBatches.make([triple.encoded(tokenizer) for triple in triples], pad_token(tokenizer), split)


def table(results: list[dict]) -> str:
    """Un, C and average of each period, before and after learning it."""
    lines = ["| period | | Un | C | average |", "|---|---|---|---|---|"]
    for result in results:
        for when, values in (("before", result["before"]), (result["method"], result["summary"])):
            numbers = " | ".join(f"{values[key]:.3f}" for key in ("unchanged", "changed", "average"))
            lines.append(f"| {result['period']} | {when} | {numbers} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    config = parse(TwikiConfig, "evaluate/temporalwiki", arguments, "python -m taalm.evaluate_twiki")
    processes.start(config.model.device)
    if config.dry_run:
        folder = stream_folder(config.data)
        documents = documents_of(folder / "train" / f"diffset_{next(iter(PERIODS.values()))}_filtered.jsonl", False)
        print(describe(resolve_model(config), config.adapt, len(documents[: config.limit or None])))
        return
    keep_freed_memory()
    name = config.name or f"{config.method}_seed{config.seed}"
    folder, work = Path(config.out), Path(config.out) / "runs" / name
    paths = [folder / f"{name}_{index}.pkl" for index in range(len(PERIODS))]
    settle_phi(config)
    claim(work, config, ("out", "quiet", "dry_run", *KEPT), method_inputs(config))
    if not all(path.exists() for path in paths):
        stream = Stream(config)
        stream.cell.log = start(config.track, name, work, config)
        split, tokenizer = stream.cell.load()
        for index, path in enumerate(paths):
            result = stream.learn(index, split, tokenizer, work / f"period{index}.safetensors")
            if path == paths[-1]:  # before the result that says that all is done
                save_adapter(split.model, work / "adapter")
            if processes.is_main():
                save_result(path, result)
    processes.wait()
    results = [load_result(path) for path in paths]
    if results[0]["stand_in"]:
        print("stand-in stream: real probes, made documents; not TemporalWiki's DIFFSETs")
    print(table(results))
    print(f"results in {paths[0]} to {paths[-1].name}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
