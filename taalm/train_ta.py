"""Train Train-Attention (phi) on LAMA-ckl: `python -m taalm.train_ta` (scripts/train_TA/lama_ckl.sh)."""

import json
import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt

from taalm import processes
from taalm.benchmarks.lama_ckl import count_facts, data_folder, facts_file
from taalm.checkpoint import write_text
from taalm.config import parse, run_entry
from taalm.dry_run import describe_training
from taalm.errors import NoResult, UserError
from taalm.facts import Fact, read_facts
from taalm.meta.inner import InnerConfig
from taalm.meta.lessons import Lessons
from taalm.meta.objectives import ObjectiveConfig
from taalm.meta.outer_config import OuterConfig
from taalm.meta.problem import Theta
from taalm.meta.trainer import MetaTrainer
from taalm.models.base import ModelConfig, load_theta
from taalm.models.precision import keep_freed_memory
from taalm.models.train_attention import TrainAttention, TrainAttentionConfig
from taalm.review_text import read_texts
from taalm.run_folder import claim
from taalm.scoring import encode_probe
from taalm.text import Encoded, encode
from taalm.tracking import KEPT, TrackConfig, start


@dataclass
class TrainTAConfig:
    """Train Train-Attention: meta-learn a weight for every token."""

    theta: ModelConfig = field(default_factory=ModelConfig)
    phi: TrainAttentionConfig = field(default_factory=TrainAttentionConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    start: str = ""
    """Train this phi on, a folder or a model's name for its released one; default a fresh phi."""
    data: str = ""
    """Folder with the split's files, or with raw rows (LAMA_ckl/); default TAALM_DATA, else the sample set."""
    train_data: str = ""
    """The facts that phi learns on; default ta_train.jsonl of the data folder."""
    train_documents: NonNegativeInt = 0
    """Learn on so many of those facts' documents, drawn by the seed; 0 takes all."""
    valid_data: str = ""
    """Facts to watch phi on while it trains; default tune_to_learn.jsonl of the data folder."""
    to_learn: str = ""
    """Held-out facts to judge the trained phi on, once; default to_learn.jsonl of the data folder."""
    judged: NonNegativeInt = 64
    """So many of the held-out documents are also learned with phi's, uniform and oracle weights, to compare them."""
    retention_data: str = ""
    """Plain text or a facts file (.jsonl) for --objective.retention; default, for kl, the TA-train documents."""
    ends: bool = False
    """Texts have EOS at their end, and it is part of the answer: for models that are asked to say it (run.py)."""
    name: str = ""
    """Folder of the run under --out; default seed<seed>."""
    out: str = "runs/train_ta/lama_ckl"
    """Where runs lie."""
    seed: int = 42
    """Seed of phi's and theta's fresh weights and of the order of documents."""
    quiet: bool = False
    """No progress."""
    track: TrackConfig = field(default_factory=TrackConfig)
    dry_run: bool = False
    """Print what would train and what it would need, without weights, and stop."""


def some_documents(facts: list[Fact], count: int, seed: int) -> list[Fact]:
    """The facts of `count` documents. Raises NoResult where there are fewer."""
    documents = sorted({fact.evidence for fact in facts})
    if count > len(documents):
        raise NoResult(f"--train_documents {count}: the training facts have {len(documents)} documents")
    chosen = set(random.Random(seed).sample(documents, count))
    return [fact for fact in facts if fact.evidence in chosen]


def disjoint(train: list[Fact], held: list[Fact], what: str) -> None:
    """Raises UserError when phi would train on a fact, a document or a subject that it is judged on."""
    seen = {value for fact in held for value in (fact.uuid, fact.evidence, fact.subject)}
    for fact in train:
        if not seen.isdisjoint((fact.uuid, fact.evidence, fact.subject)):
            raise UserError(f"{fact.where}: its fact, document or subject is also in {what}; phi must not train on it")


def first_phi(config: TrainTAConfig) -> TrainAttention:
    """The phi that training begins with. Raises UserError where --phi describes another one than --start has."""
    if not config.start:
        return TrainAttention.create(config.phi, config.theta.device)
    phi = TrainAttention.from_pretrained(config.start, config.theta.device, trains=True)
    for key, value in asdict(phi.config).items():
        if value != getattr(config.phi, key):
            raise UserError(
                f"--phi.{key} {getattr(config.phi, key)}: the phi that --start {config.start} names has {value}"
            )
    return phi


def retained_rows(config: TrainTAConfig, train: list[Fact], tokenizer: object) -> list[Encoded]:
    """The rows of --retention_data: probes of known facts, or paragraphs of plain text."""
    if not config.objective.retention:
        return []
    if config.objective.retention_kind == "facts":
        if not config.retention_data:
            raise UserError("--objective.retention_kind facts needs --retention_data FILE")
        return [encode_probe(tokenizer, f, config.objective.form) for f in read_facts(config.retention_data)]
    texts = read_texts(config.retention_data) if config.retention_data else [fact.evidence for fact in train]
    order = random.Random(config.seed).sample(range(len(texts)), len(texts))  # neighbours in the file are alike
    return [encode(tokenizer, texts[index], max_length=128) for index in order]


def main(arguments: list[str]) -> None:
    config = parse(TrainTAConfig, "train_ta/lama_ckl", arguments, "python -m taalm.train_ta")
    processes.start(config.theta.device)
    keep_freed_memory()
    if config.theta.shard:
        raise UserError(
            "--theta.shard: phi's training keeps theta whole in every process; --theta.adapter qlora is small"
        )
    if not (config.start or config.outer.steps):
        raise UserError("--outer.steps 0 trains nothing; name a phi that is to be judged with --start")

    # ---- data
    def folder() -> Path:
        return data_folder(config.data, config.theta.name)

    if config.dry_run:
        facts = count_facts(config.train_data, config.data, config.theta.name, "ta_train")
        print(describe_training(config.theta, config.phi, config.inner, config.outer, facts))
        return
    train = facts_file(config.train_data, folder, "ta_train")
    if config.train_documents:
        train = some_documents(train, config.train_documents, config.seed)
    valid = facts_file(config.valid_data, folder, "tune_to_learn")
    held_out = facts_file(config.to_learn, folder, "to_learn")
    disjoint(train, valid, "the validation facts")
    disjoint(train, held_out, "the TO-LEARN facts")
    if not (config.train_data and config.valid_data and config.to_learn):  # the folder's facts go together
        for file in sorted(folder().glob("*not_to_forget*.jsonl")):
            disjoint(train, read_facts(file), file.name)

    # ---- models
    run = Path(config.out) / (config.name or f"seed{config.seed}")
    claim(
        run,
        config,
        keep=(
            "out",
            "outer.steps",
            "outer.eval_every",
            "outer.save_every",
            "outer.watched",
            "judged",
            "to_learn",
            "quiet",
            "dry_run",
            *KEPT,
        ),
        inputs={flag: [f.content() for f in some] for flag, some in (("train_data", train), ("valid_data", valid))},
    )
    torch.manual_seed(config.seed)
    model, tokenizer = load_theta(config.theta)
    phi = first_phi(config)
    phi.check_tokenizer(tokenizer)
    theta = Theta(model, config.inner, config.objective)
    if theta.split.seq2seq and config.objective.retention:
        raise UserError("--objective.retention is for decoders: an encoder-decoder's retained text has no source")
    device = next(phi.head.parameters()).device

    def lessons(facts: list[Fact], retained: list[Encoded] = ()) -> Lessons:
        return Lessons(
            tokenizer, facts, config.objective.form, config.outer.max_length, device,
            retained, bool(config.objective.restriction), config.ends, theta.split.seq2seq,
        )  # fmt: skip

    # ---- train
    trainer = MetaTrainer(
        theta, phi, lessons(train, retained_rows(config, train, tokenizer)), lessons(valid), config.outer, run,
        config.seed, config.quiet, start(config.track, run.name, run, config),
    )  # fmt: skip
    trainer.run()
    if processes.is_main():
        phi.save_pretrained(run / "phi")

    # ---- judge on facts that phi never saw
    held = trainer.observe(lessons(held_out))
    report = {
        "steps": trainer.step,
        "training_minutes": trainer.seconds / 60,
        "skipped_steps": trainer.skipped,
        "train_facts": len(train),
        "held_out": held,
        "task_loss_after_learning": trainer.judge(lessons(held_out[: config.judged])) if config.judged else {},
    }
    if processes.is_main():
        write_text(run / "report.json", json.dumps(report, indent=2) + "\n")
    ratio, uncommon = held["object_ratio"], held["object_ratio_uncommon"]
    print(
        f"phi after {trainer.step} steps ({report['training_minutes']:.1f} min) is in {run / 'phi'}\n"
        f"object-to-mean weight ratio on {held['documents']} held-out documents: median {ratio['median']:.1f} "
        f"(quartiles {ratio['q1']:.1f}, {ratio['q3']:.1f}); uncommon objects {uncommon['median']:.1f} "
        f"({uncommon['q1']:.1f}, {uncommon['q3']:.1f})"
    )
    for name, loss in report["task_loss_after_learning"].items():
        print(f"task loss after learning {min(config.judged, len(held_out))} of them with {name} weights: {loss:.3f}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
