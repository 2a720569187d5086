"""Feature spaces: the coordinates in which samples are compared.

A distance between images has a meaning only together with the features that it was computed in.
Every space has a name and a fingerprint, and `label` joins them for tables and statistics.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from .._tensor import check_integer
from .estimate import as_rows, row_mean

__all__ = ["FeatureSpace", "JointFeatures", "PCAFeatures", "digest_of"]


class FeatureSpace(ABC):
    """A map from samples to feature vectors, with a name and a fingerprint.

    Attributes:
        name: Short name, for example `digits_cnn`.
    """

    name: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal hash of everything on which the map depends."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Features, shape (n, d), float64, of samples of shape (n, *D)."""

    @property
    def label(self) -> str:
        """Name and the first eight digits of the fingerprint, `digits_cnn@1a2b3c4d`."""
        return f"{self.name}@{self.fingerprint[:8]}"


class JointFeatures(FeatureSpace):
    """The coordinates of two spaces side by side; a failure that one of them sees is seen.

    Args:
        first: A space whose coordinates have about the scale of those of the second.
        second: The other space.
    """

    def __init__(self, first: FeatureSpace, second: FeatureSpace) -> None:
        self.first, self.second = first, second
        self.name = f"{first.name}+{second.name}"

    @property
    def fingerprint(self) -> str:
        """Hash of both fingerprints."""
        both = f"{self.first.fingerprint}+{self.second.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    def __call__(self, x: Tensor) -> Tensor:
        """Features of both spaces, shape (n, d₁ + d₂); raises what these raise."""
        return torch.cat([self.first(x), self.second(x)], 1)


class PCAFeatures(FeatureSpace):
    """Projection on fixed orthonormal directions:  (x − mean) · componentsᵀ.

    Args:
        mean: Shape (D,), float64.
        components: Orthonormal rows, shape (d, D), float64.

    Raises:
        ValueError: If the shapes do not fit.
    """

    def __init__(self, mean: Tensor, components: Tensor) -> None:
        if mean.ndim != 1 or components.ndim != 2 or components.shape[1] != len(mean):
            raise ValueError(
                f"mean and components must have shapes (D,) and (d, D), got "
                f"{tuple(mean.shape)} and {tuple(components.shape)}"
            )
        self.mean, self.components = mean, components
        self.name = f"pca{len(components)}"

    @classmethod
    def fit(cls, reference: Tensor, d: int) -> PCAFeatures:
        """The d directions of largest variance in the reference, each with a fixed sign.

        With this sign the entry of largest magnitude is positive, so that a fit is repeatable.

        Args:
            reference: Shape (n, *D), n > d.
            d: Number of directions, at most the dimension of the data.

        Raises:
            TypeError: If `reference` is not a tensor, or d is not an integer.
            ValueError: If d < 1, or d exceeds the dimension or the n − 1 directions of the sample.
        """
        d = check_integer("d", d, minimum=1)
        rows = as_rows(reference, "reference")
        most = min(len(rows) - 1, rows.shape[1])
        if d > most:
            raise ValueError(
                f"d must be at most {most} for a reference of shape {tuple(rows.shape)}, got {d}"
            )
        mean = row_mean(rows)
        # The D×D scatter, not the n×D sample: n is large, and only leading directions are kept.
        scatter = (rows - mean).T @ (rows - mean)
        components = torch.linalg.eigh(scatter).eigenvectors.T.flip(0)[:d]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        return cls(mean, components * largest.sign())

    @property
    def fingerprint(self) -> str:
        """Hash of mean and components in float32, because last bits differ between machines."""
        return digest_of({"mean": self.mean.float(), "components": self.components.float()})

    def __call__(self, x: Tensor) -> Tensor:
        """Coordinates of samples (n, *D), shape (n, d).

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If it is empty, not finite or of another dimension.
        """
        rows = as_rows(x, minimum=1)
        if rows.shape[1] != len(self.mean):
            raise ValueError(
                f"x must have {len(self.mean)} dimensions for {self.name}, got {rows.shape[1]}"
            )
        return (rows - self.mean.to(rows.device)) @ self.components.T.to(rows.device)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
