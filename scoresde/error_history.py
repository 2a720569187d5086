"""The error of a network at each noise level, measured during its training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .sde import SDE

__all__ = ["ErrorHistory"]

_BINS = 50
_FULL = 10  # errors in every bin before they are used, as in the paper
_DECAY = 0.99  # for each error: the running mean forgets after about 100 of them
_UNIFORM = 0.01  # share of the draws that stays uniform, so that no factor exceeds 100


class ErrorHistory:
    """Running means of the squared error e² in 50 bins of λ, with e = |ε̂ − ε|²/D.

    From them come times whose density is proportional to √E[L²] (Nichol and Dhariwal 2021,
    arXiv:2102.09672, section 3.3). The paper keeps the last 10 losses of each of 4,000 steps. Here
    the bins have equal lengths in λ, and a running mean takes the place of the list.

    Attributes:
        counts: Number of errors seen in each bin, shape (50,), float64.
        squares: Running mean of e² in each bin, shape (50,), float64.
    """

    def __init__(self, sde: SDE, t_min: float) -> None:
        """An empty history.

        Args:
            sde: The forward process.
            t_min: Smallest time, in [0, 1), with σ(t_min) > 0.
        """
        self.sde = sde
        first, last = sde.nodes([sde.t_regular, t_min])
        self._first, self._last = first.lam, last.lam
        self.counts = torch.zeros(_BINS, dtype=torch.float64)
        self.squares = torch.zeros(_BINS, dtype=torch.float64)

    @property
    def full(self) -> bool:
        """Whether every bin has seen at least 10 errors."""
        return bool((self.counts >= _FULL).all())

    @property
    def centres(self) -> Tensor:
        """λ at the centre of each bin, shape (50,), float64."""
        place = (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
        return self._first + place * (self._last - self._first)

    def add(self, t: Tensor, errors: Tensor) -> None:
        """Add the errors of a batch.

        Args:
            t: Times, shape (B,).
            errors: |ε̂ − ε|²/D, shape (B,).
        """
        place = (self.sde.lam(t.cpu()) - self._first) / (self._last - self._first)
        bins = (place * _BINS).long().clamp(0, _BINS - 1)
        n = torch.bincount(bins, minlength=_BINS).double()
        sums = torch.bincount(bins, errors.cpu().double().square(), _BINS)
        # The first errors of a bin count as in a plain mean.
        share = torch.maximum(1 - _DECAY**n, n / (self.counts + n).clamp(min=1))
        self.squares += share * (sums / n.clamp(min=1) - self.squares)
        self.counts += n

    def draw(self, u: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Places in λ whose density is proportional to scale · √E[e²]; uniform until `full`.

        Args:
            u: Uniform draws in [0, 1], shape (B,), float64.
            scale: Loss per unit of e and of λ at the centres of the bins, shape (50,).

        Returns:
            Places in [0, 1], where 0 is λ(1) and 1 is λ(t_min), and their density, each (B,).
        """
        if not self.full:
            return u, torch.ones_like(u)
        size = scale * self.squares.sqrt()
        shares = (_UNIFORM / _BINS + (1 - _UNIFORM) * size / size.sum()).to(u.device)
        ends = shares.cumsum(0)
        bins = torch.searchsorted(ends, u, right=True).clamp(max=_BINS - 1)
        inside = (1 - (ends[bins] - u) / shares[bins]).clamp(0, 1)
        return (bins + inside) / _BINS, shares[bins] * _BINS

    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint."""
        return {"counts": self.counts, "squares": self.squares}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the state that `tensors` gave.

        Raises:
            LookupError: If a tensor is missing.
            ValueError: If a tensor has another shape, or a negative value.
        """
        for name, own in self.tensors().items():
            value = tensors[name]
            if value.shape != own.shape or not bool((value >= 0).all()):
                raise ValueError(f"{name} must be {_BINS} numbers of at least 0")
            own.copy_(value)
