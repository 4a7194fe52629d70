"""Run the online wiki stream: `python run.py --config configs/online/wiki/month/smollm2_vanilla.json`.

One training call per date; after it the last, this and the next date are asked. Everything that a run knows is in the
newest date's checkpoint (theta's trained tensors and the counts so far): an interrupted run goes on at the date it was
in, and that date at the update it was in.
"""

import csv
import io
import json
import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from taalm import processes
from taalm.benchmarks.online_metrics import StreamScores
from taalm.checkpoint import load_parameters, load_state, save_state, under, write_text
from taalm.config import ROOT, parse
from taalm.errors import UserError
from taalm.models.precision import keep_freed_memory
from taalm.online import Stream
from taalm.online_config import OnlineConfig
from taalm.plots.streams import stream_curves
from taalm.plots.style import write
from taalm.results import save_result
from taalm.run_folder import claim

Counts = dict[int, dict[int, int]]  # after which date, of which date


@dataclass
class Progress:
    """What a run knows after date `done` (-1: before the stream)."""

    done: int = -1
    whole: Counts = field(default_factory=dict)
    answers: Counts = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        values = json.loads(text)
        for name in ("whole", "answers"):  # JSON's keys are text
            values[name] = {int(s): {int(p): n for p, n in row.items()} for s, row in values[name].items()}
        return cls(**values)


class Run:
    """One method along one stream."""

    def __init__(self, config: OnlineConfig, stream: Stream):
        self.config, self.stream, self.out = config, stream, Path(config.output_dir)
        self.split, self.tokenizer = stream.cell.load()
        self.trained = {name: p for name, p in self.split.model.named_parameters() if p.requires_grad}
        self.progress = Progress()

    def checkpoint(self, t: int) -> Path:
        return self.out / "checkpoints" / f"{t + 1:05d}_{self.stream.dates[t]}.safetensors"

    def load(self, path: Path) -> Progress:
        """Put a checkpoint's tensors into theta; what the run knew then."""
        tensors, values = load_state(path)
        if "progress" not in values:
            raise UserError(f"{path}: no checkpoint of a stream")
        load_parameters(self.trained, under(tensors, "theta/"), path)
        return Progress.from_json(values["progress"])

    def scores(self, counts: Counts) -> StreamScores:
        return StreamScores(counts, [len(queries) for queries in self.stream.asked])

    def ask(self, after: int, dates: range) -> None:
        """Ask the queries of those dates that are in the stream."""
        for date in dates:
            if 0 <= date < len(self.stream.dates):
                name = self.stream.dates[after] if after >= 0 else "before"
                whole, answers = self.stream.ask(self.split, self.tokenizer, date, name)
                self.progress.whole.setdefault(after, {})[date] = whole
                self.progress.answers.setdefault(after, {})[date] = answers

    def run(self) -> dict[str, Any]:
        """Learn the stream to its end from where it stands; returns the result."""
        dates = self.stream.dates
        found = sorted((self.out / "checkpoints").glob("*.safetensors"))
        if found:
            self.progress = self.load(found[-1])
            print(f"going on after {dates[self.progress.done]}")
        elif self.config.checkpoint_path:
            self.load(Path(self.config.checkpoint_path))
        if not found:
            self.ask(-1, range(1))
        for t in range(self.progress.done + 1, len(dates)):
            row = self.learn(t)
            self.ask(t, range(t - 1, t + 2))
            self.progress.done = t
            self.progress.rows.append(row | self.measures(t))
            self.save(t)
            if not self.config.quiet:
                print(self.line(self.progress.rows[-1]), flush=True)
        return self.result()

    def learn(self, t: int) -> dict[str, Any]:
        """The training call of date t."""
        stream, date = self.stream, self.stream.dates[t]
        documents, buffer = stream.documents(t), stream.buffer(t)
        row: dict[str, Any] = {"date": date, "facts": len(stream.asked[t]), "texts": len(documents)}
        if not documents:
            return row | {"loss": None, "tokens": 0, "seconds": 0.0, "buffer": 0}
        mixed = min(len(buffer), self.config.buffer_share * len(documents)) / len(documents)
        config = stream.cell_config
        config.review = replace(config.review, ratio=mixed, max_length=config.adapt.max_length)
        state_file = self.out / "checkpoints" / f"{date}.training"
        own = buffer if "review" in config.method else None
        adaptation = stream.cell.adaptation(self.split, self.tokenizer, documents, lambda epoch: {}, state_file, own)
        history = adaptation.run()
        tokens = sum(adaptation.lengths) * self.config.num_train_epochs
        return row | {
            "loss": history[max(history)]["loss"],
            "tokens": tokens,
            "seconds": adaptation.seconds,
            "buffer": len(buffer) if own is not None else 0,
        }

    def measures(self, t: int) -> dict[str, float | None]:
        """The numbers of date t, of whole strings; `answer_` those of answers alone."""
        whole, answers = self.scores(self.progress.whole), self.scores(self.progress.answers)
        return {
            "em_previous": whole.accuracy(t, t - 1),
            "em": whole.em(t),
            "em_next": whole.accuracy(t, t + 1),
            "bwt": whole.bwt(t),
            "fwt": whole.fwt(t),
            "kg": whole.gap(t),
            "answer_em": answers.em(t),
            "answer_bwt": answers.bwt(t),
            "answer_fwt": answers.fwt(t),
            "representation_gap": self.stream.representation_gap(self.split, self.tokenizer, t),
        }

    def save(self, t: int) -> None:
        """The checkpoint of date t and the log; what only an unfinished date needs is deleted."""
        tensors = processes.collect({f"theta/{name}": value for name, value in self.trained.items()})
        if processes.is_main():
            save_state(self.checkpoint(t), tensors, {"progress": self.progress.to_json()})
            log = Path(self.config.output_log) if self.config.output_log else self.out / "log.csv"
            write_text(log, as_csv(self.progress.rows))
            for path in (self.out / "checkpoints").glob("*.training"):
                path.unlink()
            if self.config.keep_checkpoints:
                for path in sorted((self.out / "checkpoints").glob("*.safetensors"))[: -self.config.keep_checkpoints]:
                    path.unlink()
        processes.wait()

    def line(self, row: dict[str, Any]) -> str:
        numbers = ((title, row[key]) for title, key in (("EM", "em"), ("BWT", "bwt"), ("FWT", "fwt"), ("KG", "kg")))
        shown = "  ".join(f"{title} {'–' if value is None else f'{value:.3f}'}" for title, value in numbers)
        return f"{row['date']}: {row['texts']} texts in {row['seconds']:.0f} s  {shown}"

    def result(self) -> dict[str, Any]:
        rows = self.progress.rows
        tokens, seconds = sum(row["tokens"] for row in rows), sum(row["seconds"] for row in rows)
        whole = self.scores(self.progress.whole).summary(tokens, seconds)
        answers = self.scores(self.progress.answers).summary(tokens, seconds)
        return {
            "config": asdict(self.config),
            "method": self.config.method,
            "eval_result": {row["date"]: row for row in rows},
            "right": self.progress.whole,
            "answered": self.progress.answers,
            "summary": whole | {f"answer_{name}": value for name, value in answers.items()} | {"seconds": seconds},
        }

    def validate(self) -> list[dict[str, Any]]:
        """Ask every date of the model as it is."""
        if self.config.checkpoint_path:
            self.load(Path(self.config.checkpoint_path))
        rows = []
        for date, name in enumerate(self.stream.dates):
            whole, answers = self.stream.ask(self.split, self.tokenizer, date, "validation")
            asked = len(self.stream.asked[date])
            rows.append({"date": name, "facts": asked, "em": whole / asked if asked else None,
                         "answer_em": answers / asked if asked else None})  # fmt: skip
        return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text, the first row's keys for a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def start_processes(config: OnlineConfig, arguments: list[str]) -> None:
    """With ngpu > 1 and no launcher: begin again under torchrun, so many processes on this machine."""
    if config.ngpu > 1 and "WORLD_SIZE" not in os.environ:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(config.ngpu)]
        os.execv(sys.executable, [sys.executable, *launcher, str(ROOT / "run.py"), *arguments])


