"""Autoencoders of vectors: fully connected ones, and the linear one of probabilistic PCA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._tensor import check_integer
from ..data import DataSpec
from ..nets.blocks import arguments_of
from .model import Autoencoder

__all__ = ["linear_autoencoder", "mlp_autoencoder", "probabilistic_pca"]


class _LinearEncoder(nn.Module):
    """x ↦ (A x + b, log s): a linear mean, and a standard deviation that is the same for all x."""

    def __init__(self, size: int, latent_size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(size, latent_size)
        self.log_std = nn.Parameter(torch.zeros(latent_size))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(x)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=1)


def linear_autoencoder(spec: DataSpec, latent_size: int, noise_std: float = 0.1) -> Autoencoder:
    """A linear autoencoder of vectors with fresh weights: a linear-Gaussian model.

        q(u | x) = N(A x + b, diag s²),     p(x | u) = N(W u + c, noise_std² I)

    Args:
        spec: What the vectors are.
        latent_size: Size of the latents, at most that of the data.
        noise_std: See `Autoencoder`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the data are no vectors, or a number is out of range.
    """
    table = {"kind": "linear", "latent_size": latent_size, "noise_std": noise_std}
    size = _size(spec, latent_size)
    encoder, decoder = _LinearEncoder(size, latent_size), nn.Linear(latent_size, size)
    return Autoencoder(encoder, decoder, spec, (latent_size,), noise_std, table)


def mlp_autoencoder(
    spec: DataSpec, latent_size: int, width: int = 128, depth: int = 2, noise_std: float = 0.1
) -> Autoencoder:
    """A fully connected autoencoder of vectors with fresh weights.

    Args:
        spec: What the vectors are.
        latent_size: Size of the latents, at most that of the data.
        width: Size of the hidden layers.
        depth: Number of hidden layers of the encoder, and of the decoder.
        noise_std: See `Autoencoder`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the data are no vectors, or a number is out of range.
    """
    table = arguments_of({k: v for k, v in locals().items() if k != "spec"})
    for name, value in (("width", width), ("depth", depth)):
        check_integer(name, value, minimum=1)
    size = _size(spec, latent_size)
    encoder = _layers([size, *[width] * depth, 2 * latent_size])
    decoder = _layers([latent_size, *[width] * depth, size])
    return Autoencoder(encoder, decoder, spec, (latent_size,), noise_std, {"kind": "mlp", **table})


def _layers(sizes: list[int]) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.SiLU()] * bool(layers) + [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def _size(spec: DataSpec, latent_size: int) -> int:
    check_integer("latent_size", latent_size, minimum=1)
    if len(spec.shape) != 1:
        raise ValueError(
            f"this autoencoder takes vectors (D,), got data of shape {spec.shape}; images take "
            'kind "convolutional"'
        )
    return spec.shape[0]


@torch.no_grad()
def probabilistic_pca(x: Tensor, spec: DataSpec, latent_size: int) -> Autoencoder:
    """The linear autoencoder of largest likelihood, in closed form.

        W = U (Λ − s² I)^½,     s² = mean of the other D − d eigenvalues
        u | x ~ N(M⁻¹ Wᵀ(x − c), s² M⁻¹),     M = WᵀW + s² I = Λ

    U and Λ are the first d eigenvectors and eigenvalues of the covariance of x, and c its mean.
    Tipping and Bishop 1999, J. R. Stat. Soc. B 61, 611, eqs. (6), (7), (8) with R = I. Because M is
    diagonal, q(u | x) is the exact posterior, and u ~ N(0, I): the model is
    x ~ N(c, W Wᵀ + s² I).

    Args:
        x: Vectors at the model's scale, shape (N, D), N above 1.
        spec: What they are; continuous.
        latent_size: d, below D.

    Raises:
        ValueError: If d is not below D, or the covariance has less than d + 1 eigenvalues above 0.
    """
    if spec.levels is not None:
        raise ValueError(f"spec must be one of continuous data, got {spec.levels} levels")
    if latent_size >= spec.shape[0]:
        raise ValueError(f"latent_size must be below {spec.shape[0]}, got {latent_size}")
    x = x.double()
    values, vectors = torch.linalg.eigh(torch.cov(x.mT, correction=0))
    values, vectors = values.flip(0), vectors.flip(1)
    kept, rest = values[:latent_size], values[latent_size:].mean()
    if not bool(rest > 0):
        raise ValueError("the covariance of x must have more than latent_size eigenvalues above 0")
    w = vectors[:, :latent_size] * (kept - rest).clamp(min=0).sqrt()
    found = linear_autoencoder(spec, latent_size, float(rest.sqrt())).double()
    found.encoder.mean.weight.copy_(w.mT / kept[:, None])
    found.encoder.mean.bias.copy_(-(w.mT / kept[:, None]) @ x.mean(0))
    found.encoder.log_std.copy_(0.5 * (rest / kept).log())
    found.decoder.weight.copy_(w)
    found.decoder.bias.copy_(x.mean(0))
    found.log_noise_std.fill_(0.5 * rest.log())
    return found
