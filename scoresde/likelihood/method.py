"""The base class of likelihood methods, `LikelihoodMethod`, and their result, `Likelihood`.

A method is a frozen object that holds settings only: no model, no data, no state. `Path` and `Ode`
follow the probability-flow ODE. `Dequantized` turns quantized data into points for one of these
two. The variational bounds are methods as well. `log_likelihood` runs any of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import torch
from scipy.special import stdtrit
from torch import Tensor

from .._tensor import check_number
from ..batches import Batch
from ..data.spec import DataSpec
from ..ivp import Counts
from ..score import ScoreModel

__all__ = [
    "GUIDED",
    "KNOWN",
    "Likelihood",
    "LikelihoodMethod",
    "check_data",
    "check_exact",
    "check_no_sets",
    "joined",
    "student_t",
]

# Degrees of freedom of a standard error that is known rather than estimated from a few numbers.
KNOWN = 1e9

GUIDED = "log p is that of the guided model, which is not p(x) p(y|x)^w"
"""The label of a likelihood of a guided model."""


@dataclass(frozen=True)
class Likelihood:
    """log p(x) of each datum with its uncertainty and cost, and the settings that repeat it.

    Attributes:
        log_prob: log p(x) in nats, the density in the units of x, or a lower bound on it; shape
            (B,), float64.
        std_error: Standard error of `log_prob` from all randomness of the method, in nats, shape
            (B,): 0 if nothing is random, NaN if it cannot be estimated from a single value.
        dof: Degrees of freedom of `std_error`, for Student's t, shape (B,); `KNOWN` for a
            standard error that was not estimated from a few values.
        correction: The part of `log_prob` that corrects for the error of a path, in nats, shape
            (B,); 0 for a method without such a correction.
        nfe: Network evaluations per sample, counted; the largest if batches differ.
        nfe_derivative: Derivative passes per sample, counted; the largest if batches differ.
        t_min: Start time of the data.
        method: The method with all its settings; its trace is the rule that was used.
        latent: The state at t = 1, at the model's scale, shape and dtype of x; None for a method
            that computes no latent.
        counts: Status, steps and evaluations of each sample, from an adaptive solver; otherwise
            None.
        seed: Seed of all randomness; None if none was given.
        t_max: Time of the latent: 1, or λ = −6 for a network that is not regular where α(1) = 0.
        label: What log p is, if it is not that of the data: `GUIDED` for a guided model; else None.
    """

    log_prob: Tensor
    std_error: Tensor
    dof: Tensor
    correction: Tensor
    nfe: int
    nfe_derivative: int
    t_min: float
    method: LikelihoodMethod
    latent: Tensor | None = None
    counts: Counts | None = None
    seed: int | None = None
    t_max: float = 1.0
    label: str | None = None

    def shifted(self, log_det: Tensor) -> Self:
        """The likelihood in the units of the data, log p(x) = log p(z) + log |det ∂z/∂x|.

        Args:
            log_det: log |det ∂z/∂x| of each datum, nats, shape (B,).
        """
        return replace(self, log_prob=self.log_prob + log_det)

    def half_width(self, level: float = 0.95) -> Tensor:
        """Half the width of the confidence interval at `level` in (0, 1), in nats, shape (B,)."""
        return student_t(self.dof, level) * self.std_error

    def bits_per_dim(self, spec: DataSpec) -> Tensor:
        """Bits per dimension of quantized data, −log2 P(k)/D, shape (B,).

        The cell of a level has the volume (span/levels)^D. If `log_prob` is a density of points,
        that volume times p(x) is used in place of P(k). By Jensen's inequality, the mean over
        uniform dequantization is then an upper bound.

        Args:
            spec: What the data are.

        Raises:
            ValueError: If the data are continuous.
        """
        offset = 0.0 if self.method.of_levels else spec.bits_offset
        return -self.log_prob / (math.prod(spec.shape) * math.log(2)) + offset


Joined = TypeVar("Joined")


def joined(parts: Sequence[Joined]) -> Joined:
    """The results of several batches as one: tensors are concatenated; of integers the largest.

    Args:
        parts: Results of one class, a dataclass, at least one.
    """
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(parts[0])}
    return type(parts[0])(**{name: _joined(values) for name, values in columns.items()})


def _joined(values: list[Any]) -> Any:
    """One field of several batches."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, (Counts, Likelihood)):
        return joined(values)
    if isinstance(first, tuple):
        return tuple(_joined(column) for column in zip(*values, strict=True))
    return max(values) if type(first) is int else first


