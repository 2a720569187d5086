"""The likelihood method for a request of `scoresde likelihood`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ... import grid
from ..._condition import map_condition, take_rows
from ...data import Dataset, DataSpec
from ...exact import GaussianMixture
from ...likelihood import (
    DDPMVLB,
    ContinuousVLB,
    Dequantized,
    ExactTrace,
    Hutchinson,
    LikelihoodMethod,
    Ode,
    Path,
    Probing,
    TraceRule,
    TraceSearch,
    choose_trace,
    fit_gaussian,
    parse_trace,
)
from ...likelihood.trace.names import EXACT_UP_TO
from ...likelihood.vlb.bound import last_time
from ...noise import SampleNoise
from ...score import ScoreModel
from ...score.sets import numbers_of_sets
from ..held_out import to_points
from .request import PROTOCOLS, ScoreRequest

__all__ = ["choose_quadrature", "described", "make_method", "method_for"]

STRATA = 64  # strata of a variational bound
STEPS = 1000  # steps of the chain of a variational bound
LEAST_DRAWS = 4  # draws of a bound: fewer give a standard error of too few degrees of freedom
PILOT = 8  # training data on which trace rules are compared
ENCODED = 256  # data that are encoded at a time
FITTED = 10_000  # largest number of training data to which the Gaussian is fitted
# Limits of the number of nodes: with fewer nodes, the integral of the trace is wrong.
FEWEST_NODES, MOST_NODES = 12, 256


def make_method(
    request: ScoreRequest, spec: DataSpec, model: ScoreModel, training: Dataset | None
) -> tuple[LikelihoodMethod, GaussianMixture | None]:
    """The requested method, and a Gaussian near the data.

    Args:
        request: The request, resolved and checked.
        spec: What the data are.
        model: The checkpoint's model.
        training: Data to which the Gaussian is fitted; None for a variational bound.

    Returns:
        The method and the Gaussian. The Gaussian is None for a variational bound, which does not
        use it, and for sets, whose dimensions differ.
    """
    if training is None:
        return _bound(request, spec, model), None
    points = _points(training, request, spec, model)
    control = _near(model, points, spec)
    if request.of_path:
        pilot = points[:PILOT].to(request.torch_dtype)
        if training.labels is not None:  # the network needs them
            labels = take_rows(training.labels, slice(len(pilot)))
            model = model.given(map_condition(lambda leaf: leaf.to(request.device), labels))
        solver = _path(request, spec, model, pilot, control)
    else:
        names = ("method", "rtol", "atol", "per_sample", "trace", "t_min", "force")
        solver = Ode(**{name: getattr(request, name) for name in names})
    q = PROTOCOLS[request.protocol]
    return Dequantized(spec, solver, q, request.draws, request.torch_dtype), control


def method_for(
    method: LikelihoodMethod,
    request: ScoreRequest,
    spec: DataSpec,
    model: ScoreModel,
    training: Dataset | None,
) -> tuple[LikelihoodMethod, GaussianMixture | None]:
    """The method that was made for one model, for another model of the same data.

    Trace rule and nodes stay, so that the same random numbers serve both models. Only what depends
    on the SDE is made again.

    Args:
        method: The method for the first model.
        request: The request for the other model, resolved and checked.
        spec: What the data are.
        model: The other model.
        training: As for `make_method`.

    Returns:
        As `make_method`.
    """
    if training is None:
        return _bound(request, spec, model), None
    points = _points(training, request, spec, model)
    control = _near(model, points, spec)
    solver = method.method
    if isinstance(solver, Path):
        solver = replace(solver, control=control)
    return replace(method, method=solver), control


def _bound(request: ScoreRequest, spec: DataSpec, model: ScoreModel) -> LikelihoodMethod:
    """The requested variational bound."""
    common = {
        "spec": spec,
        "strata": request.nodes or STRATA,
        "draws": max(request.draws, LEAST_DRAWS),
        "dtype": request.torch_dtype,
    }
    if PROTOCOLS[request.protocol] is ContinuousVLB:
        return ContinuousVLB(t_min=request.t_min, **common)
    if model.sde.levels is not None:
        times = model.sde.levels  # the model's own ladder
    else:
        end = last_time(model.sde, spec) if request.t_min is None else request.t_min
        times = grid.log_snr(model.sde, request.steps or STEPS, end)
    return DDPMVLB(times, variance=request.variance, **common)


def _near(model: ScoreModel, points: Tensor, spec: DataSpec) -> GaussianMixture | None:
    """A Gaussian with the mean and covariance of the data; None for sets of points."""
    return None if spec.kind == "set" else fit_gaussian(model.sde, points).to(points.device)


def _path(
    request: ScoreRequest,
    spec: DataSpec,
    model: ScoreModel,
    pilot: Tensor,
    control: GaussianMixture | None,
) -> Path:
    """The path method; if not given, trace and number of nodes are measured on the pilot data."""
    if request.trace != "auto":
        rule, nodes = parse_trace(request.trace), None
    else:
        sizes = numbers_of_sets(model, pilot)
        dims = spec.nats_per_unit if sizes is None else float(sizes.mean())
        error = request.image_error * dims
        rule, nodes = choose_quadrature(model, pilot, request.t_min, error, request.seed)
    asked = {"steps": request.steps, "nodes": request.nodes or nodes}
    given = {name: value for name, value in asked.items() if value is not None}
    return Path(trace=rule, control=control, t_min=request.t_min, **given)


def _points(training: Dataset, request: ScoreRequest, spec: DataSpec, model: ScoreModel) -> Tensor:
    """Training data at the model's scale, dequantized or encoded, float64."""
    x = training.taken(torch.arange(min(len(training), FITTED))).scaled.x
    if model.decoder is not None:
        return _latents(x.to(request.device), model, request.seed)
    # a separate stream, far from the streams of the scored data
    noise = SampleNoise(request.seed, range(2**63, 2**63 + len(x)))
    return to_points(x.to(request.device), spec, noise, torch.float64)


