"""The loss that trains an autoencoder, and the autoencoder as the model of a training.

    L = E_q [ −log p(x | u) ] + β KL(q(u | x) ‖ N(0, I)),     per dimension of the data

With β = 1 it is an upper bound on −log p(x)/D of the autoencoder with the prior N(0, I): in
nats/dim, of the levels for quantized data. Kingma and Welling 2014, arXiv:1312.6114, eq. (3);
Higgins et al. 2017 (β-VAE) for other β.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._condition import Condition
from .._deferred import check_finite
from .._tensor import check_number, plain_numbers
from ..training_loss import TrainingLoss
from .gaussian import kl_to_normal
from .model import Autoencoder

__all__ = ["Elbo", "Trainee"]


class Trainee(nn.Module):
    """An autoencoder as the model of a `Training`: it has no noise level and takes no condition.

    Args:
        net: The autoencoder.

    Attributes:
        autocast: Dtype in which the networks are computed by `torch.autocast`; None for their own.
    """

    sde: ClassVar[None] = None
    condition: ClassVar[None] = None
    learned_variance: ClassVar[bool] = False
    decoder: ClassVar[None] = None
    autocast: torch.dtype | None = None

    def __init__(self, net: Autoencoder) -> None:
        super().__init__()
        self.net = net

    def given(self, y: Condition | None) -> Trainee:
        """This model: conditions of the data play no part."""
        return self

    def labelled(self, y: Condition | None, n: int, device: torch.device | str) -> Trainee:
        """This model, as for `given`."""
        return self


@dataclass(frozen=True)
class Elbo(TrainingLoss):
    """The negative evidence lower bound, as the objective of a training.

    Args:
        beta: β, the weight of the divergence, above 0. Below 1 reconstructions are sharper, and the
            latents hold more; the loss is then no bound on log p(x).

    Raises:
        TypeError: If `beta` is not a number.
        ValueError: If it is out of range.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_number("beta", self.beta, above=0)

    def parts(self, loss: float, divergence: float) -> dict[str, Any]:
        """The two parts of a mean loss, in nats/dim."""
        return {"reconstruction": loss - self.beta * divergence, "kl": divergence}

    def __call__(
        self, model: Trainee, x0: Tensor, u: Tensor, eps: Tensor, history: None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each datum.

        Args:
            model: The autoencoder.
            x0: Data at the model's scale, shape (B, *D). Of quantized data the levels count.
            u: Uniform draws that score models need for their times.
            eps: Standard normal noise like x0, whose first numbers draw the latents. There are
                enough of them, because latents have at most as many numbers as the data.
            history: None.

        Returns:
            Losses in nats/dim, 0 in place of times, and divergences in nats/dim, each (B,).

        Raises:
            NonFiniteError: If reconstruction or latents are not finite.
        """
        net, dims = model.net, model.net.spec.dims
        with torch.autocast(x0.device.type, model.autocast, enabled=model.autocast is not None):
            mean, log_std = net.raw_posterior(_seen(net, x0))
            noise = eps.flatten(1)[:, : mean[0].numel()].reshape(mean.shape)
            latent = mean + log_std.exp() * noise
            reconstruction = net.decode_raw(latent.to(mean))
        check_finite(reconstruction, lambda: "the reconstruction of the autoencoder")
        likelihood = net.log_likelihood_of_mean(x0, reconstruction)
        divergence = kl_to_normal(mean, log_std) / dims
        losses = self.beta * divergence - likelihood / dims
        return losses, torch.zeros_like(u), divergence.detach()


def _seen(net: Autoencoder, x0: Tensor) -> Tensor:
    """What the encoder sees of data: the centres of the cells of quantized data."""
    spec = net.spec
    return x0 if spec.levels is None else spec.encode(spec.to_levels(x0)).to(x0)
