"""`LatentDecoder`: from the latents of a score model to the data that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._tensor import check_type

__all__ = ["LatentDecoder"]

AT_A_TIME = 64  # latents, if nothing is said: a decoder takes more memory for one than a sampler


class LatentDecoder(nn.Module):
    """The last step of a latent model:  x = E[x | z] of the autoencoder's p(x|z), in units.

    z are samples of the score model, and x the data that a user sees. The map has no inverse: many
    x have the same latents, so that log p(z) gives only a bound of log p(x).

    Attributes:
        autoencoder: The autoencoder.
        spec: `DataSpec` of the decoded data.

    Args:
        autoencoder: A module with `decode(z)`, which returns data at the model's scale of `spec`,
            and with the descriptions `spec` of the data and `latent_spec` of the latents.
        spec: `DataSpec` of the decoded data, for example with class names; None for that of the
            autoencoder.

    Raises:
        TypeError: If the autoencoder is no module, or has no `decode`.
        ValueError: If `spec` is of data of another shape than the autoencoder's.
    """

    def __init__(self, autoencoder: nn.Module, spec: Any = None) -> None:
        super().__init__()
        check_type("autoencoder", autoencoder, nn.Module)
        if not all(hasattr(autoencoder, name) for name in ("decode", "spec", "latent_spec")):
            raise TypeError(
                "autoencoder must have decode, spec and latent_spec, got "
                f"{type(autoencoder).__name__}"
            )
        spec = autoencoder.spec if spec is None else spec
        if tuple(spec.shape) != tuple(autoencoder.spec.shape):
            raise ValueError(
                f"spec must be of data of shape {tuple(autoencoder.spec.shape)}, as of the "
                f"autoencoder, got {tuple(spec.shape)}"
            )
        self.autoencoder = autoencoder
        self.spec = spec

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one datum."""
        return tuple(self.autoencoder.latent_spec.shape)

    @property
    def in_model_scale(self) -> LatentDecoder:
        """The decoder whose data are not mapped to units, if the data have a transform."""
        if self.spec.transform is None:
            return self
        return LatentDecoder(self.autoencoder, self.spec.in_model_scale)

    def forward(self, z: Tensor, batch: int | None = None) -> Tensor:
        """Data in units.

        Args:
            z: Latents, shape (B, *latent_shape).
            batch: Latents decoded at a time; None for 64.

        Returns:
            Data, shape (B, *D), in the dtype of z.

        Raises:
            ValueError: If z has another shape.
        """
        if tuple(z.shape[1:]) != self.latent_shape:
            wanted = ", ".join(["B", *map(str, self.latent_shape)])
            raise ValueError(f"z must have shape ({wanted}), got {tuple(z.shape)}")
        own = next((p.dtype for p in self.parameters() if p.is_floating_point()), z.dtype)
        if len(z) == 0:
            return z.new_empty(0, *self.spec.shape)
        parts = z.split(batch or AT_A_TIME)
        x = torch.cat([self.autoencoder.decode(part.to(own)) for part in parts])
        return self.spec.to_units(x.to(z.dtype))
