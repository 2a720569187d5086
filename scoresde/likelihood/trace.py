"""The trace of a vector field's Jacobian: exact, and Hutchinson's estimate.

The field is a callable (x, t) ↦ like x in which no sample of the batch depends on another. It is
evaluated once, and vectors v are pulled back through that one graph, v ↦ vᵀ J. Gradients are
taken with respect to x alone, so that none are computed for weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .._tensor import check_number
from ..noise import Noise
from ..score import NFE

__all__ = [
    "ExactTrace",
    "Field",
    "Hutchinson",
    "TraceRule",
    "error_of_mean",
    "exact_trace",
    "hutchinson_trace",
]

Field = Callable[[Tensor, float], Tensor]


def exact_trace(
    field: Field, x: Tensor, t: float, count: NFE | None = None
) -> tuple[Tensor, Tensor]:
    """tr J = Σ_i e_iᵀ J e_i,  J = ∂field/∂x, by D vector-Jacobian products.

    Args:
        field: The vector field.
        x: Points, shape (B, *D).
        t: Time.
        count: Where derivative passes are counted.

    Returns:
        The field like x, and its trace, shape (B, 1), float64.

    Raises:
        RuntimeError: If the field is not differentiable in x, or a derivative is not finite.
    """
    value, forms = _quadratic_forms(field, x, t, _basis(x), count)
    return value, forms.sum(1, keepdim=True)


def hutchinson_trace(
    field: Field, x: Tensor, t: float, probes: Tensor, count: NFE | None = None
) -> tuple[Tensor, Tensor]:
    """vᵀ J v for each probe v,  J = ∂field/∂x; its mean over v with E[v vᵀ] = I is tr J.

    Its variance is 2 Σ_{i≠j} S_ij² for Rademacher and 2 Σ_ij S_ij² for Gaussian probes, with
    S = (J + Jᵀ)/2. Hutchinson 1989, "A stochastic estimator of the trace of the influence
    matrix"; for flows, Grathwohl et al. 2019 (FFJORD), arXiv:1810.01367.

    Args:
        field: The vector field.
        x: Points, shape (B, *D).
        t: Time.
        probes: Shape (K, B, *D).
        count: Where derivative passes are counted, K per call.

    Returns:
        The field like x, and one number per probe, shape (B, K), float64.

    Raises:
        RuntimeError: If the field is not differentiable in x, or a derivative is not finite.
    """
    return _quadratic_forms(field, x, t, probes, count)


class TraceRule(ABC):
    """How the trace is found along a path: which numbers are integrated, and how well known."""

    columns: int

    @abstractmethod
    def bind(
        self, x: Tensor, noise: Noise | None, count: NFE
    ) -> Callable[[Field, Tensor, float], tuple[Tensor, Tensor]]:
        """The rule for one batch, its randomness drawn.

        Args:
            x: Points the path starts from, shape (B, *D).
            noise: Source of probes; None if the rule needs none.
            count: Where derivative passes are counted.

        Returns:
            A map from (field, x, t) to the field and `columns` estimates of its trace.
        """

    @abstractmethod
    def std_error(self, estimates: Tensor) -> Tensor:
        """Standard error of the mean of estimates (B, columns), shape (B,)."""


@dataclass(frozen=True)
class ExactTrace(TraceRule):
    """`exact_trace`."""

    columns = 1

    def bind(
        self, x: Tensor, noise: Noise | None, count: NFE
    ) -> Callable[[Field, Tensor, float], tuple[Tensor, Tensor]]:
        """`exact_trace` itself."""
        return partial(exact_trace, count=count)

    def std_error(self, estimates: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(estimates[:, 0])


@dataclass(frozen=True)
class Hutchinson(TraceRule):
    """`hutchinson_trace` with probes drawn once per sample and kept along the path.

    Kept, because with new probes at each time the ODE would not be smooth. The k-th probe of a
    sample depends neither on how many there are nor on the batch.

    Args:
        probe: "rademacher", entries ±1, or "gaussian", entries N(0, 1).
        probes: K ≥ 1.
    """

    probe: str = "rademacher"
    probes: int = 1

    def __post_init__(self) -> None:
        if self.probe not in ("rademacher", "gaussian"):
            raise ValueError(f"probe must be rademacher or gaussian, got {self.probe!r}")
        if isinstance(self.probes, bool) or not isinstance(self.probes, int):
            raise TypeError(f"probes must be an integer, got {self.probes!r}")
        check_number("probes", self.probes, at_least=1)

    @property
    def columns(self) -> int:
        """One number per probe is integrated."""
        return self.probes

    def draw(self, noise: Noise, x: Tensor) -> Tensor:
        """The probes, shape (K, *x.shape), in the dtype of x."""
        z = torch.stack([noise.probe(x) for _ in range(self.probes)])
        return torch.ones_like(z).copysign(z) if self.probe == "rademacher" else z

    def bind(
        self, x: Tensor, noise: Noise | None, count: NFE
    ) -> Callable[[Field, Tensor, float], tuple[Tensor, Tensor]]:
        """`hutchinson_trace` with the probes of this batch."""
        if noise is None:
            raise ValueError("Hutchinson's trace needs probes: give seed or noise")
        return partial(hutchinson_trace, probes=self.draw(noise, x), count=count)

    def std_error(self, estimates: Tensor) -> Tensor:
        """Standard deviation over the probes / √K; NaN for K = 1, which cannot tell."""
        return error_of_mean(estimates, dim=1)


def error_of_mean(estimates: Tensor, dim: int) -> Tensor:
    """Standard error of the mean over independent estimates: their deviation / √n.

    Args:
        estimates: Any shape.
        dim: The axis of the n ≥ 1 estimates.

    Returns:
        The shape without that axis; NaN for n = 1.
    """
    n, mean = estimates.shape[dim], estimates.mean(dim, keepdim=True)
    if n == 1:
        return torch.full_like(mean, math.nan).squeeze(dim)
    return ((estimates - mean).square().sum(dim) / (n - 1) / n).sqrt()


def _basis(x: Tensor) -> Iterable[Tensor]:
    """The D unit vectors, each like x, one at a time: all at once would take D times x."""
    for i in range(math.prod(x.shape[1:])):
        e = x.new_zeros(x.shape[0], math.prod(x.shape[1:]))
        e[:, i] = 1
        yield e.reshape(x.shape)


def _quadratic_forms(
    field: Field, x: Tensor, t: float, vectors: Iterable[Tensor], count: NFE | None
) -> tuple[Tensor, Tensor]:
    """The field, and vᵀ J v for each v, shape (B, number of v)."""
    # Under inference_mode not even enable_grad would record a graph.
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = field(x, t)
        if not value.requires_grad:
            raise RuntimeError(
                f"the field at t={t:.6g} is not differentiable in x (computed under "
                "torch.no_grad, detached or in numpy?), so that its divergence is unknown"
            )
        forms = torch.stack([_form(value, x, v, count) for v in vectors], dim=1)
    if not bool(torch.isfinite(forms).all()):
        bad = int((~torch.isfinite(forms)).sum())
        raise RuntimeError(
            f"derivative of the network at t={t:.6g}: {bad} non-finite values of {forms.numel()}"
        )
    return value.detach(), forms


def _form(value: Tensor, x: Tensor, v: Tensor, count: NFE | None) -> Tensor:
    """vᵀ J v of each sample, summed in float64, shape (B,)."""
    if count is not None:
        count.derivative += 1
    (pulled,) = torch.autograd.grad(value, x, v, retain_graph=True)
    return (pulled * v).reshape(x.shape[0], -1).sum(1, dtype=torch.float64)
