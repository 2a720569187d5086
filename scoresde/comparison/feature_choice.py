"""The feature space of a comparison, from its name."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..data import DataSpec
from ..metrics import (
    DescriptorFeatures,
    FeatureSpace,
    NetworkFeatures,
    efficientnet_file,
    load_features,
)

__all__ = ["AUTO", "check_features", "check_suits", "choose_features"]

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
    check_features(name)
    check_suits(name, spec)
    if name != AUTO:
        return NetworkFeatures(name.partition(":")[0], _weights(name), spec.low, spec.high)
    if SHIPPED_FEATURES.get(spec.name) == spec.shape and (spec.low, spec.high) == (-1.0, 1.0):
        return load_features(spec.name)
    return DescriptorFeatures(reference)


def check_features(name: str) -> None:
    """Check the name of a feature space before data are read; see `choose_features`.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        TypeError: If the name is not a text.
        ValueError: If the name is unknown, or its weights are not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"features must be a text, got {type(name).__name__}")
    if name == AUTO:
        return
    path = _weights(name)
    if not path.is_file():
        raise FileNotFoundError(f"features {name}: there is no file {path}")


def check_suits(name: str, spec: DataSpec) -> None:
    """Raise ValueError if a feature space is not defined for these data."""
    shape = spec.shape
    if name != AUTO and (len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 16):
        raise ValueError(
            f"features {name.partition(':')[0]} need RGB images of at least 16 pixels, got data of "
            f"shape {shape}; use auto"
        )


def _weights(name: str) -> Path:
    """The file of weights of a network's features."""
    kind, _, path = name.partition(":")
    installed = kind == "efficientnet_lite0"
    if kind not in NetworkFeatures.NAMES or bool(path) == installed:
        known = "auto, efficientnet_lite0, inception:PATH or inception-clean:PATH"
        raise ValueError(f"features must be {known}, got {name!r}")
    return efficientnet_file() if installed else Path(path)
