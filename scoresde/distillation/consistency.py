"""Consistency models: every point of a path of the ODE is mapped to the end of the path.

The consistency function of a student is one DDIM step to the last time,

    f(x, t) = (σ_min/σ_t) x + α_min (1 − σ̂_min/σ̂_t) x0(x, t),   σ̂ = σ/α

so that f(x, t_min) = x exactly, and a student is a score model like any other, whose x0 is trained
in another way. With the target "edm" of standard deviation d and α = 1, c_out is that of Song et
al. 2023, arXiv:2303.01469, appendix C, d (σ − σ_min)/√(d² + σ²), and c_skip is
(d² + σ σ_min)/(d² + σ²) where they have d²/(d² + (σ − σ_min)²).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .. import grid as grids
from .._tensor import check_choice, check_integer, plain_numbers
from ..score import ScoreModel
from ..sde import SDE, Node
from .base import StudentLoss
from .steps import ddim_step, heun_step, noised

__all__ = [
    "ConsistencyDistillation",
    "ConsistencyLoss",
    "ConsistencyTraining",
    "Levels",
    "consistency_function",
]

# Improved consistency training, Song and Dhariwal 2023, arXiv:2310.14189, table 1.
HUBER = 0.00054  # c/√D of the pseudo-Huber metric
LOG_MEAN, LOG_STD = -1.1, 2.0  # of log σ̂ for data of standard deviation 0.5
THEIR_STD = 0.5
RHO = 7.0  # of the levels, as in EDM


def consistency_function(model: ScoreModel, x: Tensor, t: Node, end: Node) -> Tensor:
    """f(x, t), the end at t_min of the path of the ODE through x; x itself where t = t_min.

    Args:
        model: A consistency student.
        x: States, shape (B, *D).
        t: Their times.
        end: t_min.
    """
    return ddim_step(x, model.x0(x, t), t, end)


@dataclass(frozen=True)
class ConsistencyDistillation:
    """Consistency distillation: neighbouring points of the teacher's ODE have the same end.

    Song et al. 2023, "Consistency Models", arXiv:2303.01469, algorithm 2, with the improvements of
    Song and Dhariwal 2023, arXiv:2310.14189: no average of weights in the target, the pseudo-Huber
    metric, log-normal times, and a number of levels that doubles during the training.

    Args:
        solver: "heun" or "ddim", one step of which leads from a level to the next.
        first: Number of intervals between levels at the beginning.
        last: Largest number of them.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If an argument is out of range.
    """

    solver: Literal["heun", "ddim"] = "heun"
    first: int = 10
    last: int = 80

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_choice("solver", self.solver, ("heun", "ddim"))
        _check_levels(self.first, self.last)


@dataclass(frozen=True)
class ConsistencyTraining:
    """Consistency training: neighbouring points share data and noise, and there is no teacher.

    Song et al. 2023, arXiv:2303.01469, algorithm 3, improved as in `ConsistencyDistillation`. The
    network starts with the weights of the checkpoint, which makes the training much shorter.

    Args:
        first: Number of intervals between levels at the beginning.
        last: Largest number of them; the error of the method falls with it.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If an argument is out of range.
    """

    first: int = 10
    last: int = 320

    def __post_init__(self) -> None:
        plain_numbers(self)
        _check_levels(self.first, self.last)


def _check_levels(first: int, last: int) -> None:
    check_integer("first", first, minimum=2)
    check_integer("last", last, minimum=first)


@dataclass(frozen=True, eq=False)
class Levels:
    """Levels of noise σ̂_0 < ... < σ̂_N, equal steps in σ̂^{1/ρ}, and the choice of an interval.

        p_i ∝ Φ(z_{i+1}) − Φ(z_i),   z_i = (log(σ̂_i/d) − m)/s,   w_i ∝ 1/(σ̂_{i+1} − σ̂_i)

    Song and Dhariwal 2023, arXiv:2310.14189, section 3.5; their m = −1.1 belongs to data of
    standard deviation 0.5. The weights w have mean 1 under p, which leaves the optimum where it is.

    Args:
        times: t_0 < ... < t_N, float64.
        cumulated: p_0 + ... + p_i, shape (N,).
        weights: w_i, shape (N,).
    """

    times: Tensor
    cumulated: Tensor
    weights: Tensor

    @classmethod
    def of(cls, sde: SDE, n: int, t_min: float, data_std: float) -> Levels:
        """N = n intervals from t_min to `sde.t_regular`."""
        times = grids.karras(sde, n, t_min, sde.t_regular, rho=RHO).flip(0)
        log_sigma = torch.tensor([-node.lam for node in sde.nodes(times)], dtype=torch.float64)
        mean = LOG_MEAN + math.log(data_std / THEIR_STD)
        p = torch.special.ndtr((log_sigma - mean) / LOG_STD).diff()
        p = p / p.sum()
        w = 1 / log_sigma.exp().diff()
        return cls(times, p.cumsum(0), w / (p * w).sum())


@dataclass(frozen=True)
class ConsistencyLoss(StudentLoss):
    """The loss of consistency distillation and training.

        L = E [ w_i d(f(x_t, t), f⁻(x_s, s)) ],   d(a, b) = √(|a − b|²/D + c²) − c

    t = t_{i+1} and s = t_i are neighbouring levels. x_s is one step of the teacher's ODE from x_t,
    or α_s x_0 + σ_s ε without a teacher. f⁻ is f without gradients.

    Args:
        teacher: The teacher; None for consistency training.
        solver: One step of its ODE, (model, x, t, s) → x_s.
        stages: Levels of the parts of the training, which have equal numbers of steps.
        stage: The present part; the last one unless `at_step` says otherwise.
    """

    teacher: ScoreModel | None
    solver: Callable[..., Tensor]
    stages: tuple[Levels, ...]
    stage: int = -1

    @classmethod
    def of(
        cls,
        sde: SDE,
        method: ConsistencyDistillation | ConsistencyTraining,
        teacher: ScoreModel | None,
        t_min: float,
        data_std: float = 1.0,
    ) -> ConsistencyLoss:
        """The loss of a method, with levels from t_min to `sde.t_regular`."""
        counts = [method.first]
        while counts[-1] < method.last:
            counts.append(min(2 * counts[-1], method.last))
        stages = tuple(Levels.of(sde, n, t_min, data_std) for n in counts)
        heun = getattr(method, "solver", "heun") == "heun"
        return cls(teacher, heun_step if heun else _euler, stages)

    def at_step(self, n: int, steps: int) -> ConsistencyLoss:
        """The loss of step n: the number of levels doubles after equal parts of the training."""
        return replace(self, stage=n * len(self.stages) // steps)

    def __call__(
        self, model: ScoreModel, x0: Tensor, u: Tensor, eps: Tensor, history: None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted distance of each sample.

        Args:
            model: The student.
            x0: Data, shape (B, *D).
            u: Uniform draws in [0, 1], shape (B,), which choose the levels.
            eps: Standard normal noise like x0.
            history: None.

        Returns:
            Losses (B,), times t (B,), and squared distances per dimension (B,).
        """
        levels, sde = self.stages[self.stage], model.sde
        cumulated, times = levels.cumulated.to(u), levels.times.to(u)
        i = torch.searchsorted(cumulated, u, right=True).clamp(max=len(cumulated) - 1)
        t, s = sde.at(times[i + 1], x0), sde.at(times[i], x0)
        end = sde.at(times[:1].expand(len(u)), x0)
        x = noised(x0, eps, t)
        with torch.no_grad():
            before = noised(x0, eps, s) if self.teacher is None else self._solved(model, x, t, s)
            target = consistency_function(model, before, s, end)
        square = (consistency_function(model, x, t, end) - target).square().flatten(1).mean(1)
        distance = torch.sqrt(square + HUBER**2) - HUBER
        weight = levels.weights.to(u)[i].to(square)
        return weight * distance, times[i + 1], square.detach()

    def _solved(self, model: ScoreModel, x: Tensor, t: Node, s: Node) -> Tensor:
        teacher = self.teacher if model.y is None else self.teacher.given(model.y)
        return self.solver(teacher, x, t, s)


def _euler(model: ScoreModel, x: Tensor, t: Node, s: Node) -> Tensor:
    """One DDIM step of the teacher."""
    return ddim_step(x, model.x0(x, t), t, s)
