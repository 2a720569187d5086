"""Where the error of samples comes from: steps, last time, initial distribution, or network.

The error is split by a chain of better and better samples of one model, each measured by the same
metric against the same data:

    x            the samples of a sampler
    solution     the exact solution of the ODE from the same x_T, to the last time and denoised
    to_zero      the exact solution to a much smaller last time
    true_start   that solution from noised real data, x_T = α(1) x_0 + σ(1) ε, instead of the prior

The differences of neighbours are the errors of the steps, of stopping early, and of the initial
distribution. What remains is the error of the network, which no sampler can remove.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..metrics import Estimate, difference
from ..output.parts import load_part, save_part
from .checked import estimates_from_json, estimates_to_json
from .influences import influence_arrays, with_influences

__all__ = [
    "SOLUTION",
    "TRUE_START",
    "Decomposition",
    "decompose",
    "read_solution",
    "save_solution",
]

SOLUTION, TRUE_START = "solution.npz", "true_start.npz"


@dataclass(frozen=True)
class Decomposition:
    """The error of samples as a sum:  total = steps + early_stopping + initial + network.

    Attributes:
        total: The metric of the samples.
        steps: Part of the finite steps; negative if the samples are better than the solution.
        early_stopping: Part of the last time and of the denoising there; None if not measured.
            It then belongs to `network`.
        initial: Part of the prior, which differs from the noised data; None if not measured. It
            then belongs to `network`.
        network: The rest: the metric of the best samples of the chain.
    """

    total: Estimate
    steps: Estimate
    network: Estimate
    early_stopping: Estimate | None = None
    initial: Estimate | None = None

    @property
    def gain(self) -> float:
        """The most that more steps can gain: the upper end of the 95 % interval, at least 0."""
        return max(self.steps.interval()[1], 0.0)

    @property
    def network_is_larger(self) -> bool:
        """Whether the network's own error is shown to exceed all that more steps can gain."""
        return self.network.interval()[0] > self.gain

    @property
    def rows(self) -> list[tuple[str, Estimate]]:
        """Name and value of each measured part, in the order of the sampling."""
        parts = {
            "initial distribution": self.initial,
            "steps": self.steps,
            "early stopping": self.early_stopping,
            "network": self.network,
            "total": self.total,
        }
        return [(name, part) for name, part in parts.items() if part is not None]


def decompose(
    total: Estimate,
    solution: Estimate,
    to_zero: Estimate | None = None,
    true_start: Estimate | None = None,
) -> Decomposition:
    """Split the error of samples; all estimates are of one metric and one reference.

    The metric should be unbiased (MMD²): in a biased one the network's part includes the bias. For
    a stochastic sampler the part of the steps includes the difference between the solutions of the
    SDE and of the ODE, which are equal in distribution only for an exact score.

    Args:
        total: Metric of the samples.
        solution: Metric of the exact solution from the same x_T.
        to_zero: Metric of the exact solution from the same x_T to a smaller last time.
        true_start: Metric of the last of these solutions, but from noised real data. These data
            must not be those of the reference. If there are as many as samples, row i of both may
            share ε, and the error of the difference takes this into account.

    Raises:
        ValueError: If the metrics, features or sizes differ.
    """
    steps, best = difference(total, solution), solution
    early = initial = None
    if to_zero is not None:
        early, best = difference(best, to_zero), to_zero
    if true_start is not None:
        same = best.n == true_start.n
        initial, best = difference(best, true_start, paired=same), true_start
    return Decomposition(total, steps, best, early, initial)


def save_solution(
    folder: Path, made_from: str, metrics: Mapping[str, Estimate], name: str = SOLUTION
) -> None:
    """Write the quality metrics of the reference solution.

    Args:
        folder: The comparison's folder.
        made_from: Fingerprint of everything that determines the numbers.
        metrics: Estimates by name.
        name: Name of the file: `SOLUTION`, or `TRUE_START` for the one from noised data.
    """
    arrays = influence_arrays(metrics)
    save_part(folder / name, made_from, arrays, estimates_to_json(metrics))


def read_solution(folder: Path, name: str = SOLUTION) -> dict[str, Estimate]:
    """The quality metrics of the reference solution by name; empty without such a file.

    Raises:
        ValueError: If the file does not hold such metrics.
    """
    path = folder / name
    if not path.is_file():
        return {}
    part = load_part(path)
    if part is None:
        raise ValueError(f"{path} is damaged; the command that made it makes it again")
    return with_influences(estimates_from_json(part.about, str(path)), part.arrays, str(path))
