"""What `scoresde likelihood` can compute: protocols and methods by name, ready to be run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import grid
from ..data import DataSpec
from ..exact import GaussianMixture
from ..likelihood import (
    DDPMVLB,
    Budget,
    ContinuousVLB,
    Dequantization,
    Dequantized,
    ExactTrace,
    GaussianNoising,
    Hutchinson,
    LikelihoodMethod,
    Ode,
    Path,
    Probing,
    TraceRule,
    TraceSearch,
    TruncatedNormalDequantization,
    UniformDequantization,
    choose_trace,
    likelihood_budget,
)
from ..likelihood import METHODS as BY_NAME
from ..likelihood.bound import last_time
from ..likelihood.rules import EXACT_UP_TO
from ..noise import SampleNoise
from ..score import ScoreModel
from ..sde import TabulatedVP

__all__ = ["DEQUANTIZATIONS", "METHODS", "PROTOCOLS", "Protocol", "choose_quadrature"]

# None: data as they are
DEQUANTIZATIONS: dict[str, Dequantization | None] = {
    "pf-ode/continuous": None,
    "pf-ode/uniform": UniformDequantization(),
    "pf-ode/truncated-normal": TruncatedNormalDequantization(),
    "pf-ode/decoder": GaussianNoising(),
    "pf-ode/uniform+decoder": GaussianNoising(before=UniformDequantization()),
}
VLB_CONTINUOUS, VLB_DDPM = "vlb-continuous", "vlb-ddpm"
PROTOCOLS = (*DEQUANTIZATIONS, VLB_CONTINUOUS, VLB_DDPM)
METHODS = tuple(BY_NAME)

# Evaluations of the trace on one path without which its integral would be wrong.
FEWEST_NODES, MOST_NODES = 12, 256


@dataclass(frozen=True)
class Protocol:
    """A protocol with all its settings: what makes two numbers comparable.

    Args:
        name: One of `PROTOCOLS`.
        spec: What the data are.
        density: How log p is found, of a "pf-ode" protocol.
        control: A Gaussian near the data, for the prior mismatch.
        t_min: First time; None for a variational bound's own default.
        draws: Points per datum.
        steps: Steps of the chain of "vlb-ddpm".
        strata: Strata of a variational bound.
        variance: Of the chain's reverse steps, "beta" or "beta_tilde".
        dtype: Of the data.
    """

    name: str
    spec: DataSpec
    density: Path | Ode | None = None
    control: GaussianMixture | None = None
    t_min: float | None = None
    draws: int = 1
    steps: int = 1000
    strata: int = 64
    variance: str = "beta_tilde"
    dtype: torch.dtype = torch.float32

    def score(
        self, model: ScoreModel, data: Tensor, y: Tensor | None, noise: SampleNoise
    ) -> Budget:
        """Log-likelihoods of a batch of data, with their errors."""
        method = self._method(model)
        data = data if self.spec.levels is not None else data.to(self.dtype)
        return likelihood_budget(model, data, method, control=self.control, noise=noise, y=y)

    def refined(self) -> Protocol | None:
        """The same with a finer solver; None for a bound, which has none."""
        return None if self.density is None else replace(self, density=self.density.refined())

    def described(self) -> dict[str, str]:
        """What is not in the name, in words."""
        density = self.density
        if density is None:
            chain = f", chain of {self.steps} steps, variance {self.variance}"
            return {
                "method": f"{self.strata} strata{chain if self.name == VLB_DDPM else ''}",
                "trace": "none",
            }
        if isinstance(density, Path):
            method = f"path of {density.steps} steps, corrected; "
            method += f"divergence at {density.nodes} nodes"
            return {"method": method, "trace": str(density.trace)}
        steps = "a step size per sample" if density.per_sample else "one step size per batch"
        method = f"{density.method}, rtol {density.rtol:g}, atol {density.atol:g}, {steps}"
        return {"method": method, "trace": str(density.trace)}

    def _method(self, model: ScoreModel) -> LikelihoodMethod:
        """The method of a model's data."""
        if self.density is not None:
            q = DEQUANTIZATIONS[self.name]
            return Dequantized(self.spec, self.density, q, self.draws, self.dtype)
        common = {"strata": self.strata, "draws": self.draws, "dtype": self.dtype}
        if self.name == VLB_CONTINUOUS:
            return ContinuousVLB(self.spec, self.t_min, **common)
        return DDPMVLB(self._chain(model), self.spec, variance=self.variance, **common)

    def _chain(self, model: ScoreModel) -> Tensor | int:
        """The times of the reverse chain: the model's own ladder, or equal steps in log-SNR."""
        if isinstance(model.sde, TabulatedVP):
            return len(model.sde.betas)
        end = last_time(model.sde, self.spec) if self.t_min is None else self.t_min
        return grid.log_snr(model.sde, self.steps, end)


def choose_quadrature(
    model: ScoreModel,
    x: Tensor,
    t_min: float,
    error: float,
    seed: int,
) -> tuple[TraceRule, int]:
    """Trace rule and number of nodes that reach an error per datum with the least work.

    By measurement on a few data, among rules that know their own error.

    Args:
        model: Score model, labels bound.
        x: Some data at the model's scale.
        t_min: First time.
        error: Standard error of log p wanted for each datum, in nats.
        seed: Seed of the measurement.
    """
    dims = math.prod(x.shape[1:])
    exact = [ExactTrace()] if dims <= EXACT_UP_TO else []
    probing = [Probing(colours, 2) for colours in (2, 4, 8) if colours < dims]
    candidates = [*exact, Hutchinson(probes=2), *probing]
    search = TraceSearch(candidates, error, FEWEST_NODES)
    choice = choose_trace(model, x, search, seed=seed, t_min=t_min)
    best = choice.table[0]
    return best.rule, min(max(best.evaluations, FEWEST_NODES), MOST_NODES)
