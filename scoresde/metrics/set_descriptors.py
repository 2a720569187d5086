"""Descriptors of sets of points that do not depend on the order of the points."""

from __future__ import annotations

import torch
from torch import Tensor

from .._philox import normals
from .._sets import counted_points
from .estimate import as_rows

__all__ = ["SetDescriptors"]

_DIRECTIONS = 6  # along which the points are sorted, beside the axes
_MOST_AXES = 8  # features whose moments are taken
_QUANTILES = 5  # least, quarters, largest
_BLOCK = 2**22  # distances in memory at a time


class SetDescriptors:
    """Sets of points as vectors, which any metric of vectors can compare.

        n/N                       the number of points
        mean, covariance          of the points, of at most the first 8 features
        sorted projections        5 quantiles of the points along each axis and 6 fixed directions
        distances                 5 quantiles of the distances of all pairs, and of the distances to
                                  the nearest other point

    Each number x is taken as asinh x, which is x for small and log 2x for large x. Otherwise a few
    points far away would decide every distance. The points are standardized by the mean and spread
    of all points of the reference, so that the units of the features do not matter. The order of
    the points and the padding do not matter either. Different sets may have equal descriptors:
    triples of points are seen only as far as pairs and projections tell of them.

    Args:
        reference: Padded sets, shape (m, N, F); zeros follow the last point of each.

    Raises:
        TypeError: If `reference` is not a tensor.
        ValueError: If it is empty or not finite.
    """

    def __init__(self, reference: Tensor) -> None:
        as_rows(reference, "reference", minimum=1)
        self.shape = tuple(reference.shape[1:])
        points, there = _points(reference)
        every = points[there]
        self.mean, std = every.mean(0), every.std(0) if len(every) > 1 else torch.ones(1)
        self.std = std.clamp(min=1e-3 * float(std.max()) or 1.0)
        features = self.shape[1]
        draws = normals(0, 0, "probe", features * _DIRECTIONS).reshape(features, _DIRECTIONS)
        oblique = draws.to(points) / draws.norm(dim=0)
        axes = torch.eye(features, dtype=points.dtype)[:, :_MOST_AXES]
        # On a line all directions are the same.
        self.directions = axes if features == 1 else torch.cat([axes, oblique], 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Descriptors of padded sets (n, N, F), shape (n, k), float64.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If it is empty, not finite or of another shape than the reference.
        """
        as_rows(x, minimum=1)
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x must have shape (n, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}"
            )
        size = max(1, _BLOCK // self.shape[0] ** 2)
        return torch.cat([self._block(block) for block in x.cpu().split(size)])

    def _block(self, x: Tensor) -> Tensor:
        points, there = _points(x)
        points = (points - self.mean) / self.std * there[:, :, None]
        n = there.sum(1, keepdim=True).double()
        few = points[:, :, :_MOST_AXES]
        mean = few.sum(1) / n
        gaps = (few - mean[:, None]) * there[:, :, None]
        cov = torch.einsum("bnf,bng->bfg", gaps, gaps) / n[:, :, None]
        upper = torch.triu_indices(few.shape[2], few.shape[2])
        along = _quantiles((points @ self.directions).mT, there[:, None])
        distances = torch.cdist(points, points)
        first, second = torch.triu_indices(x.shape[1], x.shape[1], 1)
        pairs = _quantiles(distances[:, first, second], there[:, first] & there[:, second])
        apart = there[:, :, None] & there[:, None] & ~torch.eye(x.shape[1], dtype=torch.bool)
        nearest = torch.where(apart, distances, torch.inf).amin(2)
        near = _quantiles(nearest, there & nearest.isfinite())
        parts = [n / x.shape[1], mean, cov[:, upper[0], upper[1]], along.flatten(1), pairs, near]
        return torch.asinh(torch.cat(parts, 1))


def _points(x: Tensor) -> tuple[Tensor, Tensor]:
    """The points in float64, and which of them exist, shapes (B, N, F) and (B, N)."""
    x = x.detach().cpu().double()
    return x, torch.arange(x.shape[1]) < counted_points(x)[:, None]


def _quantiles(values: Tensor, there: Tensor) -> Tensor:
    """Quantiles of the values that exist, along the last axis; 0 if there are none.

    Args:
        values: Shape (..., K).
        there: Which of them exist, broadcastable to values.
    """
    there = there.expand(values.shape)
    ordered = torch.where(there, values, torch.inf).sort(-1).values
    last = (there.sum(-1, keepdim=True) - 1).clamp(min=0)
    places = torch.linspace(0, 1, _QUANTILES, dtype=values.dtype) * last
    low, high = places.floor().long(), places.ceil().long()
    below, above = ordered.gather(-1, low), ordered.gather(-1, high)
    found = torch.lerp(below, above, places - low)
    return torch.where(there.any(-1, keepdim=True), found, 0.0)
