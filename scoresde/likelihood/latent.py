"""Latent codes by the probability-flow ODE: encode, decode, round trips, and interpolation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._condition import Condition, take_rows
from .._tensor import check_integer, check_type
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
    "Encoding",
    "Interpolation",
    "RoundTrip",
    "decode",
    "encode",
    "interpolate",
    "round_trip",
    "spherical_interpolation",
]


@dataclass(frozen=True)
class _Coded:
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
class Encoding(_Coded):
    """Data, codes and the `counts` of each sample's solve, what `encode` and `decode` return."""

    counts: Counts


@dataclass(frozen=True)
class RoundTrip(_Coded):
    """Data, their codes and the decoded codes, the result of `round_trip`.

    Attributes:
        decoded: The decoded codes, like x; x itself if both solves were exact.
        error: max |x − decoded| of each datum at the model's scale, shape (B,), float64.
        rms: √mean (x − decoded)² of each datum at the model's scale, shape (B,), float64.
    """

    decoded: Tensor
    error: Tensor
    rms: Tensor


@dataclass(frozen=True)
class Interpolation(_Coded):
    """Paths of shape (B, steps, *D) and their codes, the result of `interpolate`.

    Attributes:
        fractions: Position of each point on its path, 0 … 1, shape (steps,), float64.
        error: max |x − datum| at both ends of each path at the model's scale (the solver's error),
            (B, 2), float64.
    """

    fractions: Tensor
    error: Tensor


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
        z: Latent codes with standard deviation `model.sde.prior_std`, shape (B, *D).
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
    apart = _apart(to_model_scale(model, x, y)[0], back.x)
    return RoundTrip(
        x=x,
        latent=there.latent,
        decoded=to_units(model, back.x, y),
        error=apart.amax(1),
        rms=apart.square().mean(1).sqrt(),
        nfe=there.nfe + back.nfe,
        t_min=back.t_min,
        method=back.method,
    )


@own_context()
def interpolate(
    model: ScoreModel,
    x_a: Tensor,
    x_b: Tensor,
    steps: int = 8,
    method: Ode | str = Ode(),
    *,
    y: Condition | None = None,
    batch: int | None = None,
) -> Interpolation:
    """Paths between data: `spherical_interpolation` of their latent codes, decoded.

    Song et al. 2021, arXiv:2011.13456, section 4.3, for latent codes by the probability-flow ODE.

    Args:
        model: Score model.
        x_a: First points of the paths in units, shape (B, *D).
        x_b: Last points of the paths, shape (B, *D).
        steps: Points of a path, both ends included, at least 2.
        method: As for `encode`; max_nfe limits encoding and decoding separately.
        y: Condition, one per path, because each condition has its own flow.
        batch: As for `encode`.

    Returns:
        The paths, with the error at their ends.

    Raises:
        TypeError: As for `encode`, or if steps is not an integer.
        ValueError: As for `encode`, if x_a and x_b differ in shape or dtype, or steps < 2.
        RuntimeError: As for `encode`.
    """
    check_type("model", model, ScoreModel)
    steps = check_integer("steps", steps, minimum=2)
    if x_a.shape != x_b.shape or x_a.dtype != x_b.dtype:
        raise ValueError(
            f"x_b must have shape and dtype of x_a, got {tuple(x_b.shape)} {x_b.dtype} and "
            f"{tuple(x_a.shape)} {x_a.dtype}"
        )
    z_a, z_b = (to_model_scale(model, end, y)[0] for end in (x_a, x_b))
    bare = in_model_scale(model)
    y = model.labelled(y, len(x_a), x_a.device).y
    rows = torch.arange(len(x_a), device=x_a.device)
    of_ends = None if y is None else take_rows(y, rows.repeat(2))
    there = encode(bare, torch.cat([z_a, z_b]), method, y=of_ends, batch=batch)
    fractions = torch.linspace(0, 1, steps, dtype=torch.float64, device=x_a.device)
    latent = spherical_interpolation(*there.latent.chunk(2), fractions)
    of_points = None if y is None else take_rows(y, rows.repeat_interleave(steps))
    back = decode(bare, latent.flatten(0, 1), method, y=of_points, batch=batch)
    z = back.x.reshape(latent.shape)
    return Interpolation(
        x=to_units(model, back.x, of_points).reshape(latent.shape),
        latent=latent,
        fractions=fractions,
        error=torch.stack([_apart(z_a, z[:, 0]).amax(1), _apart(z_b, z[:, -1]).amax(1)], dim=1),
        nfe=there.nfe + back.nfe,
        t_min=back.t_min,
        method=back.method,
    )


def spherical_interpolation(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Paths from a to b: the direction turns and the norm changes, both at a constant rate.

        z(s) = r(s) [sin((1 − s) θ) a/|a| + sin(s θ) b/|b|]/sin θ,   r(s) = (1 − s) |a| + s |b|

    with θ the angle between a and b. In high dimension nearly all mass of N(0, I) lies near a
    sphere, and so does z. A straight line would pass inside the sphere, where the prior has almost
    no mass.
    Shoemake 1985, "Animating rotation with quaternion curves"; for latent codes, White 2016,
    arXiv:1609.04468. The path does not depend on the unit of a and b.

    If sin θ < 1e-6, a = 0 or b = 0, the path is straight. For parallel codes this is the limit of
    the formula. Opposite codes have no unique great circle, and in one dimension there is no other
    path.

    Args:
        a: First points of the paths (s = 0), shape (B, *D).
        b: Last points of the paths (s = 1), shape (B, *D).
        fractions: s, shape (S,), float64.

    Returns:
        Shape (B, S, *D), in the dtype of a; a itself at s = 0 and b itself at s = 1.
    """
    u, v = (_flat(end)[:, None] for end in (a, b))
    norm_u, norm_v = (end.norm(dim=2, keepdim=True) for end in (u, v))
    flat = (norm_u == 0) | (norm_v == 0)
    size_u, size_v = (torch.where(flat, 1.0, norm) for norm in (norm_u, norm_v))
    # accurate for all angles, unlike the arc cosine of the scalar product
    sides = [(u / size_u + sign * v / size_v).norm(dim=2, keepdim=True) for sign in (-1, 1)]
    theta = 2 * torch.atan2(*sides)
    flat |= theta.sin() < 1e-6  # below this, rounding hides the great circle
    s = fractions.to(u)[:, None]
    sine = torch.where(flat, 1.0, theta.sin())
    norm = (1 - s) * norm_u + s * norm_v
    weight_u = norm / size_u * ((1 - s) * theta).sin() / sine
    weight_v = norm / size_v * (s * theta).sin() / sine
    path = torch.where(flat, 1 - s, weight_u) * u + torch.where(flat, s, weight_v) * v
    return path.reshape(len(a), len(fractions), *a.shape[1:]).to(a.dtype)


def _apart(x: Tensor, other: Tensor) -> Tensor:
    """|x − other| in float64, shape (B, D)."""
    return (_flat(x) - _flat(other)).abs()


def _flat(x: Tensor) -> Tensor:
    """The numbers of each sample in float64, shape (B, D)."""
    return flat_rows(x).to(torch.float64)
