"""All metrics of a comparison: their titles, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """How a metric is read.

    Attributes:
        title: Name in tables and sentences.
        meaning: One sentence for readers who do not know the metric.
        better: "smaller" or "larger"; empty if the metric does not rank cells.
        has_zero: Whether ratios of values have a meaning.
        biased: Whether the mean depends on n, so that values for different n cannot be compared.
    """

    title: str
    meaning: str
    better: str = "smaller"
    has_zero: bool = True
    biased: bool = False

    @property
    def sign(self) -> int:
        """1 if smaller values are better, −1 if larger ones are."""
        return -1 if self.better == "larger" else 1


METRICS = {
    "paired_rmse": Metric(
        "paired RMSE",
        "distance to the exact solution of the ODE from the same noise: the error of the solver",
    ),
    "mmd2": Metric(
        "MMD²", "unbiased squared distance of the distributions in feature space; 0 for equal ones"
    ),
    "frechet": Metric(
        "Fréchet distance", "distance of means and covariances in feature space", biased=True
    ),
    "sliced_w2": Metric(
        "sliced W₂", "transport distance of the values themselves, without features", biased=True
    ),
}
