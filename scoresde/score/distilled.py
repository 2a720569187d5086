"""`Distilled`: what a student of few steps says about itself."""

from __future__ import annotations

from dataclasses import dataclass

from .._tensor import check_integer, check_number, check_type, plain_numbers

__all__ = ["Distilled"]


@dataclass(frozen=True)
class Distilled:
    """How a student was made, and from which times it may be evaluated.

    A student is a model whose `x0` is no posterior mean E[x_0 | x_t], but the end of a long step.
    So its `eps` and `score` are no score of any density.

    Its times are `steps` equal steps of the angle arctan(σ/(α d)) from `sde.t_regular` to `t_min`.

    Args:
        method: The text of the method with its parameters, such as "progressive:steps=4".
        t_min: Last time.
        data_std: d of the times.
        steps: Number N of steps of the student, a power of two; None if it can be evaluated at any
            time (consistency models).
        teacher: Digest of the checkpoint it learned from.
        guidance: The teacher's guidance, as a text; empty for none.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a number is out of range.
    """

    method: str
    t_min: float
    data_std: float = 1.0
    steps: int | None = None
    teacher: str = ""
    guidance: str = ""

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("method", "teacher", "guidance"):
            check_type(name, getattr(self, name), str)
        check_number("t_min", self.t_min, above=0, below=1)
        check_number("data_std", self.data_std, above=0)
        if self.steps is not None and check_integer("steps", self.steps, minimum=1).bit_count() > 1:
            raise ValueError(f"steps must be a power of two, got {self.steps}")

    @property
    def kind(self) -> str:
        """The name of the method."""
        return self.method.partition(":")[0]

    @property
    def in_words(self) -> str:
        """What it is, for messages."""
        steps = "" if self.steps is None else f" of {self.steps} steps"
        return f"a student{steps} ({self.kind})"
