"""Quality of samples: their distances to real data, and the same distances of held-out real data.

mmd2       unbiased MMD² in a feature space
frechet    Fréchet distance in the same space
sliced_w2  sliced Wasserstein-2 distance of the pixels
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset, DataSpec
from ..fingerprint import fingerprint
from ..metrics import (
    CubicKernel,
    DescriptorFeatures,
    Estimate,
    FeatureSpace,
    GaussianKernel,
    GaussianStats,
    frechet_distance,
    mmd2,
    sliced_wasserstein,
)
from .feature_choice import AUTO, choose_features

__all__ = ["TITLES", "Quality", "at_model_scale", "on_levels"]

# Every metric of a comparison, with its title. `Quality` measures all but `paired_rmse`, which
# needs the reference solution instead of data.
TITLES = {
    "paired_rmse": "paired RMSE",
    "mmd2": "MMD²",
    "frechet": "Fréchet distance",
    "sliced_w2": "sliced W₂",
}

REFERENCE_CAP = 5000  # most real data in the reference: the cost of MMD² grows with the square


def on_levels(x: Tensor, spec: DataSpec) -> Tensor:
    """Samples at the model's scale, rounded and clipped to the levels of the data.

    Picture files and real data hold levels. Continuous data are returned unchanged.
    """
    return x if spec.levels is None else spec.encode(spec.to_levels(x))


def at_model_scale(rows: Tensor, spec: DataSpec) -> Tensor:
    """Stored data at the model's scale; quantized data are stored as levels."""
    return rows if spec.levels is None else spec.encode(rows)


@dataclass(frozen=True)
class Quality:
    """The metrics that compare samples with real data, for a fixed number of samples.

    Attributes:
        spec: What the data are.
        features: Feature space of MMD² and of the Fréchet distance.
        kernel: Kernel of MMD².
        reference: Real data at the model's scale, shape (m, *D).
        in_features: The same data in feature space, shape (m, d).
        stats: Mean and covariance of `in_features`.
        floor: The value of each metric, by name, for real data held out from the reference.
        about: Plain data that describe reference, features, kernel and floor.
    """

    spec: DataSpec
    features: FeatureSpace
    kernel: CubicKernel | GaussianKernel
    reference: Tensor
    in_features: Tensor
    stats: GaussianStats
    floor: dict[str, Estimate]
    about: dict[str, Any]

    @classmethod
    def build(cls, train: Dataset, test: Dataset | None, n: int, features: str = AUTO) -> Quality:
        """The metrics for n samples of a model of these data.

        The reference is the train split, at most 5,000 rows evenly spaced. The floor is measured
        on n rows of the test split, or on all rows if there are fewer. Without a test split, random
        rows of the data are held out from the reference for the floor.

        Args:
            train: Training data.
            test: Test data, or None.
            n: Number of samples to be measured.
            features: The feature space, as `choose_features` reads it.

        Raises:
            ValueError: If there is no test split and there are fewer than 8 rows of data.
        """
        spec, real, origin = train.spec, train.x, "train split"
        if test is None:
            real, held_out = _halves(train.x, n)
            origin = "data, without the rows of the floor"
        else:
            held_out = _spaced(test.x, n)
        x = at_model_scale(_spaced(real, REFERENCE_CAP), spec)
        space = choose_features(features, spec, x)
        rows = space(x)
        if isinstance(space, DescriptorFeatures):
            kernel = GaussianKernel.median(rows)
            kernel_name = f"Gaussian kernel of bandwidth {kernel.bandwidth:.4g}"
        else:
            kernel, kernel_name = CubicKernel(), "cubic kernel of KID"
        about = {
            "data": train.name,
            "reference": f"{len(x)} of {len(real)} rows of the {origin}",
            "reference_n": len(x),
            "floor": f"{len(held_out)} rows of the {'data' if test is None else 'test split'}",
            "floor_n": len(held_out),
            "features": space.label,
            "dimension": rows.shape[1],
            "kernel": kernel_name,
        }
        stats = GaussianStats.of(rows, space.label)
        made = cls(spec, space, kernel, x, rows, stats, {}, about)
        return replace(made, floor=made.measure(at_model_scale(held_out, spec)))

    @property
    def fitted(self) -> bool:
        """Whether the features are computed from the reference, without a file."""
        return isinstance(self.features, DescriptorFeatures)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that determines the metrics, apart from the samples.

        The bandwidth of the kernel and the statistics follow from the reference. Descriptors
        follow from the reference, too, but their last bits depend on the machine, so that only
        their name is part of the fingerprint.
        """
        features = self.features
        return fingerprint(
            {
                "features": features.name if self.fitted else features.fingerprint,
                "kernel": type(self.kernel).__name__,
                "reference": self.reference,
                "levels": self.spec.levels,
                "range": (self.spec.low, self.spec.high),
            }
        )

    def measure(self, x: Tensor) -> dict[str, Estimate]:
        """Each metric of samples at the model's scale, shape (n, *D), n ≥ 4.

        The standard errors cover the finite number of samples. For MMD² and the sliced distance
        they also cover the finite reference, which is the same for all cells.
        """
        x = on_levels(x.cpu(), self.spec)
        rows = self.features(x)
        return {
            "mmd2": mmd2(rows, self.in_features, self.kernel),
            "frechet": frechet_distance(rows, self.stats, space=self.features.label),
            "sliced_w2": sliced_wasserstein(x, self.reference),
        }


def _spaced(rows: Tensor, n: int) -> Tensor:
    """n evenly spaced rows, or all rows if there are no more."""
    return rows[torch.linspace(0, len(rows) - 1, min(n, len(rows))).round().long()]


def _halves(rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Rows split at random into two parts; the second has n rows, but at most half of all."""
    if len(rows) < 8:
        raise ValueError(f"data must hold at least 8 rows to measure quality, got {len(rows)}")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    held = min(n, len(rows) // 2)
    return rows[order[held:].sort().values], rows[order[:held].sort().values]
