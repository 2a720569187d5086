"""The feature space of a comparison, from its name."""

from __future__ import annotations

from torch import Tensor

from ..data import DataSpec
from ..metrics import DescriptorFeatures, FeatureSpace, load_features

__all__ = ["AUTO", "choose_features"]

AUTO = "auto"
SHIPPED_FEATURES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28)}


def choose_features(name: str, spec: DataSpec, reference: Tensor) -> FeatureSpace:
    """The feature space of this name for these data.

    "auto" is the classifier shipped for digits and Fashion-MNIST, and for all other data
    `DescriptorFeatures` of the reference.

    Args:
        name: "auto".
        spec: What the data are.
        reference: Real data at the model's scale, shape (m, *D).

    Raises:
        ValueError: If the name is unknown.
    """
    if name != AUTO:
        raise ValueError(f"features must be {AUTO}, got {name!r}")
    if SHIPPED_FEATURES.get(spec.name) == spec.shape and (spec.low, spec.high) == (-1.0, 1.0):
        return load_features(spec.name)
    return DescriptorFeatures(reference)