def student_t(dof: Tensor, level: float) -> Tensor:
    """Two-sided quantile of Student's t at `level` in (0, 1), with the shape of `dof`."""
    level = check_number("level", level, above=0, below=1)
    return torch.from_numpy(stdtrit(dof.cpu().numpy(), 0.5 + 0.5 * level)).to(dof)


def check_data(x: Tensor, spec: DataSpec | None = None) -> None:
    """Raise unless x has the spec's shape, and holds its levels or finite floats.

    Args:
        x: The data.
        spec: Description of the data; None for real data of any shape.

    Raises:
        TypeError: If x is not a tensor of float32 or float64, or, for quantized data, of integers.
        ValueError: If x has a wrong shape or is not finite, or a level is out of range.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if x.ndim == 0 or math.prod(x.shape[1:]) < 1:
        raise ValueError(f"x must have shape (B, *D) with every D ≥ 1, got {tuple(x.shape)}")
    if spec is not None and tuple(x.shape[1:]) != spec.shape:
        wanted = ", ".join(["B", *map(str, spec.shape)])
        raise ValueError(f"x must have shape ({wanted}), got {tuple(x.shape)}")
    if spec is not None and spec.levels is not None:
        spec.encode(x)  # refuses values that are not levels
        return
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"x must be float32 or float64 (levels need their spec, see Dequantized), got {x.dtype}"
        )
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(f"x must be finite, got {bad} non-finite values of {x.numel()}")


def check_exact(model: ScoreModel) -> None:
    """Raise ValueError if the model is exact only at the discrete times of its ladder."""
    if model.snapped:
        raise ValueError(
            "model must be exact at every time, got one with rounded labels, which are wrong "
            "between its discrete times; use the label 'index', or DDPMVLB on its ladder"
        )


def check_no_sets(model: ScoreModel, refusal: str) -> None:
    """Raise ValueError with this refusal if the model is one of sets of points.

    Args:
        model: Score model.
        refusal: The beginning of the message, such as "control must be None".
    """
    if model.condition is not None and model.condition.sizes is not None:
        least, most = model.condition.sizes
        raise ValueError(f"{refusal} for sets of different size, here {least} to {most} points")


class LikelihoodMethod(ABC):
    """A method that computes log p(x).

    Attributes:
        t_min: Start time of the data; None for the model's own time, `ScoreModel.first_time`.
    """

    t_min: float | None = None

    @property
    def of_levels(self) -> bool:
        """Whether `log_prob` is a probability of quantized levels, not a density of points."""
        return False

    @property
    def encodes(self) -> bool:
        """Whether the method takes the data of a model of latents, and encodes them."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether log p can be differentiated, in x, the condition and the weights."""
        return False

    @abstractmethod
    def check(self, model: ScoreModel, x: Tensor) -> None:
        """Refuse what cannot be computed, before the first evaluation of the network.

        Raises:
            TypeError: If x has a wrong type.
            ValueError: If model, data and settings do not fit together.
        """

    @abstractmethod
    def estimate(self, batch: Batch, x: Tensor) -> Likelihood:
        """log p of one batch.

        Args:
            batch: The model with labels bound, the source of randomness of these samples (None
                only if the method needs none) and the index of each sample.
            x: The batch's data, already accepted by `check`, shape (B, *D); B may be 0.
        """

    def needs_noise(self, x: Tensor) -> bool:
        """Whether the result is random, so that the caller must give a seed."""
        return True

    def refined(self) -> LikelihoodMethod | None:
        """The same method with a finer solver and the same randomness; None if it has no solver."""
        return None
