"""One method along the online wiki stream, resumable.

Everything that a run knows is in the newest date's checkpoint (theta's trained tensors and the counts so far): an
interrupted run goes on at the date it was in, and that date at the update it was in.
"""

import csv
import io
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from taalm import processes
from taalm.benchmarks.online_metrics import StreamScores
from taalm.checkpoint import load_parameters, load_state, save_state, under, write_text
from taalm.errors import UserError
from taalm.online import OnlineStream
from taalm.online_config import OnlineConfig
from taalm.tracking import scalars

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

    def __init__(self, config: OnlineConfig, stream: OnlineStream):
        self.config, self.stream, self.out = config, stream, Path(config.output_dir)
        self.split, self.tokenizer = stream.cell.load()
        self.trained = {name: p for name, p in self.split.model.named_parameters() if p.requires_grad}
        self.progress = Progress()

    def checkpoint(self, t: int) -> Path:
        return self.out / "checkpoints" / f"{t + 1:05d}_{self.stream.dates[t]}.safetensors"

    def checkpoints(self) -> list[Path]:
        """Those that lie there, in the stream's order."""
        return sorted((self.out / "checkpoints").glob("*.safetensors"))

    def load(self, path: Path) -> Progress:
        """Put a checkpoint's tensors into theta; what the run knew then."""
        tensors, values = load_state(path, needed=("progress",))
        load_parameters(self.trained, under(tensors, "theta/"), path)
        return Progress.from_json(values["progress"])

    def scores(self, counts: Counts) -> StreamScores:
        return StreamScores(counts, [len(self.stream.asked[date]) for date in self.stream.dates])

    def ask(self, after: int, dates: range) -> None:
        """Ask the queries of those dates that are in the stream."""
        for date in dates:
            if 0 <= date < len(self.stream.dates):
                name, moment = self.stream.dates[date], self.stream.dates[after] if after >= 0 else "before"
                path = self.out / "predictions" / f"{name}_{moment}.jsonl"
                whole, answers = self.stream.answer(self.split, self.tokenizer, name, path)
                self.progress.whole.setdefault(after, {})[date] = whole
                self.progress.answers.setdefault(after, {})[date] = answers

    def run(self) -> dict[str, Any]:
        """Learn the stream to its end from where it stands; returns the result."""
        dates = self.stream.dates
        found = self.checkpoints()
        if found:
            self.progress = self.load(found[-1])
            if [row["date"] for row in self.progress.rows] != dates[: self.progress.done + 1]:
                raise UserError(f"{found[-1]}: the stream has other dates now; take another --output_dir")
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
            self.stream.cell.log(scalars("stream", self.progress.rows[-1]), self.stream.cell.steps)
            self.save(t)
            if not self.config.quiet:
                print(self.line(self.progress.rows[-1]), flush=True)
        return self.result()

    def learn(self, t: int) -> dict[str, Any]:
        """The training call of date t; its seconds are those of all that the method does for it but asking."""
        stream, date = self.stream, self.stream.dates[t]
        documents = stream.documents(date)
        row: dict[str, Any] = {"date": date, "facts": len(stream.asked[date]), "texts": len(documents)}
        if not documents:
            return row | {"loss": None, "tokens": 0, "seconds": 0.0, "buffer": 0}
        buffer = stream.buffer(t) if stream.method.rehearsal == "mix_review" else None
        if buffer is not None:
            ratio = min(len(buffer), self.config.buffer_share * len(documents)) / len(documents)
            longest = stream.cell_config.adapt.max_length
            stream.cell_config.review = replace(stream.cell_config.review, ratio=ratio, max_length=longest)
        started = time.perf_counter()
        state_file = self.out / "training" / f"{date}.safetensors"
        adaptation = stream.cell.adaptation(self.split, self.tokenizer, documents, lambda epoch: {}, state_file, buffer)
        prepared = time.perf_counter() - started
        history = adaptation.run()
        return row | {
            "loss": history[max(history)]["loss"],
            "tokens": sum(adaptation.lengths) * self.config.num_train_epochs,
            "seconds": prepared + adaptation.seconds,
            "buffer": len(buffer or ()),
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
            "representation_gap": self.stream.representation_gap(self.split, self.tokenizer, self.stream.dates[t]),
        }

    def save(self, t: int) -> None:
        """The checkpoint of date t and the log; what only an unfinished date needs is deleted."""
        tensors = processes.collect({f"theta/{name}": value for name, value in self.trained.items()})
        if processes.is_main():
            save_state(self.checkpoint(t), tensors, {"progress": self.progress.to_json()})
            log = Path(self.config.output_log) if self.config.output_log else self.out / "log.csv"
            write_text(log, as_csv(self.progress.rows))
            old = self.checkpoints()[: -self.config.keep_checkpoints] if self.config.keep_checkpoints else []
            for path in (self.out / "training" / f"{self.stream.dates[t]}.safetensors", *old):
                path.unlink(missing_ok=True)
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
        for name in self.stream.dates:
            path = self.out / "predictions" / f"{name}_validation.jsonl"
            whole, answers = self.stream.answer(self.split, self.tokenizer, name, path)
            asked = len(self.stream.asked[name])
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
