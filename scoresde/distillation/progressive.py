"""Progressive distillation: a student of N steps learns two DDIM steps of its teacher in one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._tensor import check_integer, plain_numbers
from ..score import ScoreModel
from ..sde import SDE
from .base import StudentLoss
from .steps import noised, two_step_target

__all__ = ["Progressive", "ProgressiveLoss"]


@dataclass(frozen=True)
class Progressive:
    """Progressive distillation to a number of steps, by halving.

    Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models",
    arXiv:2202.00512, section 3. The first student learns from `start` DDIM steps of the teacher and
    takes half of them. It is then the teacher of the next student.

    Args:
        steps: Steps N of the last student, a power of two.
        start: DDIM steps of the first teacher, a power of two above `steps`.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is no power of two, or `start` is not above `steps`.
    """

    steps: int = 4
    start: int = 64

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("steps", "start"):
            value = check_integer(name, getattr(self, name), minimum=1)
            if value.bit_count() > 1:
                raise ValueError(f"{name} must be a power of two, got {value}")
        if self.start <= self.steps:
            raise ValueError(f"start must be above steps = {self.steps}, got {self.start}")

    @property
    def students(self) -> list[int]:
        """The steps of the students, one after the other: start/2, ..., steps."""
        found = [self.start // 2]
        while found[-1] > self.steps:
            found.append(found[-1] // 2)
        return found


@dataclass(frozen=True)
class ProgressiveLoss(StudentLoss):
    """The loss of a student of N steps, for a uniform choice among its N times.

        L = E [ max(SNR, 1) |x̂(x_t, t) − x̃|²/D ],   SNR = α²/σ²

    x̃ as in `two_step_target`. Salimans and Ho 2022, arXiv:2202.00512, algorithm 2 and the weight
    "truncated SNR" of their section 4.

    Args:
        teacher: The teacher.
        times: Times of the teacher's steps, decreasing, shape (2N + 1,), float64. The student has
            every second of them.
    """

    teacher: ScoreModel
    times: Tensor

    def check(self, sde: SDE, learned_variance: bool = False) -> None:
        """Raise unless the loss suits the student.

        Raises:
            ValueError: If the student has a learned variance, or a time has no σ > 0.
        """
        super().check(sde, learned_variance)
        sde.nodes(self.times)

    def __call__(
        self, model: ScoreModel, x0: Tensor, u: Tensor, eps: Tensor, history: None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted error of each sample, per dimension.

        Args:
            model: The student.
            x0: Data, shape (B, *D).
            u: Uniform draws in [0, 1], shape (B,), which choose the times.
            eps: Standard normal noise like x0.
            history: None.

        Returns:
            Losses (B,), times (B,), and errors (α/σ)² |x̂ − x̃|²/D (B,), which are errors of ε.
        """
        times = self.times.to(u.device)
        steps = len(times) // 2
        i = (u * steps).long().clamp(max=steps - 1)
        t, m, s = (model.sde.at(times[2 * i + k], x0) for k in range(3))
        x = noised(x0, eps, t)
        with torch.no_grad():
            teacher = self.teacher if model.y is None else self.teacher.given(model.y)
            target = two_step_target(teacher, x, t, m, s)
        square = (model.x0(x, t) - target).square().flatten(1).mean(1)
        snr = (t.alpha / t.sigma).square().flatten().to(square)
        return snr.clamp(min=1) * square, times[2 * i], (snr * square).detach()
