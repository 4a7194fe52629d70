"""CKL methods: cells of weighter x readout x optimizer x rehearsal x base x views; their names are joined by +."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from taalm.adapt import AdaptConfig, MakeOptimizer, plain_optimizer
from taalm.errors import UserError
from taalm.optimizers.recadam import RecAdam, RecAdamConfig


@dataclass(frozen=True)
class Method:
    """One cell; an empty adapter leaves the base as --model.adapter says."""

    weighter: str = "uniform"
    optimizer: str = "plain"
    rehearsal: str = ""
    adapter: str = ""
    views: str = ""
    readout: str = ""

    @property
    def takes_phi(self) -> bool:
        """Whether the weights are phi's."""
        return self.weighter == "train_attention"


METHODS: dict[str, Method] = {
    "finetune": Method(),
    "targeted": Method(weighter="train_attention"),
    "oracle": Method(weighter="oracle"),
    "oracle_bidirectional": Method(weighter="oracle_bidirectional"),
    "rho": Method(weighter="rho"),
    "rho_theta0": Method(weighter="rho_theta0"),
    "sstoken_rel": Method(weighter="sstoken_rel"),
    "surprisal": Method(weighter="surprisal"),
    "ner": Method(weighter="ner"),
    "tfidf": Method(weighter="tfidf"),
    "given": Method(weighter="given"),
    "recadam": Method(optimizer="recadam"),
    "review": Method(rehearsal="mix_review"),
    "kl": Method(rehearsal="kl"),
    "views": Method(views="cloze"),
    "readout": Method(readout="linear"),
    "kadapter": Method(adapter="kadapter"),
    "lora": Method(adapter="lora"),
    "qlora": Method(adapter="qlora"),
    "modular": Method(adapter="modular"),
    "full": Method(adapter="full"),
}


def get_method(name: str) -> Method:
    """The cell of a name or of names joined by +. Raises UserError for an unknown name, or for two of one kind."""
    method = plain = Method()
    for part in name.split("+"):
        if part not in METHODS:
            raise UserError(
                f"--method {name}: {part!r} is unknown; the methods are {', '.join(METHODS)}, also joined by +"
            )
        for kind, value in vars(METHODS[part]).items():
            if value == getattr(plain, kind):
                continue
            if getattr(method, kind) != getattr(plain, kind):
                raise UserError(f"--method {name}: two {kind}s, {getattr(method, kind)} and {value}")
            method = replace(method, **{kind: value})
    return method


def make_optimizer(name: str, recadam: RecAdamConfig) -> MakeOptimizer:
    """The constructor of a method's optimizer."""
    if name == "plain":
        return plain_optimizer

    def build(parameters: Sequence[nn.Parameter], config: AdaptConfig, updates: int) -> torch.optim.Optimizer:
        t0 = recadam.t0_share * updates if recadam.t0_share else recadam.t0
        if t0 >= updates > 0:
            raise UserError(
                f"--recadam.t0 {t0:g}: the run has {updates} updates, all of them before RecAdam begins to learn; "
                "pass --recadam.t0_share 0.25"
            )
        return RecAdam(parameters, config.lr, config.weight_decay, recadam.k, t0, recadam.coefficient)

    return build
