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
        has_zero: Whether 0 is the best possible value, so that ratios have a meaning.
        biased: Whether the mean depends on n, so that values for different n cannot be compared.
        squared: Whether it is a squared distance.
    """

    title: str
    meaning: str
    better: str = "smaller"
    has_zero: bool = True
    biased: bool = False
    squared: bool = False

    @property
    def sign(self) -> int:
        """1 if smaller values are better, −1 if larger ones are."""
        return -1 if self.better == "larger" else 1

    @property
    def has_ratio(self) -> bool:
        """Whether the ratio of two values says by how much one is better."""
        return self.has_zero and self.better == "smaller"


METRICS = {
    "paired_rmse": Metric(
        "paired RMSE",
        "Distance to the exact solution of the ODE from the same noise: the error of the solver.",
    ),
    "mmd2": Metric(
        "MMD²",
        "Unbiased squared distance of the distributions in feature space, 0 for equal ones. With "
        "the cubic kernel in Inception features it is the published KID.",
        squared=True,
    ),
    "frechet": Metric(
        "Fréchet distance",
        "Distance of means and covariances in feature space; its bias falls as 1/n.",
        biased=True,
        squared=True,
    ),
    "frechet_inf": Metric(
        "Fréchet distance, n → ∞",
        "The Fréchet distance without its bias in 1/n; it may be negative near real data.",
        squared=True,
    ),
    "sliced_w2": Metric(
        "sliced W₂",
        "Transport distance of the values themselves, without features; biased like Fréchet.",
        biased=True,
    ),
    "precision": Metric(
        "precision", "Share of the samples that lie among the data.", "larger", biased=True
    ),
    "recall": Metric(
        "recall", "Share of the data that lie among the samples.", "larger", biased=True
    ),
    "clipped_density": Metric(
        "clipped density", "Fidelity, as the share of good samples; 1 for real data.", "larger"
    ),
    "clipped_coverage": Metric(
        "clipped coverage", "Coverage, as the share of good samples; 1 for real data.", "larger"
    ),
    "copying": Metric(
        "copying",
        "Probability that a sample is nearer to the training data than held-out data are; 0.5 for "
        "new data, 1 for copies, above 0.5 also for samples that vary too little.",
        "",
    ),
    "classifier": Metric(
        "classifier accuracy",
        "How well a classifier tells samples from data by layout and texture; 0.5 if it cannot.",
        has_zero=False,
    ),
    "as_asked": Metric(
        "as asked",
        "Share of the samples of which a classifier of the data names the class that was asked "
        "for; for real data its accuracy.",
        "",
        has_zero=False,
    ),
}
