"""Latent codes by the probability-flow ODE: encode, decode, and round trips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._condition import Condition
from .._tensor import check_type
from ..batches import batches
from ..evaluation import own_context
from ..ivp import Counts
from ..score import ScoreModel
from ..score.sets import check_padding
from ..score.units import in_model_scale, to_model_scale, to_units
from .method import joined
from .methods import as_method
from .ode import Ode
from .trace.jacobian import flat_rows

__all__ = [
    "Coded",
    "Encoding",
    "RoundTrip",
    "apart",
    "decode",
    "encode",
    "flat_numbers",
    "round_trip",
]


@dataclass(frozen=True)
class Coded:
    """Data with latent codes, and their cost.

    Attributes:
        x: Data at t_min in their units, shape (B, *D).
        latent: Their codes, the state at t = 1 at the model's scale, like x.
        nfe: Network evaluations per sample in all solves, counted; the largest if batches differ.
        t_min: Time of the data.
        method: Solver and tolerances.
    """

    x: Tensor
    latent: Tensor
    nfe: int
    t_min: float
    method: Ode


@dataclass(frozen=True)
class Encoding(Coded):
    """Data, codes and the `counts` of each sample's solve, what `encode` and `decode` return."""

    counts: Counts


@dataclass(frozen=True)
class RoundTrip(Coded):
    """Data, their codes and the decoded codes, the result of `round_trip`.

    Attributes:
        decoded: The decoded codes, like x; x itself if both solves were exact.
        error: max |x − decoded| of each datum at the model's scale, shape (B,), float64.
        rms: √mean (x − decoded)² of each datum at the model's scale, shape (B,), float64.
    """

    decoded: Tensor
    error: Tensor
    rms: Tensor


def encode(
    model: ScoreModel,
    x: Tensor,
    method: Ode | str = Ode(),
    *,
    y: Condition | None = None,
    batch: int | None = None,
) -> Encoding:
    """The latent code x(1) of data x, without a likelihood: no derivative passes.

        dx/dt = f x − ½ g² score(x, t)   from x(t_min) = x up to t = 1

    Song et al. 2021, arXiv:2011.13456, section 4.3 and eq. (13).

    Args:
        model: Score model.
        x: Data in units, shape (B, *D), float32 or float64.
        method: Solver, tolerances and t_min, or its text; trace and control are not used.
        y: Condition of the data, which a conditional model needs; see `ScoreModel.labelled`.
        batch: Samples at a time; None = all at once.

    Returns:
        Data and codes with the cost; empty for B = 0.

    Raises:
        TypeError: If x is neither float32 nor float64, or the method is not an `Ode`.
        ValueError: On a bad argument, or a tolerance below 1e-7 in float32.
        RuntimeError: If the network is not finite, the solver gives up or `max_nfe` is exceeded.
    """
    check_type("model", model, ScoreModel)
    as_method(method, Ode).check_solve(model, x)
    z, _ = to_model_scale(model, x, y)
    return replace(_carried(model, z, method, y, batch, down=False), x=x)


def decode(
    model: ScoreModel,
    z: Tensor,
    method: Ode | str = Ode(),
    *,
    y: Condition | None = None,
    batch: int | None = None,
) -> Encoding:
    """The data x(t_min) whose latent code is z: the inverse of `encode`.

        dx/dt = f x − ½ g² score(x, t)   from x(1) = z down to t_min

    Args:
        model: Score model.
        z: Latent codes, of standard deviation `sde.start_std(model.t_most)`: `prior_std` at t = 1;
            shape (B, *D).
        method: As for `encode`.
        y: As for `encode`.
        batch: As for `encode`.

    Returns:
        As for `encode`.

    Raises:
        TypeError: As for `encode`.
        ValueError: As for `encode`.
        RuntimeError: As for `encode`.
    """
    found = _carried(model, z, method, y, batch, down=True)
    return replace(found, x=to_units(model, found.x, y))


@own_context()
def _carried(
    model: ScoreModel,
    start: Tensor,
    method: Ode | str,
    y: Condition | None,
    batch: int | None,
    down: bool,
) -> Encoding:
    """`encode`, or `decode` if `down`, with data at the model's scale."""
    check_type("model", model, ScoreModel)
    method = as_method(method, Ode)
    method.check_solve(model, start)
    t_min, parts = model.first_time(method.t_min), []
    for part in batches(model, len(start), start.device, y=y, batch=batch, random=False):
        first = start[part.rows]
        check_padding(part.model, first, "z" if down else "x")
        end = method.solve(part, first, down=down)
        last = end.x.to(start.dtype)
        x, latent = (last, first) if down else (first, last)
        parts.append(Encoding(x, latent, end.nfe, t_min, method, end.counts))
    return joined(parts)


def round_trip(
    model: ScoreModel,
    x: Tensor,
    method: Ode | str = Ode(),
    *,
    y: Condition | None = None,
    batch: int | None = None,
) -> RoundTrip:
    """Encode x, decode the code, and compare the result with x.

    This checks the solver without an exact density. The flow of the ODE is one-to-one, so that the
    difference is the solver's error. Decoding enlarges the error of the code where the flow moves
    neighbouring points apart.

    Arguments and errors are those of `encode`.
    """
    there = encode(model, x, method, y=y, batch=batch)
    back = decode(in_model_scale(model), there.latent, method, y=y, batch=batch)
    gap = apart(to_model_scale(model, x, y)[0], back.x)
    return RoundTrip(
        x=x,
        latent=there.latent,
        decoded=to_units(model, back.x, y),
        error=gap.amax(1),
        rms=gap.square().mean(1).sqrt(),
        nfe=there.nfe + back.nfe,
        t_min=back.t_min,
        method=back.method,
    )


def apart(x: Tensor, other: Tensor) -> Tensor:
    """|x − other| in float64, shape (B, D)."""
    return (flat_numbers(x) - flat_numbers(other)).abs()


def flat_numbers(x: Tensor) -> Tensor:
    """The numbers of each sample in float64, shape (B, D)."""
    return flat_rows(x).to(torch.float64)
