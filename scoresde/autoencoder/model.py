"""`Autoencoder`: a variational autoencoder, whose latents are the data of a score model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._tensor import check_integer, check_number, check_type
from ..data import DataSpec
from ..likelihood.vlb.decoder import cell_log_prob
from ..noise import Noise, SampleNoise
from .gaussian import entropy, kl_to_normal, log_normal

__all__ = ["Autoencoder"]

# Bounds of log_std, those of diffusers: outside of them exp would be 0 or infinite in float32.
_LEAST_LOG_STD, _MOST_LOG_STD = -15.0, 10.0
_WINDOW = 8.0  # latents have std 1: a Gaussian is outside of ±8 with probability 1e-15


class Autoencoder(nn.Module):
    """A variational autoencoder: q(z | x) of an encoder, p(x | z) of a decoder.

        q(z | x) = N(z; m(x), diag s(x)²),     p(x | z) = N(x; decode(z), noise_std² I)

    Kingma and Welling 2014, arXiv:1312.6114. The encoder knows raw latents u, whose prior in
    training is N(0, I). Everybody else sees z = (u − latent_mean)/latent_std, for each channel, so
    that the latents of the training data have mean 0 and standard deviation 1 in each channel;
    `fit_scale` measures these two. Before that they are 0 and 1, and z = u.

    Data x are points at the model's scale of `spec`, floating point. For quantized data integer
    levels are allowed as well: the encoder sees the centre of their cell, and p(x | z) is the
    probability of the cell, so that bits/dim are those of levels.

    Attributes:
        spec: What the data are.
        latent_shape: Shape of z without the batch axis; its first axis is that of the channels.
        latent_mean: Mean of the raw latents of each channel.
        latent_std: Standard deviation of the raw latents of each channel.
        log_noise_std: log noise_std, a parameter.
        table: Kind and options from which the networks can be made again; None for networks of the
            user's own.

    Args:
        encoder: Maps x, shape (B, *spec.shape), to m and log s of raw latents, one after the other
            along the channels: shape (B, 2 · latent_shape[0], *latent_shape[1:]).
        decoder: Maps raw latents, shape (B, *latent_shape), to the mean of x.
        spec: What the data are; no sets.
        latent_shape: Shape of the latents.
        noise_std: Standard deviation of p(x | z) at the model's scale, above 0, before the
            training, which learns it. It should be below the final errors of reconstructions: then
            the training learns to reconstruct first. Where it is larger, q(z | x) stays near
            N(0, I).
        table: See the attribute.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If a size or `noise_std` is out of range, the data are sets, or the latents
            have more numbers than the data.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        spec: DataSpec,
        latent_shape: Sequence[int],
        noise_std: float = 0.1,
        table: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_type("spec", spec, DataSpec)
        shape = tuple(
            check_integer("each entry of latent_shape", n, minimum=1) for n in latent_shape
        )
        check_sizes(spec, shape)
        self.encoder, self.decoder, self.spec, self.latent_shape = encoder, decoder, spec, shape
        self.table = None if table is None else dict(table)
        start = math.log(check_number("noise_std", noise_std, above=0))
        self.log_noise_std = nn.Parameter(torch.tensor(start))
        self.register_buffer("latent_mean", torch.zeros(shape[0]))
        self.register_buffer("latent_std", torch.ones(shape[0]))

    @property
    def noise_std(self) -> Tensor:
        """Standard deviation of p(x | z) at the model's scale, shape ()."""
        return self.log_noise_std.exp()

    @property
    def latent_spec(self) -> DataSpec:
        """What the latents are: continuous data with the classes, vectors and tokens of the data.

        A condition that is an array of the data's size has another size than the latents, and is
        left out.
        """
        name = f"latents of {self.spec.name}" if self.spec.name else "latents"
        changed = {"shape": self.latent_shape, "low": -_WINDOW, "high": _WINDOW, "name": name}
        gone = ("levels", "array", "transform", "feature_names")
        return replace(self.spec, **changed, **dict.fromkeys(gone))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile both networks in place; arguments as for `torch.nn.Module.compile`."""
        for net in (self.encoder, self.decoder):
            net.compile(*args, **kwargs)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), each of shape (B, *latent_shape).

        Args:
            x: Points at the model's scale or levels, shape (B, *spec.shape).

        Raises:
            ValueError: If x has another shape than the data.
        """
        mean, log_std = self.raw_posterior(x)
        shift, scale = self._scale(mean)
        return (mean - shift) / scale, log_std - scale.log()

    def raw_posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the raw latents; arguments as for `posterior`."""
        moments = self.encoder(self._points(x))
        wanted = (len(x), 2 * self.latent_shape[0], *self.latent_shape[1:])
        if tuple(moments.shape) != wanted:
            raise ValueError(
                f"encoder must give means and log standard deviations of shape {wanted}, got "
                f"{tuple(moments.shape)}"
            )
        mean, log_std = moments.chunk(2, dim=1)
        return mean, log_std.clamp(_LEAST_LOG_STD, _MOST_LOG_STD)

    def encode(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """The mean of q(z | x), or a draw of it, shape (B, *latent_shape).

        Args:
            x: Points at the model's scale or levels, shape (B, *spec.shape).
            noise: Source of the draw, for instance `SampleNoise(seed, indices)`; None gives the
                mean.

        Raises:
            ValueError: If x has another shape than the data.
        """
        mean, log_std = self.posterior(x)
        return mean if noise is None else mean + log_std.exp() * noise.fresh(mean)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z) at the model's scale, not clipped, shape (B, *spec.shape).

        Raises:
            ValueError: If z has another shape than (B, *latent_shape).
        """
        self._check("z", z, self.latent_shape)
        shift, scale = self._scale(z)
        return self.decode_raw(shift + scale * z)

    def decode_raw(self, u: Tensor) -> Tensor:
        """As `decode`, of raw latents."""
        return self.decoder(u)

    def log_conditional(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, shape (B,), float64.

        For quantized data it is the probability of the levels, otherwise the density at the model's
        scale.

        Args:
            x: Points at the model's scale or levels, shape (B, *spec.shape). Points of quantized
                data stand for the nearest level.
            z: Latents, shape (B, *latent_shape).

        Raises:
            ValueError: If x or z have another shape.
        """
        return self.log_likelihood_of_mean(x, self.decode(z))

    def log_likelihood_of_mean(self, x: Tensor, mean: Tensor) -> Tensor:
        """log p(x | z) in nats, shape (B,), float64, for the mean that the decoder gives."""
        self._check("x", x, self.spec.shape)
        std = self.noise_std.double()
        if self.spec.levels is None:
            return log_normal(x, mean, std.log().expand(mean.shape))
        k = self.spec.to_levels(x) if x.is_floating_point() else x
        return cell_log_prob(k, mean, std, self.spec)

    def kl(self, x: Tensor) -> Tensor:
        """KL(q(u | x) ‖ N(0, I)) of raw latents, the prior of the training; nats, (B,), float64."""
        return kl_to_normal(*self.raw_posterior(x))

    def entropy(self, x: Tensor) -> Tensor:
        """Entropy of q(z | x) in nats, shape (B,), float64."""
        return entropy(self.posterior(x)[1])

    @torch.no_grad()
    def fit_scale(self, batches: Iterable[Tensor]) -> None:
        """Measure `latent_mean` and `latent_std` of draws of q(z | x) over data, for each channel.

            mean = E m(x),     std² = E s(x)² + Var m(x)     over data and positions

        Args:
            batches: Batches of data, each as for `posterior`; at least 2 data in all.

        Raises:
            ValueError: If there are too few data, or the latents of a channel do not vary.
        """
        count, first, second = 0, 0.0, 0.0
        for x in batches:
            mean, log_std = (
                value.double().flatten(2) for value in map(_with_positions, self.raw_posterior(x))
            )
            count += mean.shape[0] * mean.shape[2]
            first = first + mean.sum(dim=(0, 2))
            second = second + (mean.square() + (2 * log_std).exp()).sum(dim=(0, 2))
        if count < 2:
            raise ValueError(f"fit_scale needs at least 2 data, got {count}")
        mean = first / count
        variance = second / count - mean.square()
        if not bool((variance > 0).all()):
            raise ValueError(
                f"the latents must vary in each channel, got variances {variance.tolist()}"
            )
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(variance.sqrt())

    @torch.no_grad()
    def fit_noise(self, batches: Iterable[Tensor], seed: int = 0) -> None:
        """Measure `noise_std`, for an autoencoder that came without one.

            noise_std² = E |x − decode(z)|²/D,     z ~ q(z | x)

        This is the largest likelihood of continuous data.

        Args:
            batches: Batches of data, each as for `posterior`.
            seed: Seed of the draws of z.

        Raises:
            ValueError: If there are no data, or they are reconstructed without any error.
        """
        count, total = 0, 0.0
        for x in batches:
            noise = SampleNoise(seed, range(count, count + len(x)))
            gap = self._points(x).double() - self.decode(self.encode(x, noise)).double()
            count, total = count + len(x), total + float(gap.square().sum())
        if count == 0 or total == 0:
            raise ValueError(
                f"fit_noise needs data with errors of reconstruction, got {count} data"
            )
        self.log_noise_std.fill_(0.5 * math.log(total / (count * self.spec.dims)))

    def _scale(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of raw latents, in a shape that broadcasts with z."""
        shape = (-1, *[1] * (z.ndim - 2))
        return self.latent_mean.to(z).reshape(shape), self.latent_std.to(z).reshape(shape)

    def _points(self, x: Tensor) -> Tensor:
        """Points at the model's scale in the dtype of the weights."""
        self._check("x", x, self.spec.shape)
        points = x if x.is_floating_point() else self.spec.encode(x)
        return points.to(self.log_noise_std)

    def _check(self, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(value.shape[1:]) != shape:
            wanted = ", ".join(["B", *map(str, shape)])
            raise ValueError(
                f"{name} must have shape ({wanted}) for this autoencoder, got {tuple(value.shape)}"
            )


def check_sizes(spec: DataSpec, latent_shape: tuple[int, ...]) -> None:
    """Raise ValueError unless data of this kind can have latents of this shape."""
    if spec.sizes is not None:
        raise ValueError("spec must not be one of sets of points, which an autoencoder cannot take")
    if not latent_shape:
        raise ValueError("latent_shape must have at least one axis, got ()")
    if math.prod(latent_shape) > spec.dims:
        raise ValueError(
            f"latent_shape must have at most as many numbers as the data, {spec.dims} of shape "
            f"{spec.shape}, got {latent_shape}"
        )


def _with_positions(value: Tensor) -> Tensor:
    """Latents with at least one axis of positions after that of the channels."""
    return value.unsqueeze(2) if value.ndim == 2 else value
