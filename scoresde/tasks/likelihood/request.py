"""The request of `scoresde likelihood`, and the checks before a network is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from ...autoencoder import ThroughAutoencoder
from ...data import DataSpec
from ...likelihood import (
    DDPMVLB,
    METHODS,
    Continuous,
    ContinuousVLB,
    Dequantization,
    ExactTrace,
    GaussianNoising,
    LikelihoodMethod,
    TruncatedNormalDequantization,
    UniformDequantization,
    parse_trace,
)
from ...likelihood.trace.names import EXACT_LIMIT, EXACT_UP_TO
from ...noise import SampleNoise
from ...output.progress import check_space
from ...score import FIRST_TIME
from ...sde.reverse import UNLEARNED
from ..given import GivenModel
from ..request import HeldOutRequest

__all__ = ["PROTOCOLS", "ScoreRequest", "check_request", "resolved"]

# Only results of one protocol are comparable. The protocols with a dequantization use the density
# of the probability-flow ODE at the drawn points; the other protocols are bounds of the reverse
# SDE.
PROTOCOLS: dict[str, Dequantization | type[LikelihoodMethod]] = {
    "pf-ode/continuous": Continuous(),
    "pf-ode/uniform": UniformDequantization(),
    "pf-ode/truncated-normal": TruncatedNormalDequantization(),
    "pf-ode/decoder": GaussianNoising(),
    "pf-ode/uniform+decoder": GaussianNoising(before=UniformDequantization()),
    "pf-ode/autoencoder": ThroughAutoencoder(),
    "vlb-continuous": ContinuousVLB,
    "vlb-ddpm": DDPMVLB,
}


LATENT = "pf-ode/autoencoder"  # the only protocol of models of latents


@dataclass(frozen=True)
class ScoreRequest(HeldOutRequest):
    """The data to score, and the method; the seed chooses the data at random.

    "ODE methods" are the methods other than "path".

    Args:
        protocol: One of `PROTOCOLS`; None for "pf-ode/uniform", "pf-ode/continuous" for continuous
            data, or "pf-ode/autoencoder" for a model of latents.
        method: One of `METHODS`, or "auto": "path" above 16 dimensions, else "dopri5". "path" is
            refused for a guided model, and "auto" is "dopri5".
        per_sample: Whether an ODE method has a step size for each datum, not one for the batch.
        trace: A trace rule as `parse_trace` reads it, or "auto". For "path", "auto" measures which
            rule is the cheapest; for ODE methods it is the exact trace up to 16 dimensions, and
            one probe above.
        image_error: Standard error of each datum that "auto" aims at, in `DataSpec.unit`.
        steps: Steps of a path (None: 32) or of the chain of "vlb-ddpm" (None: 1000). A model with
            its own ladder uses it as the chain, and allows only None.
        nodes: Nodes of a path (None: measured or 12) or strata of a variational bound (None: 64).
        variance: Reverse variance of "vlb-ddpm", "beta", "beta_tilde" or "learned".
        draws: Dequantizations of each datum, or draws of its latents; a variational bound makes at
            least 4 draws.
        rtol: Relative tolerance of ODE methods.
        atol: Absolute tolerance of ODE methods.
        t_min: Start time of the data. None: 1e-5, or the time of the first discrete label if that
            is later; for variational bounds see `ContinuousVLB`.
        measured: Number of data on which the errors of solver and dtype are measured.
        force: Allow an exact trace above 4096 dimensions.
        plot: Draw the terms of the bound "vlb-ddpm".
        compiled: Compile the network, its derivative pass included.
        guidance: As `parse_guidance` reads it; None for no guidance.
    """

    n: int = 128
    protocol: str | None = None
    method: str = "auto"
    per_sample: bool = False
    trace: str = "auto"
    image_error: float = 0.05
    steps: int | None = None
    nodes: int | None = None
    variance: str = "beta_tilde"
    draws: int = 1
    rtol: float = 1e-6
    atol: float = 1e-6
    t_min: float | None = None
    measured: int = 8
    force: bool = False
    plot: bool = False
    compiled: bool = False
    guidance: str | None = None

    places: ClassVar[tuple[str, ...]] = (*HeldOutRequest.places, "guidance")

    @property
    def of_flow(self) -> bool:
        """Whether the protocol uses the density of the probability-flow ODE."""
        return isinstance(PROTOCOLS.get(self.protocol), Dequantization)

    @property
    def of_path(self) -> bool:
        """Whether this density is computed by `Path`."""
        return self.of_flow and self.method == "path"


def resolved(request: ScoreRequest, given: GivenModel) -> ScoreRequest:
    """The request with protocol, method and time filled in for the checkpoint."""
    small = given.spec.dims <= EXACT_UP_TO
    default = "pf-ode/continuous" if given.spec.levels is None else "pf-ode/uniform"
    default = LATENT if given.of_latents else default
    solved = "dopri5" if small or given.guided else "path"
    method = solved if request.method == "auto" else request.method
    request = replace(request, protocol=request.protocol or default, method=method)
    if request.of_flow:
        request = replace(request, t_min=given.last_time(request.t_min, FIRST_TIME))
    return request


def check_request(request: ScoreRequest, given: GivenModel) -> None:
    """Refuse a request that cannot be computed, has options without effect, or would take days.

    Args:
        request: The request, resolved.
        given: The model.

    Raises:
        ValueError: If the request is refused; the message names the option.
    """
    for name, allowed in (("protocol", PROTOCOLS), ("method", METHODS)):
        value = getattr(request, name)
        if value not in allowed:
            raise ValueError(f"--{name}: {value!r} is unknown; one of {', '.join(allowed)}")
    if given.of_latents != (request.protocol == LATENT):
        what = "has only" if given.of_latents else "is no model of latents, which alone has"
        raise ValueError(
            f"--protocol: {request.protocol}, but {given.name} {what} {LATENT}, the bound through "
            "the autoencoder"
        )
    if request.plot and request.protocol != "vlb-ddpm":
        raise ValueError(f"--plot: draws the terms of vlb-ddpm, and {request.protocol} has none")
    if request.variance == "learned" and not given.learned_variance:
        raise ValueError(f"--variance: {UNLEARNED}")
    given.check_score("a likelihood")
    given.check_first_time(request.t_min)
    if request.of_flow or given.snapped and request.protocol != "vlb-ddpm":
        given.check_flow(request.rtol, request.atol, request.dtype)
    if request.of_path and given.guided:
        raise ValueError(
            f"--method: path needs the score of a density, and {given.name} is guided; dopri5 "
            "gives the density of the guided ODE"
        )
    if request.of_flow:
        _check_flow_options(request, given.spec, given.of_latents)
    if request.per_sample and request.method not in ("dopri5", "bosh3", "dop853"):
        raise ValueError(f"--per-sample: not with {request.method}; dopri5, bosh3 or dop853")
    if request.steps is not None and not request.of_path:
        if request.protocol != "vlb-ddpm":
            raise ValueError(f"--steps: {request.steps}, but only a path and vlb-ddpm have steps")
        if (levels := given.sde.levels) is not None:
            raise ValueError(
                f"--steps: {request.steps}, but vlb-ddpm takes the model's own chain of {levels} "
                "steps; leave it out"
            )


def _check_flow_options(request: ScoreRequest, spec: DataSpec, of_latents: bool) -> None:
    """Refuse a dequantization that does not fit the data, and options the method does not have."""
    flow = [n for n, q in PROTOCOLS.items() if isinstance(q, Dequantization) and n != LATENT]
    fits = ["pf-ode/continuous", "pf-ode/decoder"] if spec.levels is None else flow[1:]
    if request.protocol not in fits and not of_latents:
        kind = "continuous" if spec.levels is None else f"of {spec.levels} levels"
        raise ValueError(
            f"--protocol: {request.protocol}, but the data are {kind}; one of {', '.join(fits)}"
        )
    if request.protocol == "pf-ode/continuous" and request.draws != 1:
        raise ValueError(f"--draws: {request.draws}, but continuous data are not dequantized")
    if request.nodes is not None and not request.of_path:
        raise ValueError(f"--nodes: {request.nodes}, but {request.method} has none")
    if request.trace != "auto":
        _check_trace(request, spec)


def _check_trace(request: ScoreRequest, spec: DataSpec) -> None:
    """Refuse a rule that does not fit the data's dimensions."""
    dims, rule = spec.dims, parse_trace(request.trace)
    if isinstance(rule, ExactTrace) and dims > EXACT_LIMIT and not request.force:
        raise ValueError(
            f"--trace: exact costs {dims} derivative passes at each of about 100 evaluations, "
            f"allowed up to {EXACT_LIMIT} dimensions; use hutchinson, or --force if you can wait"
        )
    at_once = min(request.batch, request.n)
    check_space("--trace", rule.cost(dims), at_once * dims, Path(), arrays=1)  # the probes
    try:
        rule.draw(SampleNoise(0, [0]), torch.empty(1, *spec.shape))
    except ValueError as error:
        raise ValueError(f"--trace: {request.trace}: {error}") from error
