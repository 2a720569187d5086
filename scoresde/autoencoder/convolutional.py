"""The convolutional encoder and decoder of images: those of Stable Diffusion, in any size.

Rombach et al. 2022, arXiv:2112.10752, section 3.1. Layers and names of tensors are those of
diffusers' AutoencoderKL, so that its weights fit; see `interop.autoencoder_kl`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._tensor import check_integer, check_type
from ..data import DataSpec
from ..nets.block_parts import AttentionBlock, Form, Strided, Upsampled
from ..nets.blocks import arguments_of
from .model import Autoencoder

__all__ = ["Decoder", "Encoder", "convolutional_autoencoder"]

_EPS = 1e-6  # of every normalization
_NO_EMBEDDING = None  # the blocks know no noise level


class _Block(nn.Module):
    """x ↦ W x + conv(silu(norm(conv(silu(norm(x)))))), W a 1×1 convolution or the identity."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, _EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, channels_out, _EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.conv_shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class _Middle(nn.Module):
    """A block, attention over all positions if it is wanted, and a second block."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        form = Form(0, groups, _EPS, None, False, "silu", 0.0, 0)
        self.attentions = nn.ModuleList([AttentionBlock(channels, form, groups)] * attention)
        self.resnets = nn.ModuleList(_Block(channels, channels, groups) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        h = self.resnets[0](h)
        for layer in self.attentions:
            h = layer(h)
        return self.resnets[1](h)


class _Down(nn.Module):
    """The blocks of one level of the encoder, then half the resolution, but for the last level."""

    def __init__(self, a: int, b: int, layers: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Block(b if i else a, b, groups) for i in range(layers))
        self.downsamplers = nn.ModuleList([] if last else [Strided(b, padding=0)])

    def forward(self, h: Tensor) -> Tensor:
        for block in self.resnets:
            h = block(h)
        for layer in self.downsamplers:
            h = layer(h, _NO_EMBEDDING)
        return h


class _Up(nn.Module):
    """The blocks of one level of the decoder, then twice the resolution, but for the last level."""

    def __init__(self, a: int, b: int, layers: int, groups: int, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Block(b if i else a, b, groups) for i in range(layers))
        self.upsamplers = nn.ModuleList([] if last else [Upsampled(b)])

    def forward(self, h: Tensor) -> Tensor:
        for block in self.resnets:
            h = block(h)
        for layer in self.upsamplers:
            h = layer(h, _NO_EMBEDDING)
        return h


class Encoder(nn.Module):
    """Images ↦ mean and log standard deviation of raw latents, one after the other.

    Args:
        channels_in: Channels of the images.
        latent_channels: Channels of the latents.
        channels: Channels of each level; the next level has half the resolution.
        layers: Blocks of each level.
        groups: Groups of the normalizations.
        attention: Whether the lowest level has attention.
        mixed: Whether a 1×1 convolution mixes the channels at the end.
    """

    def __init__(
        self,
        channels_in: int,
        latent_channels: int,
        channels: Sequence[int],
        layers: int,
        groups: int,
        attention: bool,
        mixed: bool,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels_in, channels[0], 3, padding=1)
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            _Down(channels[max(i - 1, 0)], b, layers, groups, i == last)
            for i, b in enumerate(channels)
        )
        self.mid_block = _Middle(channels[-1], groups, attention)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], _EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * latent_channels, 3, padding=1)
        size = 2 * latent_channels
        self.quant_conv = nn.Conv2d(size, size, 1) if mixed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (B, C, H, W) ↦ (B, 2 · latent_channels, h, w)."""
        h = self.conv_in(x)
        for block in self.down_blocks:
            h = block(h)
        h = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))
        mean, log_variance = self.quant_conv(h).chunk(2, dim=1)
        return torch.cat([mean, 0.5 * log_variance], dim=1)


