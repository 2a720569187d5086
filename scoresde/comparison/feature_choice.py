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
INSTALLED = ("efficientnet_lite0",)  # networks whose weights a package brings
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
    check_suits(name, spec)
    check_features(name)
    if name != AUTO:
        kind, path = _parts(name)
        return NetworkFeatures(kind, _weights(kind, path), spec.low, spec.high)
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
    if name != AUTO and not (path := _weights(*_parts(name))).is_file():
        raise FileNotFoundError(f"features {name}: there is no file {path}")


def check_suits(name: str, spec: DataSpec) -> None:
    """Raise ValueError if a feature space is unknown or not defined for these data."""
    if name == AUTO:
        return
    (kind, _), shape = _parts(name), spec.shape
    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 16:
        raise ValueError(
            f"features {kind} need RGB images of at least 16 pixels, got data of shape {shape}; "
            "use auto"
        )


def _parts(name: str) -> tuple[str, str]:
    """The network, and the path of its weights, which is empty for an installed one."""
    kind, _, path = name.partition(":")
    if kind not in NetworkFeatures.NAMES or bool(path) == (kind in INSTALLED):
        known = "auto, efficientnet_lite0, inception:PATH or inception-clean:PATH"
        raise ValueError(f"features must be {known}, got {name!r}")
    return kind, path


def _weights(kind: str, path: str) -> Path:
    """The file of weights of a network's features."""
    return efficientnet_file() if kind in INSTALLED else Path(path)
