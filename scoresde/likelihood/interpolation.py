"""Paths between data, by interpolation of their latent codes; with log-density along the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._condition import Condition, take_rows
from .._tensor import check_integer, check_type
from ..batches import batches
from ..data.spec import DataSpec
from ..evaluation import own_context
from ..score import ScoreModel
from ..score.units import in_model_scale, log_det_at, to_model_scale, to_units
from .latent import Coded, apart, decode, encode, flat_numbers
from .method import Likelihood, joined
from .methods import as_method
from .ode import Ode

__all__ = [
    "Interpolation",
    "ScoredInterpolation",
    "interpolate",
    "interpolate_with_log_prob",
    "spherical_interpolation",
]


@dataclass(frozen=True)
class Interpolation(Coded):
    """Paths of shape (B, steps, *D) and their codes, the result of `interpolate`.

    Attributes:
        fractions: Position of each point on its path, 0 … 1, shape (steps,), float64.
        error: max |x − datum| at both ends of each path at the model's scale (the solver's error),
            (B, 2), float64.
    """

    fractions: Tensor
    error: Tensor


@dataclass(frozen=True)
class ScoredInterpolation(Interpolation):
    """Paths with the log-density of every point, the result of `interpolate_with_log_prob`.

    Attributes:
        log_prob: log p(x) of each point in nats, the density in the units of x, shape (B, steps),
            float64.
        std_error: Standard error of `log_prob` from the probes of the trace, in nats, shape
            (B, steps): 0 for an exact trace, NaN for a single probe.
        nfe_derivative: Derivative passes per point, counted; the largest if batches differ.
        likelihood: The same as the result of `sample_with_log_prob` for all points in one row,
            shape (B · steps,).
    """

    log_prob: Tensor
    std_error: Tensor
    nfe_derivative: int
    likelihood: Likelihood

    def bits_per_dim(self, spec: DataSpec) -> Tensor:
        """Bits per dimension of quantized data, shape (B, steps); see `Likelihood.bits_per_dim`."""
        return self.likelihood.bits_per_dim(spec).reshape(self.log_prob.shape)


class _Codes(NamedTuple):
    """The codes of paths, before they are decoded.

    Attributes:
        ends: First and last points at the model's scale.
        latent: Shape (B, steps, *D).
        fractions: Shape (steps,).
        y: The condition of each point, B · steps rows, or None.
        nfe: Evaluations of the encoding.
    """

    ends: tuple[Tensor, Tensor]
    latent: Tensor
    fractions: Tensor
    y: Condition | None
    nfe: int

    def decoded(self, model: ScoreModel, z: Tensor) -> dict[str, Any]:
        """The fields of `Interpolation` that follow from decoded points, shape (B · steps, *D)."""
        path = z.reshape(self.latent.shape)
        errors = [apart(self.ends[i], path[:, -i]).amax(1) for i in (0, 1)]
        return {
            "x": to_units(model, z, self.y).reshape(self.latent.shape),
            "latent": self.latent,
            "fractions": self.fractions,
            "error": torch.stack(errors, dim=1),
        }


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
    codes = _codes(model, x_a, x_b, steps, method, y, batch)
    start = codes.latent.flatten(0, 1)
    back = decode(in_model_scale(model), start, method, y=codes.y, batch=batch)
    return Interpolation(
        **codes.decoded(model, back.x),
        nfe=codes.nfe + back.nfe,
        t_min=back.t_min,
        method=back.method,
    )


@own_context()
def interpolate_with_log_prob(
    model: ScoreModel,
    x_a: Tensor,
    x_b: Tensor,
    steps: int = 8,
    method: Ode | str = Ode(),
    *,
    seed: int | None = None,
    y: Condition | None = None,
    batch: int | None = None,
) -> ScoredInterpolation:
    """`interpolate`, with log p(x) of every point of the paths.

        log p(x(t_min)) = log N(x(1); 0, prior_std² I) + ∫ tr ∂h/∂x dt   over [t_min, 1]

    The solve that decodes a code also computes the integral, as in `sample_with_log_prob`: the
    density costs derivative passes but no further evaluations. The points of a path are those of
    `interpolate` within the tolerance.

    Args:
        model: Score model.
        x_a: As for `interpolate`.
        x_b: As for `interpolate`.
        steps: As for `interpolate`.
        method: Solver, tolerances, t_min and trace, or its text.
        seed: Integer in [0, 2^64) for the probes; not needed for an exact trace, which is the
            default up to 16 dimensions. Point j of path i has the stream (seed, i · steps + j).
        y: As for `interpolate`; log p is then log p(x | y).
        batch: As for `encode`.

    Returns:
        The paths with log p in nats, its standard error and its cost.

    Raises:
        TypeError: As for `interpolate`.
        ValueError: As for `interpolate`, or if probes are needed and no seed is given.
        RuntimeError: As for `encode`.
    """
    method = as_method(method, Ode)
    method.check(model, x_a)
    if seed is None and method.needs_noise(x_a):
        raise ValueError("seed must be given for the probes of the trace, got None")
    codes = _codes(model, x_a, x_b, steps, method, y, batch)
    start, parts, ends = codes.latent.flatten(0, 1), [], []
    given = {"seed": seed, "y": codes.y, "batch": batch, "random": False}
    for part in batches(model, len(start), start.device, **given):
        z, found = method.draw(part, start[part.rows])
        log_det = log_det_at(part.model, z)
        parts.append(found if log_det is None else found.shifted(log_det))
        ends.append(z.to(start.dtype))
    likelihood = joined(parts)
    shape = codes.latent.shape[:2]
    return ScoredInterpolation(
        **codes.decoded(model, torch.cat(ends)),
        nfe=codes.nfe + likelihood.nfe,
        t_min=likelihood.t_min,
        method=likelihood.method,
        log_prob=likelihood.log_prob.reshape(shape),
        std_error=likelihood.std_error.reshape(shape),
        nfe_derivative=likelihood.nfe_derivative,
        likelihood=likelihood,
    )


def _codes(
    model: ScoreModel,
    x_a: Tensor,
    x_b: Tensor,
    steps: int,
    method: Ode | str,
    y: Condition | None,
    batch: int | None,
) -> _Codes:
    """Check the arguments of a path, encode its ends, and interpolate their codes."""
    check_type("model", model, ScoreModel)
    steps = check_integer("steps", steps, minimum=2)
    if x_a.shape != x_b.shape or x_a.dtype != x_b.dtype:
        raise ValueError(
            f"x_b must have shape and dtype of x_a, got {tuple(x_b.shape)} {x_b.dtype} and "
            f"{tuple(x_a.shape)} {x_a.dtype}"
        )
    z_a, z_b = (to_model_scale(model, end, y)[0] for end in (x_a, x_b))
    y = model.labelled(y, len(x_a), x_a.device).y
    rows = torch.arange(len(x_a), device=x_a.device)
    of_ends = None if y is None else take_rows(y, rows.repeat(2))
    ends = torch.cat([z_a, z_b])
    there = encode(in_model_scale(model), ends, method, y=of_ends, batch=batch)
    fractions = torch.linspace(0, 1, steps, dtype=torch.float64, device=x_a.device)
    latent = spherical_interpolation(*there.latent.chunk(2), fractions)
    of_points = None if y is None else take_rows(y, rows.repeat_interleave(steps))
    return _Codes((z_a, z_b), latent, fractions, of_points, there.nfe)


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
    u, v = (flat_numbers(end)[:, None] for end in (a, b))
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