class Decoder(nn.Module):
    """Raw latents ↦ images; the arguments are those of `Encoder`.

    Each level has one block more than the encoder's.
    """

    def __init__(
        self,
        channels_out: int,
        latent_channels: int,
        channels: Sequence[int],
        layers: int,
        groups: int,
        attention: bool,
        mixed: bool,
    ) -> None:
        super().__init__()
        z, upwards = latent_channels, list(reversed(channels))
        self.post_quant_conv = nn.Conv2d(z, z, 1) if mixed else nn.Identity()
        self.conv_in = nn.Conv2d(z, upwards[0], 3, padding=1)
        self.mid_block = _Middle(upwards[0], groups, attention)
        last = len(channels) - 1
        self.up_blocks = nn.ModuleList(
            _Up(upwards[max(i - 1, 0)], b, layers + 1, groups, i == last)
            for i, b in enumerate(upwards)
        )
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], _EPS)
        self.conv_out = nn.Conv2d(channels[0], channels_out, 3, padding=1)

    def forward(self, u: Tensor) -> Tensor:
        """u of shape (B, latent_channels, h, w) ↦ (B, C, H, W)."""
        h = self.mid_block(self.conv_in(self.post_quant_conv(u)))
        for block in self.up_blocks:
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


def convolutional_autoencoder(
    spec: DataSpec,
    latent_channels: int = 4,
    channels: Sequence[int] = (32, 64, 64),
    layers: int = 1,
    groups: int = 8,
    attention: bool = False,
    mixed_encoder: bool = True,
    mixed_decoder: bool = True,
    noise_std: float = 0.1,
) -> Autoencoder:
    """An autoencoder of images with fresh weights.

    With n levels the latents of images (C, H, W) have shape (latent_channels, H/2^(n−1),
    W/2^(n−1)).

    Args:
        spec: What the images are.
        latent_channels: Channels of the latents.
        channels: Channels of each level, at full resolution first.
        layers: Blocks of each level of the encoder; the decoder has one more.
        groups: Groups of the normalizations; divides all `channels`.
        attention: Whether the lowest level has attention.
        mixed_encoder: Whether a 1×1 convolution ends the encoder.
        mixed_decoder: Whether a 1×1 convolution begins the decoder.
        noise_std: See `Autoencoder`.

    Raises:
        TypeError: If an argument has a wrong type.
        ValueError: If the data are no images, their sides cannot be halved so often, or a number is
            out of range.
    """
    table = arguments_of({k: v for k, v in locals().items() if k != "spec"})
    check_type("attention", attention, bool)
    for name, value in (("latent_channels", latent_channels), ("layers", layers)):
        check_integer(name, value, minimum=1)
    widths = [check_integer("each entry of channels", n, minimum=1) for n in channels]
    check_integer("groups", groups, minimum=1)
    shape = _latent_shape(spec, latent_channels, len(widths))
    for width in widths:
        if width % groups:
            raise ValueError(f"groups must divide all channels {widths}, got {groups}")
    sizes = (spec.shape[0], latent_channels, widths, layers, groups, attention)
    encoder, decoder = Encoder(*sizes, mixed_encoder), Decoder(*sizes, mixed_decoder)
    return Autoencoder(encoder, decoder, spec, shape, noise_std, {"kind": "convolutional", **table})


def _latent_shape(spec: DataSpec, channels: int, levels: int) -> tuple[int, int, int]:
    """The shape of the latents, or ValueError if the data have none with so many levels."""
    if len(spec.shape) != 3 or spec.sizes is not None:
        raise ValueError(
            f"this autoencoder takes images (C, H, W), got data of shape {spec.shape}; vectors "
            'take kind "mlp"'
        )
    if levels == 0:
        raise ValueError("channels must name at least one level, got none")
    factor = 2 ** (levels - 1)
    if any(side % factor for side in spec.shape[1:]):
        raise ValueError(
            f"channels must name at most {_most_levels(spec.shape)} levels, so that the sides of "
            f"{spec.shape} can be halved, got {levels}"
        )
    return channels, spec.shape[1] // factor, spec.shape[2] // factor


def _most_levels(shape: Sequence[int]) -> int:
    """How many levels images of this shape can have."""
    levels = 1
    while all(side % 2**levels == 0 for side in shape[1:]):
        levels += 1
    return levels
