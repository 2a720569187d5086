"""Quality of samples: their distances to real data, and the same distances of held-out real data.

`METRICS` says what each metric means, and `measures` holds the functions that compute them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._condition import Condition
from ..data import Dataset, DataSpec
from ..fingerprint import fingerprint
from ..metrics import (
    CNNFeatures,
    CubicKernel,
    DescriptorFeatures,
    Estimate,
    FeatureSpace,
    GaussianKernel,
    JointFeatures,
    share_as_asked,
)
from ..metrics.features import digest_of
from ..metrics.set_descriptors import SetDescriptors
from .feature_choice import AUTO, choose_features, choose_statistics
from .measures import DEFAULT_METRICS, RealData, check_metrics, measured

__all__ = ["Quality", "at_model_scale", "on_levels"]

REFERENCE_CAP = 5000  # most real data in the reference: the cost of MMD² grows with the square
VERSION = 3  # of the metrics and their errors; stored cells of another version are not used


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
        features: Feature space of the metrics, apart from sliced W₂.
        metrics: Names of the metrics.
        real: Reference and held-out data, in feature space as well.
        floor: The value of each metric, by name, for real data held out from the reference.
        about: Plain data that describe reference, features, kernel and floor.
        labels: Classes of the held-out data, shape (l,); None if they are not known.
        asked: Classes under which the samples are drawn, shape (n,); None if they are not compared
            with those that a classifier names.
        describe: Makes sets of points vectors before anything is measured; None for other data.
    """

    spec: DataSpec
    features: FeatureSpace
    metrics: tuple[str, ...]
    real: RealData
    floor: dict[str, Estimate]
    about: dict[str, Any]
    describe: SetDescriptors | None = None
    labels: Tensor | None = None
    asked: Tensor | None = None

    @classmethod
    def build(
        cls,
        train: Dataset,
        test: Dataset | None,
        n: int,
        metrics: Iterable[str] = DEFAULT_METRICS,
        features: str = AUTO,
    ) -> Quality:
        """The metrics for n samples of a model of these data.

        The reference is the train split, at most 5,000 rows evenly spaced. The floor is measured
        on n rows of the test split, or on all rows if there are fewer. Without a test split, random
        rows of the data are held out from the reference for the floor.

        Args:
            train: Training data.
            test: Test data, or None.
            n: Number of samples to be measured.
            metrics: Names of `QUALITY_METRICS`.
            features: The feature space, as `choose_features` reads it.

        Raises:
            FileNotFoundError: If there is no such file of weights.
            ValueError: If a metric or feature space is unknown or does not suit the data, or if
                there is no test split and there are fewer than 8 rows of data.
        """
        metrics = check_metrics(metrics)
        spec, numbers, origin = train.spec, torch.arange(len(train)), "train split"
        if test is None:
            numbers, held = _halves(len(train), n)
            rows, split = held, train
            origin = "data, without the rows of the floor"
        else:
            rows, split = _spaced(torch.arange(len(test)), n), test
        held_out = split.x[rows]
        labels = split.labels[rows] if isinstance(split.labels, Tensor) else None
        x = at_model_scale(train.x[_spaced(numbers, REFERENCE_CAP)], spec)
        held_out = at_model_scale(held_out, spec)
        describe = SetDescriptors(x) if spec.kind == "set" else None
        if describe is not None:
            x, held_out = describe(x), describe(held_out)
        space = choose_features(features, spec, x)
        statistics = choose_statistics(features, space)  # before the features, which take long
        rows = space(x)
        guard = None
        if isinstance(space, (DescriptorFeatures, JointFeatures)):
            kernel = GaussianKernel.median(rows)
            kernel_name = f"Gaussian kernel of bandwidth {kernel.bandwidth:.4g}"
        else:
            kernel, kernel_name = CubicKernel(), "cubic kernel of KID"
            guard = DescriptorFeatures(x) if "classifier" in metrics else None
        about = {
            "data": train.name,
            "reference": f"{len(x)} of {len(numbers)} rows of the {origin}",
            "reference_n": len(x),
            "floor": f"{len(held_out)} rows of the {'data' if test is None else 'test split'}",
            "floor_n": len(held_out),
            "features": space.label,
            "dimension": rows.shape[1],
            "kernel": kernel_name,
        }
        if statistics is not None:
            about["reference"] += f"; of the Fréchet distance, a file for {statistics.n} images"
        known = _known_rows(space, train, numbers, rows) if "copying" in metrics else rows
        if "copying" in metrics:
            about["copying"] = f"nearest of {len(known)} of {len(numbers)} rows of the {origin}"
        real = RealData(
            x, rows, space(held_out), kernel, space.label, known, held_out, guard, statistics
        )
        made = cls(spec, space, metrics, real, {}, about, describe, labels)
        return replace(made, floor=made._floor(held_out))

    def asking(self, y: Condition | None) -> Quality:
        """These metrics with the share of samples of the class that was asked for.

        Without a classifier of the data, or for other conditions than classes, nothing is added.

        Args:
            y: The condition of each sample.
        """
        net, known = self._classifier, (self.labels, y)
        if net is None or not all(isinstance(c, Tensor) and c.dtype == torch.int64 for c in known):
            return self
        asked = share_as_asked(self._named(self.real.fresh), self.labels)
        return replace(self, asked=y.cpu(), floor=self.floor | {"as_asked": asked})

    @property
    def _classifier(self) -> CNNFeatures | None:
        """The features of a classifier of all classes of the data; None without it."""
        found = self.from_file
        if not isinstance(found, CNNFeatures):
            return None
        return found if found.net.head.out_features == self.spec.classes else None

    @torch.no_grad()
    def _named(self, x: Tensor) -> Tensor:
        """The class that the classifier names for each image at the model's scale, shape (n,)."""
        return self._classifier.net(x.float()).argmax(1)

    def _floor(self, held_out: Tensor) -> dict[str, Estimate]:
        """The metrics of the held-out data; for copying, of every other row against the rest."""
        found = self._measured(held_out)
        if "copying" in found:
            rows, real = self.real.held_out, self.real
            halves = replace(real, held_out=rows[1::2])
            found |= measured(["copying"], halves, held_out, rows[::2])
        return found

    @property
    def from_file(self) -> FeatureSpace | None:
        """The part of the features that a file holds; the rest is computed from the reference."""
        joint = isinstance(self.features, JointFeatures)
        space = self.features.first if joint else self.features
        return None if isinstance(space, DescriptorFeatures) else space

    @property
    def statistics_digest(self) -> str | None:
        """Hash of the statistics of a file that replace the reference; None without a file."""
        found = self.real.statistics
        return None if found is None else digest_of({"mu": found.mean, "sigma": found.cov})

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that determines the metrics, apart from the samples.

        The bandwidth of the kernel and the statistics follow from the reference. Descriptors
        follow from the reference, too, but their last bits depend on the machine, so that only
        their name is part of the fingerprint.
        """
        network = self.from_file
        asked = {} if self.asked is None else {"asked": self.asked}
        return fingerprint(
            asked
            | {
                "features": [self.features.name, network and network.fingerprint],
                "statistics": self.statistics_digest,
                "kernel": type(self.real.kernel).__name__,
                "reference": self.real.x,
                "copying": self.about.get("copying"),
                "metrics": self.metrics,
                "version": VERSION,
                "levels": self.spec.levels,
                "range": (self.spec.low, self.spec.high),
            }
        )

    def measure(self, x: Tensor) -> dict[str, Estimate]:
        """Each metric of samples at the model's scale, shape (n, *D), n ≥ 4.

        The standard errors cover the finite number of samples and the finite reference, which is
        the same for all cells.
        """
        x = on_levels(x.cpu(), self.spec)
        found = self._measured(x if self.describe is None else self.describe(x))
        if self.asked is not None and len(self.asked) == len(x):
            found["as_asked"] = share_as_asked(self._named(x), self.asked)
        return found

    def _measured(self, x: Tensor) -> dict[str, Estimate]:
        """The metrics of samples, or of descriptors of sets."""
        return measured(self.metrics, self.real, x, self.features(x))


def _spaced(rows: Tensor, n: int) -> Tensor:
    """n evenly spaced row numbers, or all of them if there are no more."""
    return rows[torch.linspace(0, len(rows) - 1, min(n, len(rows))).round().long()]


def _known_rows(space: FeatureSpace, data: Dataset, numbers: Tensor, reference: Tensor) -> Tensor:
    """The training data in feature space among which copies are searched.

    These are all rows for the shipped classifiers (40,000 images a second on one thread) and for
    vectors, whose features take little time; for other features those of the reference. They are
    read in blocks.
    """
    cheap = isinstance(space, CNNFeatures) or len(data.spec.shape) == 1
    if not cheap or len(numbers) <= len(reference):
        return reference
    blocks = numbers.split(REFERENCE_CAP)
    return torch.cat([space(at_model_scale(data.x[block], data.spec)) for block in blocks])


def _halves(n_rows: int, n: int) -> tuple[Tensor, Tensor]:
    """Row numbers split at random into two parts; the second has n, but at most half of all."""
    if n_rows < 8:
        raise ValueError(f"data must hold at least 8 rows to measure quality, got {n_rows}")
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(0))
    held = min(n, n_rows // 2)
    return order[held:].sort().values, order[:held].sort().values
