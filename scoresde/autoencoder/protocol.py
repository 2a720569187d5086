"""`ThroughAutoencoder`: the bound through an autoencoder as a dequantization of `Dequantized`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..batches import Batch
from ..data import DataSpec
from ..evaluation import own_context
from ..likelihood import Dequantization
from ..likelihood.dequantize import Points
from ..score import ScoreModel
from ..sde import Node
from .gaussian import log_normal

__all__ = ["ThroughAutoencoder"]


@dataclass(frozen=True)
class ThroughAutoencoder(Dequantization):
    """z ~ q(z | x) replaces the datum x of a model of latents, whose decoder gives log p(x | z).

        log p(x) ≥ E[log p(z) + log p(x | z) − log q(z | x)]

    Kingma and Welling 2014, arXiv:1312.6114, eq. (2), with the density p(z) of the score model as
    the prior. The difference is KL(q(z | x) ‖ p(z | x)). For quantized data p(x | z) is the
    probability of the levels.

        method = Dequantized(model.decoder.spec, "path", ThroughAutoencoder(), draws=8)
        log_likelihood(model, x, method, seed=0)

    `latent_log_likelihood_bound` computes the same bound of an autoencoder and a model that are not
    joined, and the importance-weighted one.
    """

    name = "autoencoder"
    encodes: ClassVar[bool] = True

    def like_points(self, model: ScoreModel, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Zeros of the shape of the latents.

        Raises:
            ValueError: If the model is not one of latents.
        """
        if model.decoder is None:
            raise ValueError(
                "model must be one of latents for the bound through an autoencoder, got one of the "
                "data themselves"
            )
        return x.new_zeros(len(x), *model.decoder.latent_shape, dtype=dtype)

    @own_context()
    @torch.no_grad()
    def draw(self, batch: Batch, k: Tensor, spec: DataSpec, t: Node, dtype: torch.dtype) -> Points:
        """z, with log q = log q(z | x) − log p(x | z); the network is not evaluated."""
        autoencoder = batch.model.decoder.autoencoder
        x = spec.to_model(k)
        mean, log_std = autoencoder.posterior(x)
        z = (mean + log_std.exp() * batch.noise.fresh(mean)).to(dtype)
        log_p = autoencoder.log_conditional(x, z.to(mean.dtype)) + spec.log_det(k)
        return Points(z, log_normal(z, mean, log_std) - log_p)
