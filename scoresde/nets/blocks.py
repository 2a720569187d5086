"""Building blocks of the networks, and the check of their inputs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._tensor import plain_number

__all__ = ["Attention", "ResidualBlock", "arguments_of", "check_inputs", "group_norm", "zeroed"]

_HEAD_CHANNELS = 128

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def arguments_of(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor as plain data, from its `locals()` in the first line.

    A saved model holds them, so that the network can be made again. Those that are None are left
    out.
    """
    given = {k: v for k, v in scope.items() if k not in ("self", "__class__") and v is not None}
    many = {k: [plain_number(n) for n in v] for k, v in given.items() if _is_many(v)}
    return {key: many.get(key, plain_number(value)) for key, value in given.items()}


def _is_many(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def check_inputs(x: Tensor, label: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless x has shape (B, *shape) and label has shape (B,)."""
    if x.shape[1:] != shape or label.shape != x.shape[:1]:
        wanted = ", ".join(["B", *map(str, shape)])
        raise ValueError(
            f"x must have shape ({wanted}) and label (B,), "
            f"got {tuple(x.shape)} and {tuple(label.shape)}"
        )


def zeroed(layer: Layer) -> Layer:
    """The given layer with weight and bias set to zero, so that its branch is zero at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with the most groups that divide the channels: at most 32, of 4 channels or more.

    Normalizing a group of only one or two channels removes the relative strength of features, which
    narrow networks (32 channels) need.
    """
    groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 4))
    return nn.GroupNorm(groups, channels)


class ResidualBlock(nn.Module):
    """x ↦ s (W x + conv(silu(norm(conv(silu(norm(x))) + embedding)))).

    The residual block of DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B). s = √½ keeps the
    variance of the sum of two branches (Song et al. 2021, arXiv:2011.13456, appendix H); W is
    the identity, or a 1×1 convolution where the number of channels changes. The last
    convolution starts at zero.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        width: Size of the conditioning vector.
        dropout: Probability in [0, 1).
        skip_scale: Multiply the sum by √½.
    """

    def __init__(
        self, channels_in: int, channels_out: int, width: int, dropout: float, skip_scale: bool
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(width, channels_out)
        self.norm2 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.scale = math.sqrt(0.5) if skip_scale else 1.0

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, shape (B, channels_in, H, W).
            embedding: Conditioning vector after its nonlinearity, shape (B, width).

        Returns:
            Shape (B, channels_out, H, W).
        """
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.condition(embedding)[..., None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.skip(x) + h) * self.scale


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Only the plain kernel has a forward-mode derivative, which exact traces of a Jacobian may use.
    # (It is also the only kernel with second derivatives, for callers that set this context.)
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(q).tangent is not None:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """x ↦ s (x + proj(attention(norm(x)))) over all positions, in heads of about 128 channels.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2, through
    `torch.nn.functional.scaled_dot_product_attention`. The projection starts at zero.

    Args:
        channels: Channels of input and output.
        skip_scale: Multiply the sum by √½.
    """

    def __init__(self, channels: int, skip_scale: bool) -> None:
        super().__init__()
        wanted = max(1, channels // _HEAD_CHANNELS)
        self.heads = max(n for n in range(1, wanted + 1) if channels % n == 0)
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zeroed(nn.Linear(channels, channels))
        self.scale = math.sqrt(0.5) if skip_scale else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to features of shape (B, channels, H, W); same shape out."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H·W, channels)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = _attend(q, k, v)  # (B, heads, H·W, channels / heads)
        out = self.proj(mixed.transpose(1, 2).flatten(2))
        return (x + out.transpose(1, 2).reshape(x.shape)) * self.scale