def config_file(arguments: list[str]) -> list[str]:
    """The arguments with the file name of --config as it lies there: vanilla may be typed for vannila."""
    found = []
    for argument in arguments:
        path = Path(argument.removeprefix("--config="))
        other = path.with_name(path.name.replace("vanilla", "vannila"))
        found.append(argument.replace("vanilla", "vannila") if not path.exists() and other.is_file() else argument)
    return found


def main(arguments: list[str]) -> None:
    arguments = config_file(arguments)
    config = parse(OnlineConfig, None, arguments, "python run.py")
    start_processes(config, arguments)
    processes.start("cpu" if config.ngpu == 0 else config.device)
    keep_freed_memory()
    stream = Stream(config)
    out = Path(config.output_dir)
    if config.check_validation:
        rows = Run(config, stream).validate()
        if processes.is_main():
            write_text(out / "validation.csv", as_csv(rows))
        print(as_csv(rows), end="")
        return
    claim(out, config, keep=("quiet", "keep_checkpoints", "num_workers", "output_log"))
    result = Run(config, stream).run()
    if processes.is_main():
        save_result(out / "result.pkl", result)
        write(stream_curves({config.method: result}), out / "stream.png")
    print(f"{len(stream.dates)} dates of {stream.folder}")
    print("  ".join(f"{name} {value:.3f}" for name, value in result["summary"].items() if value is not None))
    print(f"result in {out / 'result.pkl'}, picture in {out / 'stream.png'}")
