"""Probing: a trace estimate whose variance has no part from neighbouring coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..._tensor import check_integer, plain_numbers
from ...noise import Noise
from .jacobian import Jacobian, quadratic_forms
from .rules import TraceRule, normal_probes

__all__ = ["Probing", "colouring"]


@dataclass(frozen=True)
class Probing(TraceRule):
    """Σ_c v_cᵀ J v_c,  v_c = random signs on the coordinates of colour c, zero elsewhere.

    The variance is 2 Σ S_ij² over i ≠ j of the same colour, with S = (J + Jᵀ)/2. Coordinates of one
    colour are far apart. The cost is C probes. If J couples all coordinates equally, the variance
    is 1/C of Hutchinson's for one probe. If J couples mostly neighbouring pixels, it is far less.

    Tang and Saad 2012, "A probing method for computing the diagonal of a matrix inverse"; with
    random signs and lattices, Stathopoulos, Laeuchli and Orginos 2013, arXiv:1302.4018; colours
    by a linear congruence, Papace et al. 2026, arXiv:2606.00394.

    Args:
        colours: C ≥ 1; 1 is Hutchinson's estimate with signs.
        blocks: Independent estimates, at least 1; 2 or more for a standard error.
    """

    colours: int = 4
    blocks: int = 1

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("colours", self.colours, minimum=1)
        check_integer("blocks", self.blocks, minimum=1)

    @property
    def columns(self) -> int:
        """One number per block."""
        return self.blocks

    def draw(self, noise: Noise | None, x: Tensor) -> Tensor:
        """Random signs for each block, shape (blocks, *x.shape)."""
        z = normal_probes(self.blocks, noise, x)
        return torch.ones_like(z).copysign(z)

    def estimate(self, jacobian: Jacobian, probes: Tensor) -> Tensor:
        """The sum over colours of each block, shape (B, blocks)."""
        colours = colouring(tuple(probes.shape[2:]), self.colours).to(probes.device)
        present = range(int(colours.max()) + 1)  # fewer than `self.colours` if D is small
        total = sum(quadratic_forms(jacobian, probes * (colours == c)) for c in present)
        return total + jacobian.offset

    def cost(self, dims: int) -> int:
        """Colours × blocks."""
        return min(self.colours, dims) * self.blocks


@lru_cache(maxsize=32)
def colouring(shape: tuple[int, ...], colours: int) -> Tensor:
    """Colour a lattice so that coordinates of one colour are far apart:  (k · place) mod C.

    k is a vector of multipliers whose last entry is 1; all choices of the others are tried. The
    best colouring has the largest least distance between two places of one colour. Among equally
    good ones, the colouring with the fewest pairs at this distance is chosen.

    Args:
        shape: Shape of the lattice, (C, H, W) for images; distances on all axes have equal weight.
        colours: C ≥ 1; at most the size of the lattice is used.

    Returns:
        Colours 0 … C − 1, shape `shape`, int64.
    """
    colours = min(colours, math.prod(shape))
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), dim=-1)
    # No colouring of a plane or space with C colours has a least distance beyond this.
    reach = [min(size - 1, math.ceil(2 * colours ** (1 / _axes(shape)))) for size in shape]
    offsets = torch.cartesian_prod(*[torch.arange(-r, r + 1) for r in reach])
    offsets = offsets.reshape(-1, len(shape))[offsets.reshape(-1, len(shape)).any(1)]
    squares = offsets.square().sum(1)
    free = [range(colours) if size > 1 else (0,) for size in shape[:-1]]
    best = max(
        ((*ks, 1) for ks in itertools.product(*free)),
        key=lambda ks: _spacing(offsets, squares, ks, colours),
    )
    return (places * torch.tensor(best)).sum(-1) % colours


def _axes(shape: Sequence[int]) -> int:
    """How many axes are longer than 1; at least 1."""
    return max(1, sum(size > 1 for size in shape))


def _spacing(
    offsets: Tensor, squares: Tensor, multipliers: tuple[int, ...], colours: int
) -> tuple[float, int]:
    """Least squared distance of two places of one colour, and minus the number of nearest pairs."""
    same = (offsets * torch.tensor(multipliers)).sum(1) % colours == 0
    if not bool(same.any()):
        return math.inf, 0
    nearest = int(squares[same].min())
    return nearest, -int((squares[same] == nearest).sum())
