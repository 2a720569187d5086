"""`InUnits`: the part of `DataSpec` that maps between the user's units and the model's scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from .transforms import (
    Blocks,
    Chain,
    Transform,
    apply_chain,
    fit_chain,
    invert_chain,
    log_det_of_chain,
)

__all__ = ["InUnits", "filled"]


class InUnits:
    """Transforms of a `DataSpec`.

    z = g(x) at the model's scale, x in the user's units,  log p(x) = log p(z) + log |det ∂z/∂x|

    Without transforms both scales are the same, and every method returns its argument.
    """

    shape: tuple[int, ...]
    levels: int | None
    sizes: tuple[int, int] | None
    transform: Chain | None
    feature_names: tuple[str, ...] | None

    def check_units(self) -> None:
        """Raise unless transforms and names fit the data.

        Raises:
            TypeError: If a transform or a name is none.
            ValueError: If quantized data have a transform, or one does not fit the features.
        """
        features = self.features
        if self.feature_names is not None:
            names = tuple(self.feature_names)
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"feature_names must be text, got {names!r}")
            if len(names) != features or len(set(names)) != len(names):
                raise ValueError(
                    f"feature_names must be {features} different names, got {len(names)}: "
                    f"{', '.join(map(repr, names[:12]))}"
                )
            object.__setattr__(self, "feature_names", names)
        if self.transform is None:
            return
        chain = tuple(self.transform)
        if self.levels is not None:
            raise ValueError("transform must be None for quantized data, whose scale is low … high")
        for one in chain:
            if not isinstance(one, Transform):
                raise TypeError(f"transform must hold transforms, got {one!r}")
            if one.axis != self.feature_axis:
                raise ValueError(
                    f"transform: axis must be {self.feature_axis} for these data, got {one.axis}"
                )
            one.check_features(features)
        object.__setattr__(self, "transform", chain or None)

    @property
    def feature_axis(self) -> int:
        """Axis of the features in a batch: 1 (vectors, channels), or −1 for sets of points."""
        return 1 if self.sizes is None else -1

    @property
    def features(self) -> int:
        """Number of features: the length of a vector, or the number of channels or coordinates."""
        return (1, *self.shape)[self.feature_axis]

    def to_model(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Data at the model's scale, z = g(x), computed in float64.

        Args:
            x: Data in the user's units, shape (B, *D).
            present: The points of sets that exist, bool (B, N); the others become 0. None for all.

        Returns:
            Like x.

        Raises:
            ValueError: If a number leaves the domain of a transform; the message names its
                feature and row.
        """
        if self.transform is None:
            return x
        if present is None:
            return apply_chain(self.transform, x, self.feature_names)
        z = apply_chain(self.transform, filled(x, present), self.feature_names)
        return torch.where(present[..., None], z, 0)

    def to_units(self, z: Tensor, present: Tensor | None = None) -> Tensor:
        """Data in the user's units, x = g⁻¹(z), computed in float64.

        Args:
            z: Data at the model's scale, shape (B, *D).
            present: As in `to_model`.

        Returns:
            Like z.
        """
        if self.transform is None:
            return z
        x = invert_chain(self.transform, z)
        return x if present is None else torch.where(present[..., None], x, 0)

    def log_det(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """log |det ∂z/∂x| of each datum: log p(x) = log p(z) + log_det(x).

        Args:
            x: Data in the user's units, shape (B, *D).
            present: As in `to_model`.

        Returns:
            Nats, shape (B,), float64; 0 without transforms.
        """
        if self.transform is None:
            return torch.zeros(len(x), dtype=torch.float64, device=x.device)
        x = x if present is None else filled(x, present)
        return log_det_of_chain(self.transform, x, present)

    @property
    def in_model_scale(self) -> Self:
        """The description of the same data at the model's scale, without transforms."""
        return self if self.transform is None else replace(self, transform=None)

    def with_units_of(self, other: Self) -> Self:
        """This description with the transforms of another one, and with its names and range.

        Args:
            other: The description in a checkpoint.

        Raises:
            ValueError: If the names of the features differ.
        """
        if other.transform is None:
            return self.in_model_scale
        known = {self.feature_names, other.feature_names} - {None}
        if len(known) > 1:
            raise ValueError(
                f"feature names must be {', '.join(other.feature_names)} in this order, got "
                f"{', '.join(self.feature_names)}"
            )
        names = self.feature_names or other.feature_names
        both = {"transform": other.transform, "low": other.low, "high": other.high}
        return replace(self, feature_names=names, **both)

    def fitted(self, texts: Any, blocks: Blocks) -> Self:
        """This description with transforms that are fitted to training data.

        `low` and `high` become the range of these data at the model's scale.

        Args:
            texts: What `parse_transforms` returns, or transforms.
            blocks: Returns the data in blocks; called for each pass.

        Raises:
            ValueError: If a feature is constant or leaves a domain, named by its name.
        """
        if not texts:
            return self
        names, axis = self.feature_names, self.feature_axis
        chain, found = fit_chain(texts, blocks, self.shape, names, axis)
        low, high = float(found.least.min()), float(found.most.max())
        return replace(self, transform=chain, low=low, high=high)


def filled(x: Tensor, present: Tensor) -> Tensor:
    """Sets with their first point in place of points that do not exist."""
    return torch.where(present[..., None], x, x[:, :1])
