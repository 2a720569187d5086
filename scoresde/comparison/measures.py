"""The quality metrics of a comparison by name: which function measures which of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..metrics import (
    Balls,
    CubicKernel,
    DescriptorFeatures,
    Estimate,
    GaussianKernel,
    GaussianStats,
    KernelReference,
    classifier_accuracy,
    density_coverage,
    frechet_distance,
    frechet_extrapolated,
    mmd2,
    precision_recall,
    sliced_wasserstein,
)
from ..metrics.copying import nearer, nearest

__all__ = ["DEFAULT_METRICS", "QUALITY_METRICS", "RealData", "check_metrics", "measured"]


@dataclass(frozen=True)
class RealData:
    """The data with which samples are compared.

    Attributes:
        x: Reference at the model's scale, shape (m, *D).
        rows: The reference in feature space, shape (m, d).
        held_out: Other real data in feature space, shape (l, d).
        kernel: Kernel of MMD².
        label: Label of the feature space.
        train: The training data in feature space among which copies are searched, shape (t, d).
        fresh: The held-out data at the model's scale, shape (l, *D).
        guard: Descriptors in which a classifier tells samples from data; None for the features
            themselves, if these see gross failures of any data.
        statistics: Statistics that replace the rows in the Fréchet distance; None for none.
    """

    x: Tensor
    rows: Tensor
    held_out: Tensor
    kernel: CubicKernel | GaussianKernel
    label: str
    train: Tensor
    fresh: Tensor
    guard: DescriptorFeatures | None = None
    statistics: GaussianStats | None = None

    @property
    def gaussian(self) -> Tensor | GaussianStats:
        """The reference of the Fréchet distance."""
        return self.rows if self.statistics is None else self.statistics

    @cached_property
    def summed(self) -> KernelReference:
        """The reference of MMD², with the sums of its kernel matrix."""
        return KernelReference.of(self.rows, self.kernel)

    @cached_property
    def three(self) -> Balls:
        """Balls of the reference for precision and recall."""
        return Balls.around(self.rows, 3)

    @cached_property
    def five(self) -> Balls:
        """Balls of the reference for density and coverage."""
        return Balls.around(self.rows, 5)

    @cached_property
    def guarded(self) -> Tensor:
        """The reference in the space of the classifier, shape (m, d)."""
        return self.rows if self.guard is None else self.guard(self.x)

    def told_apart(self, x: Tensor, rows: Tensor) -> Estimate:
        """How well a classifier tells samples from data; see `measured`."""
        return classifier_accuracy(rows if self.guard is None else self.guard(x), self.guarded)

    @cached_property
    def new(self) -> Tensor:
        """Distances of the held-out data to the nearest training data."""
        return nearest(self.held_out, self.train)


# Each function gets the real data, and samples at the model's scale and in feature space.
_Measure = Callable[[RealData, Tensor, Tensor], Sequence[Estimate]]
_MEASURES: dict[tuple[str, ...], _Measure] = {
    ("mmd2",): lambda real, x, rows: [mmd2(rows, real.summed)],
    ("frechet",): lambda real, x, rows: [frechet_distance(rows, real.gaussian, space=real.label)],
    ("frechet_inf",): lambda real, x, rows: [
        frechet_extrapolated(rows, real.gaussian, space=real.label)
    ],
    ("sliced_w2",): lambda real, x, rows: [sliced_wasserstein(x, real.x)],
    ("precision", "recall"): lambda real, x, rows: precision_recall(rows, real.three),
    ("clipped_density", "clipped_coverage"): lambda real, x, rows: density_coverage(
        rows, real.five
    ),
    ("copying",): lambda real, x, rows: [nearer(nearest(rows, real.train), real.new)],
    ("classifier",): lambda real, x, rows: [real.told_apart(x, rows)],
}
QUALITY_METRICS = tuple(name for names in _MEASURES for name in names)
DEFAULT_METRICS = ("mmd2", "frechet", "sliced_w2", "copying", "classifier")


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names of quality metrics, each once, in the order of the columns.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in QUALITY_METRICS]
    if unknown or not names:
        raise ValueError(
            f"metrics must be some of {', '.join(QUALITY_METRICS)}, got "
            f"{', '.join(map(str, unknown)) or 'none'}"
        )
    return tuple(name for name in QUALITY_METRICS if name in names)


def measured(names: Sequence[str], real: RealData, x: Tensor, rows: Tensor) -> dict[str, Estimate]:
    """The metrics of samples by name; functions that give several of them are called once.

    Args:
        names: Names of `QUALITY_METRICS`.
        real: The data.
        x: Samples at the model's scale, shape (n, *D).
        rows: The samples in feature space, shape (n, d).
    """
    found: dict[str, Estimate] = {}
    for group, measure in _MEASURES.items():
        if set(group) & set(names):
            found |= zip(group, measure(real, x, rows), strict=True)
    return {name: found[name] for name in names}
