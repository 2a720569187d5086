"""The settings of the training loop: steps, batch, learning rate, averages, held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._tensor import check_integer, check_number, check_type, plain_numbers
from ..ema import LARGEST_SIGMA_REL
from ..noise import check_seed

__all__ = ["TrainSettings", "learning_rate_at"]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop.

    Args:
        steps: Optimizer steps in all.
        batch: Images per step.
        learning_rate: Learning rate of Adam, after warm-up.
        warmup: Steps over which the learning rate rises linearly from 0.
        cooldown: Last steps, over which the learning rate falls linearly to 0.
        clip: Largest gradient norm; larger gradients are scaled down to this norm.
        ema_decay: Decay of the averaged weights, in [0, 1).
        ema_snapshot_every: Steps between snapshots of power-function averages, from which
            `scoresde ema` makes averages of other lengths; 0 stores none.
        ema_sigma_rel: Relative widths of these averages, see `scoresde.ema.power_exponent`.
        autocast: None, "bfloat16" or "float16": compute the network in this dtype; weights, loss
            and optimizer stay in float32. In float16 the loss is multiplied by a factor, which
            halves when a gradient overflows; such a step is skipped, and counts against
            `max_skipped` only when the factor is down to 1.
        checkpointing: Whether the blocks of a `UNet` keep only their inputs for the backward pass
            and compute the rest again. This takes less memory and more time; gradients are the
            same. Only networks with an attribute `checkpointing` can do this.
        label_dropout: Probability, in [0, 1), that an example is trained without its condition.
            Above 0 the model can also be evaluated without a condition.
        accumulate: Micro-batches of a step, at most `batch`. Their gradients are summed, so that
            the step is that of the whole batch up to rounding, with less memory. Layers that mix
            the examples of a batch (BatchNorm) see a micro-batch; dropout draws other numbers.
        flip: Whether each example is mirrored left to right with probability ½, anew at every
            visit; images only. The model then learns the distribution of the data and of their
            mirror images in equal parts.
        validation: Data on which the loss is measured and which are never trained on: a share of
            the data in [0, 1), chosen by the seed; "test" for the test split; 0 for none.
        max_skipped: How many steps with a non-finite loss or gradient may be skipped, each
            counted and logged, before training stops; counted anew after a resume.
        seed: Integer in [0, 2^64).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    steps: int
    batch: int
    learning_rate: float = 2e-4
    warmup: int = 500
    cooldown: int = 0
    clip: float = 1.0
    ema_decay: float = 0.999
    ema_snapshot_every: int = 0
    ema_sigma_rel: Sequence[float] = (0.05, 0.1)
    autocast: str | None = None
    checkpointing: bool = False
    label_dropout: float = 0.0
    accumulate: int = 1
    flip: bool = False
    validation: float | str = 0.0
    max_skipped: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, minimum in (("steps", 1), ("batch", 1), ("warmup", 0), ("cooldown", 0)):
            check_integer(name, getattr(self, name), minimum=minimum)
        check_integer("max_skipped", self.max_skipped, minimum=0)
        check_integer("ema_snapshot_every", self.ema_snapshot_every, minimum=0)
        self._check_widths()
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("clip", self.clip, above=0)
        check_number("ema_decay", self.ema_decay, at_least=0, below=1)
        check_number("label_dropout", self.label_dropout, at_least=0, below=1)
        check_integer("accumulate", self.accumulate, minimum=1)
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate must be at most the batch of {self.batch}, got {self.accumulate}"
            )
        for name in ("flip", "checkpointing"):
            check_type(name, getattr(self, name), bool)
        self._check_validation()
        check_seed(self.seed)
        if self.autocast not in (None, "bfloat16", "float16"):
            raise ValueError(f"autocast must be bfloat16, float16 or absent, got {self.autocast!r}")

    def _check_widths(self) -> None:
        bounds = {"above": 0, "at_most": LARGEST_SIGMA_REL}
        widths = tuple(
            float(check_number("ema_sigma_rel", width, **bounds)) for width in self.ema_sigma_rel
        )
        object.__setattr__(self, "ema_sigma_rel", widths)
        if not widths or len(set(widths)) < len(widths):
            raise ValueError(f"ema_sigma_rel must be different widths, at least 1, got {widths}")

    def _check_validation(self) -> None:
        value = self.validation
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value != "test" and not (number and 0 <= value < 1):
            raise ValueError(
                f"validation must be 'test' or a share of the data in [0, 1), got {value!r}"
            )

    @property
    def share(self) -> float:
        """Share of the training data that are held out."""
        return 0.0 if self.validation == "test" else self.validation


def learning_rate_at(settings: TrainSettings, step: int) -> float:
    """Learning rate of step n = 0, 1, ...: linear warm-up, plateau, linear cool-down."""
    rise = (step + 1) / settings.warmup if settings.warmup else 1.0
    fall = (settings.steps - step) / settings.cooldown if settings.cooldown else 1.0
    return settings.learning_rate * min(1.0, rise, fall)
