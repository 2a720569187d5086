"""The feature space of a comparison, from its name."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..data import DataSpec
from ..metrics import (
    DescriptorFeatures,
    FeatureSpace,
    JointFeatures,
    NetworkFeatures,
    efficientnet_file,
    load_features,
)

__all__ = ["AUTO", "check_features", "check_suits", "choose_features"]

AUTO = "auto"
SHIPPED = "cnn"
KNOWN = "auto, cnn, efficientnet_lite0, inception:PATH or inception-clean:PATH"
INSTALLED = ("efficientnet_lite0",)  # networks whose weights a package brings
SHIPPED_FEATURES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28)}


def choose_features(name: str, spec: DataSpec, reference: Tensor) -> FeatureSpace:
    """The feature space of this name for these data.

    "auto" is `DescriptorFeatures` of the reference, which see gross failures of any data. For
    digits and Fashion-MNIST they are joined with "cnn", the features of a small classifier that is
    shipped for these data: it knows the classes, but misses noise.

    Args:
        name: "auto", "cnn", "efficientnet_lite0", or "inception:PATH" or "inception-clean:PATH"
            with the file of weights.
        spec: What the data are.
        reference: Real data at the model's scale, shape (m, *D).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the name is unknown, the file holds other weights, or the data do not suit
            the features: no RGB images of at least 16 pixels, or for "cnn" other data.
    """
    check_suits(name, spec)
    check_features(name)
    if name == SHIPPED:
        return load_features(spec.name)
    if name != AUTO:
        kind, path = _parts(name)
        return NetworkFeatures(kind, _weights(kind, path), spec.low, spec.high)
    described = DescriptorFeatures(reference)
    return JointFeatures(load_features(spec.name), described) if _shipped(spec) else described


def check_features(name: str) -> None:
    """Check the name of a feature space before data are read; see `choose_features`.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        TypeError: If the name is not a text.
        ValueError: If the name is unknown, or its weights are not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"features must be a text, got {type(name).__name__}")
    if name not in (AUTO, SHIPPED) and not (path := _weights(*_parts(name))).is_file():
        raise FileNotFoundError(f"features {name}: there is no file {path}")


def check_suits(name: str, spec: DataSpec) -> None:
    """Raise ValueError if a feature space is unknown or not defined for these data."""
    if name == AUTO:
        return
    if name == SHIPPED:
        if not _shipped(spec):
            what = f"{spec.name or 'data'} of shape {spec.shape}"
            raise ValueError(f"features cnn are for digits and fashion-mnist, got {what}; use auto")
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
        raise ValueError(f"features must be {KNOWN}, got {name!r}")
    return kind, path


def _weights(kind: str, path: str) -> Path:
    """The file of weights of a network's features."""
    return efficientnet_file() if kind in INSTALLED else Path(path)


def _shipped(spec: DataSpec) -> bool:
    """Whether a classifier for these data is part of the package."""
    same = SHIPPED_FEATURES.get(spec.name) == spec.shape
    return same and (spec.low, spec.high) == (-1.0, 1.0)
