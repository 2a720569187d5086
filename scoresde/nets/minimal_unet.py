"""A minimal convolutional U-Net: double convolutions, to which the time is added."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import ConditionSpec
from .._tensor import check_integer
from .blocks import arguments_of, check_inputs, image_shape, zeroed
from .embedding import SinusoidalEmbedding

__all__ = ["MinimalUNet"]


class _DoubleConvolution(nn.Module):
    """Twice conv 3×3, norm, GELU; then A silu(e) is added, where e is the embedding of the label.

    The norm is a group norm of one group: over all channels and pixels of an image.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            layers.append(nn.Conv2d(channels, channels_out, 3, padding=1))
            layers += [nn.GroupNorm(1, channels_out), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(width, channels_out))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.layers(h) + self.time(embedding)[..., None, None]


class MinimalUNet(nn.Module):
    """Minimal U-Net F(x, label): the output has the shape of x and is zero at initialisation.

    Each level has one double convolution on the way down and one on the way up. Between levels the
    features are halved by the maximum over 2×2 pixels, and doubled by bilinear interpolation, which
    does not align the corners. On the way up they are joined with the downward features of the same
    size. Ronneberger et al. 2015, arXiv:1505.04597, with padded convolutions, a norm, GELU, and a
    sinusoidal embedding of the noise label that each level receives through its own linear layer.
    There is no attention, no residual connection and no dropout.

    Attributes:
        condition: The conditions that it takes: none.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers: none.

    Args:
        shape: Image shape (C, H, W), all at least 1; 2^(levels − 1) divides H and W.
        channels: Channels of the first level.
        multipliers: Channels of each level in units of `channels`; its length is the number of
            levels.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or the levels cannot halve the sides.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, shape: Sequence[int], channels: int = 32, multipliers: Sequence[int] = (1, 2, 4, 4)
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        self.condition = ConditionSpec()
        self.shape = image_shape(shape)
        channels = check_integer("channels", channels, minimum=1)
        if len(multipliers) == 0:
            raise ValueError("multipliers must name at least one level, got none")
        widths = [
            channels * check_integer("each entry of multipliers", m, minimum=1) for m in multipliers
        ]
        _check_shape(self.shape, len(widths))
        embedded = 4 * channels
        self.waves = SinusoidalEmbedding(embedded // 2)
        pairs = zip([self.shape[0], *widths[:-1]], widths, strict=True)
        self.down = nn.ModuleList(_DoubleConvolution(a, b, embedded) for a, b in pairs)
        pairs = reversed(list(zip(widths[1:], widths[:-1], strict=True)))
        self.up = nn.ModuleList(_DoubleConvolution(a + b, b, embedded) for a, b in pairs)
        self.head = zeroed(nn.Conv2d(widths[0], self.shape[0], 1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy images, shape (B, C, H, W), in the dtype of the weights.
            label: Noise label, shape (B,); embedded in float32 or better.

        Returns:
            Shape (B, C, H, W), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong.
        """
        check_inputs(x, label, self.shape)
        embedding = self.waves(label).to(self.head.weight.dtype)
        h, kept = x, []
        for level in self.down:
            h = level(F.max_pool2d(h, 2) if kept else h, embedding)
            kept.append(h)
        kept.pop()  # the features of the lowest level go up
        for level in self.up:
            h = F.interpolate(h, scale_factor=2.0, mode="bilinear", align_corners=False)
            h = level(torch.cat([h, kept.pop()], dim=1), embedding)
        return self.head(h).to(x.dtype)


def _check_shape(shape: Sequence[int], levels: int) -> None:
    """Raise ValueError unless images of this shape can be halved between all levels."""
    multiple = 2 ** (levels - 1)
    if any(size % multiple for size in shape[1:]):
        raise ValueError(
            f"shape must be (C, H, W) with sides that {multiple} divides, for {levels} levels, got "
            f"{tuple(shape)}; data.size resizes square images"
        )
