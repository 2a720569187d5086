"""Objectives that `objectives.py` compares with those of the package and that did not win.

- `P2`: perception prioritized weighting, Choi et al. 2022, arXiv:2204.00227.
- `Uncertainty`: the loss over its own mean at each noise level. Karras et al. 2024,
  arXiv:2312.02696, train u(σ) together with the network on E[λ(σ) |D − y|²/e^{u(σ)} + u(σ)]. For
  a given network the minimum over u is the logarithm of the mean loss at σ. Here this mean is
  measured in bins of λ.
- `FirstMoment`: as the times `second_moment`, with density ∝ E[L] instead of √E[L²].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.error_history import ErrorHistory
from scoresde.loss import Objective
from scoresde.score import ScoreModel
from scoresde.sde import Node

__all__ = ["P2", "FirstMoment", "Uncertainty"]


class MeanHistory(ErrorHistory):
    """Running means of the error e itself."""

    def add(self, t: Tensor, errors: Tensor) -> None:
        """Add errors; `squares` then holds the means of e."""
        super().add(t, errors.sqrt())

    def draw(self, u: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Places with density ∝ scale · E[e]."""
        return super().draw(u, scale * self.squares.sqrt())


@dataclass(frozen=True)
class FirstMoment(Objective):
    """Times with density ∝ E[L]."""

    def new_history(self, model: ScoreModel) -> ErrorHistory:
        """Means of e instead of e²."""
        return MeanHistory(model.sde, self.t_min)


@dataclass(frozen=True)
class P2(Objective):
    """Factor 1/(1 + SNR)^power of the error of ε."""

    power: float = 1.0

    def weight(self, node: Node) -> Tensor:
        """(1 + α²/σ²)^−power."""
        return (1 + (node.alpha / node.sigma) ** 2) ** -self.power


@dataclass(frozen=True)
class Uncertainty(Objective):
    """The error of ε over its running mean at this λ; the weighting does not matter."""

    def new_history(self, model: ScoreModel) -> ErrorHistory:
        """Means of e."""
        return MeanHistory(model.sde, self.t_min)

    def __call__(
        self,
        model: ScoreModel,
        x0: Tensor,
        u: Tensor,
        eps: Tensor,
        history: ErrorHistory | None = None,
    ) -> tuple[Tensor, ...]:
        """Losses, times and errors."""
        losses, t, errors = super().__call__(model, x0, u, eps)
        if history is None:
            return losses, t, errors
        seen = history.counts >= 10  # the others, at rare times, keep the mean 1
        log_mean = torch.where(seen, history.squares.clamp(min=1e-12).log(), 0.0)
        centres = history.centres
        # Linear between the centres of the bins.
        place = ((model.sde.lam(t) - centres[0]) / (centres[1] - centres[0])).clamp(min=0)
        low = place.long().clamp(max=len(centres) - 2)
        log_mean = torch.lerp(log_mean[low], log_mean[low + 1], (place - low).clamp(max=1))
        return losses * torch.exp(-log_mean).to(losses), t, errors
