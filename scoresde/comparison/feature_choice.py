"""The feature space of a comparison, from its name."""

from __future__ import annotations

from torch import Tensor

from ..data import DataSpec
from ..metrics import (
    DescriptorFeatures,
    FeatureSpace,
    NetworkFeatures,
    efficientnet_file,
    load_features,
)

__all__ = ["AUTO", "choose_features"]

AUTO = "auto"
SHIPPED_FEATURES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28)}


def choose_features(name: str, spec: DataSpec, reference: Tensor) -> FeatureSpace:
    """The feature space of this name for these data.

    "auto" is the classifier shipped for digits and Fashion-MNIST, and for all other data
    `DescriptorFeatures` of the reference.

    Args:
        name: "auto", "efficientnet_lite0", or "inception:PATH" or "inception-clean:PATH" with the
            file of weights.
        spec: What the data are.
        reference: Real data at the model's scale, shape (m, *D).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the name is unknown, the file holds other weights, or the data are not RGB
            images of at least 16 pixels.
    """
    if name != AUTO:
        return _of_network(name, spec)
    if SHIPPED_FEATURES.get(spec.name) == spec.shape and (spec.low, spec.high) == (-1.0, 1.0):
        return load_features(spec.name)
    return DescriptorFeatures(reference)


def _of_network(name: str, spec: DataSpec) -> FeatureSpace:
    kind, _, path = name.partition(":")
    needs_path = kind != "efficientnet_lite0"
    if kind not in NetworkFeatures.NAMES or bool(path) != needs_path:
        known = "auto, efficientnet_lite0, inception:PATH or inception-clean:PATH"
        raise ValueError(f"features must be {known}, got {name!r}")
    if len(spec.shape) != 3 or spec.shape[0] != 3 or min(spec.shape[1:]) < 16:
        raise ValueError(
            f"features {kind} need RGB images of at least 16 pixels, got data of shape {spec.shape}"
        )
    return NetworkFeatures(kind, path or efficientnet_file(), spec.low, spec.high)