@torch.no_grad()
def _latents(x: Tensor, model: ScoreModel, seed: int) -> Tensor:
    """Latents of training data, draws of q(z | x), float64."""
    autoencoder, parts = model.decoder.autoencoder, []
    for rows in torch.arange(len(x)).split(ENCODED):
        noise = SampleNoise(seed, [2**63 + row for row in rows.tolist()])
        parts.append(autoencoder.encode(x[rows.to(x.device)], noise).double())
    return torch.cat(parts)


def choose_quadrature(
    model: ScoreModel, x: Tensor, t_min: float, error: float, seed: int
) -> tuple[TraceRule, int]:
    """The trace rule and the number of nodes that reach the wanted error with the least work.

    The rules are measured on a few data. Only rules that can estimate their own error are tried.

    Args:
        model: Score model, labels bound.
        x: Some data at the model's scale.
        t_min: First time.
        error: Wanted standard error of log p of each datum, in nats.
        seed: Seed of the measurement.
    """
    dims = x[0].numel()
    exact = [ExactTrace()] if dims <= EXACT_UP_TO else []
    probing = [Probing(colours, 2) for colours in (2, 4, 8) if colours < dims]
    rules = [*exact, Hutchinson(probes=2), *probing]
    search = TraceSearch(rules, std_error=error, evaluations=FEWEST_NODES)
    best = choose_trace(model, x, search, seed=seed, t_min=t_min).table[0]
    return best.rule, min(max(best.evaluations, FEWEST_NODES), MOST_NODES)


def described(method: LikelihoodMethod) -> dict[str, str]:
    """The method and its trace rule in words, for the results; the protocol's name has neither."""
    match method:
        case DDPMVLB():
            steps = method.times if isinstance(method.times, int) else len(method.times) - 1
            chain = f"chain of {steps} steps, variance {method.variance}"
            return {"method": f"{method.strata} strata, {chain}", "trace": "none"}
        case ContinuousVLB():
            return {"method": f"{method.strata} strata", "trace": "none"}
        case Dequantized(method=Path() as path):
            text = f"path of {path.steps} steps, corrected; divergence at {path.nodes} nodes"
            return {"method": text, "trace": str(path.trace)}
        case Dequantized(method=Ode() as ode):
            steps = "a step size per sample" if ode.per_sample else "one step size per batch"
            text = f"{ode.method}, rtol {ode.rtol:g}, atol {ode.atol:g}, {steps}"
            return {"method": text, "trace": str(ode.trace)}
    raise TypeError(f"no words for the method {method!r}")
