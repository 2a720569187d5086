"""The feature space of a comparison, from its name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..data import DataSpec
from ..metrics import (
    DescriptorFeatures,
    FeatureSpace,
    GaussianStats,
    JointFeatures,
    NetworkFeatures,
    efficientnet_file,
    load_features,
    load_statistics,
)

__all__ = ["AUTO", "check_features", "check_suits", "choose_features", "choose_statistics"]

AUTO = "auto"
SHIPPED = "cnn"
KNOWN = (
    "auto, cnn, efficientnet_lite0, inception:PATH, inception-clean:PATH or dinov2:PATH, the last "
    "four also with :statistics=FILE and :n=NUMBER"
)
INSTALLED = ("efficientnet_lite0",)  # networks whose weights a package brings
SHIPPED_FEATURES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28)}


def choose_features(name: str, spec: DataSpec, reference: Tensor) -> FeatureSpace:
    """The feature space of this name for these data.

    "auto" is `DescriptorFeatures` of the reference, which see gross failures of any data. For
    digits and Fashion-MNIST they are joined with "cnn", the features of a small classifier that is
    shipped for these data: it knows the classes, but misses noise.

    Args:
        name: "auto", "cnn", "efficientnet_lite0", or "inception:PATH", "inception-clean:PATH" or
            "dinov2:PATH" with the file of weights. The last four may end with what
            `choose_statistics` reads.
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
        choice = _Choice.of(name)
        return NetworkFeatures(choice.kind, choice.weights, spec.low, spec.high)
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
    if name in (AUTO, SHIPPED):
        return
    choice = _Choice.of(name)
    for path in filter(None, (choice.weights, choice.statistics)):
        if not path.is_file():
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
    kind, shape = _Choice.of(name).kind, spec.shape
    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 16:
        raise ValueError(
            f"features {kind} need RGB images of at least 16 pixels, got data of shape {shape}; "
            "use auto"
        )


def choose_statistics(name: str, space: FeatureSpace) -> GaussianStats | None:
    """Published statistics that replace the reference of the Fréchet distance; None without.

    Args:
        name: As for `choose_features`. With ":statistics=FILE" at its end the file holds `mu` and
            `sigma`, as programs for FID write them. ":n=NUMBER" says of how many images, which such
            files do not.
        space: The chosen feature space.

    Raises:
        ValueError: If the file does not hold statistics of as many features, says that it is of
            other features, or neither it nor the name says its n.
    """
    choice = None if name in (AUTO, SHIPPED) else _Choice.of(name)
    if choice is None or choice.statistics is None:
        return None
    try:
        found = load_statistics(choice.statistics, space.label, choice.n)
    except ValueError as error:
        hint = "; add :n=NUMBER to features" if str(error).endswith("give n") else ""
        raise ValueError(f"{error}{hint}") from error
    if len(found.mean) != space.dimension:
        raise ValueError(
            f"{choice.statistics} must hold statistics of {space.dimension} features for "
            f"{space.name}, got {len(found.mean)}"
        )
    return found


class _Choice(NamedTuple):
    """The parts of the name of a network's features.

    Attributes:
        kind: Name of the network.
        path: File of its weights; empty for an installed one.
        statistics: File of statistics of the reference; None for none.
        n: Number of images of these; None if the name does not say it.
    """

    kind: str
    path: str
    statistics: Path | None
    n: int | None

    @classmethod
    def of(cls, name: str) -> _Choice:
        head, *parameters = name.split(":statistics=")
        kind, _, path = head.partition(":")
        file, _, n = "".join(parameters).partition(":n=")
        wrong = kind not in NetworkFeatures.NAMES or bool(path) == (kind in INSTALLED)
        if wrong or len(parameters) > 1 or (parameters and not file) or not (n or "2").isdecimal():
            raise ValueError(f"features must be {KNOWN}, got {name!r}")
        return cls(kind, path, Path(file) if file else None, int(n) if n else None)

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return Path(self.path) if self.path else efficientnet_file()


def _shipped(spec: DataSpec) -> bool:
    """Whether a classifier for these data is part of the package."""
    same = SHIPPED_FEATURES.get(spec.name) == spec.shape
    return same and (spec.low, spec.high) == (-1.0, 1.0)
