"""Settings of the outer loop (taalm.meta.trainer)."""

from dataclasses import dataclass

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class OuterConfig:
    """The outer loop: how phi trains."""

    steps: NonNegativeInt = 60
    """Outer steps, the warm start's included; 0 judges the phi of --start as it is."""
    warm_start: NonNegativeInt = 0
    """So many steps at first fit phi to weights made from token scores at theta_0 (docs/method.md)."""
    starts: PositiveInt = 1
    """Warm starts, one after another, each from the first phi and in an order of its own; what follows goes on from the
    one whose heaviest token is most often the object in the validation facts. --outer.steps counts one of them."""
    temperature: PositiveFloat = 0.7
    """How flat the warm start's weights are, in standard deviations of the scores of a document."""
    refine: NonNegativeFloat = 1.0
    """The learning rates after the warm start, as a share of those in it."""
    balance: NonNegativeFloat = 0.0
    """A document whose relation has n facts is drawn in proportion to n^-balance; 0: each once per epoch."""
    batch_size: PositiveInt = 8
    """Documents per outer step."""
    lr: NonNegativeFloat = 5e-4
    """AdamW learning rate of phi's LoRA."""
    head_lr: NonNegativeFloat = 2e-3
    """AdamW learning rate of phi's head."""
    warmup_steps: NonNegativeInt = 5
    """Linear warm-up of both learning rates, in outer steps."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW decoupled weight decay."""
    clip_norm: PositiveFloat = 1.0
    """phi's gradient is scaled down to this norm."""
    anchor: NonNegativeFloat = 0.0
    """Weight of the mean squared logit: no collapse onto a token, no sinking of all weights (docs/method.md)."""
    hypergradient: str = "jvp"
    """double_backward, jvp or finite_difference."""
    max_length: NonNegativeInt = 512
    """Documents are cut to this many tokens; 0 cuts nothing."""
    eval_every: NonNegativeInt = 20
    """Observe phi on the validation facts every so many steps; 0: only at the end."""
    watched: NonNegativeInt = 2
    """Validation documents whose weights are kept at every observation (taalm.heatmap.snapshots_of)."""
    save_every: PositiveInt = 10
    """Write the resumable state every so many steps."""

    @property
    def warm_steps(self) -> int:
        """Outer steps of all warm starts."""
        return self.starts * self.warm_start

    @property
    def all_steps(self) -> int:
        """Outer steps with those of every warm start."""
        return self.steps + self.warm_steps - self.warm_start
