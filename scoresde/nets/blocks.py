"""Building blocks of the networks, and the check of their inputs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from .._tensor import check_integer, check_type, plain_number
from .axes import CONVOLUTIONS
from .dropout import Dropout

__all__ = [
    *("Attention", "LinearAttention", "ResidualBlock", "arguments_of", "attend", "attended"),
    *("check_inputs", "group_norm", "image_shape", "recomputed", "zeroed"),
]

_HEAD_CHANNELS = 128
_LINEAR_HEAD_CHANNELS = 32

Layer = TypeVar("Layer", bound=nn.Module)


def arguments_of(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor as plain data, from its `locals()` in the first line.

    A saved model holds them, so that the network can be made again. Those that are None are left
    out.
    """
    given = {k: v for k, v in scope.items() if k not in ("self", "__class__") and v is not None}
    many = {k: [plain_number(n) for n in v] for k, v in given.items() if _is_many(v)}
    return {key: many.get(key, plain_number(value)) for key, value in given.items()}


def level_factors(multipliers: Sequence[int]) -> list[int]:
    """The multipliers of the levels of a U-Net, checked: at least one, each at least 1."""
    if len(multipliers) == 0:
        raise ValueError("multipliers must name at least one level, got none")
    return [check_integer("each entry of multipliers", m, minimum=1) for m in multipliers]


def output_channels(shape: Sequence[int], learned_variance: bool) -> int:
    """C output channels of a network of images (C, H, W), 2C with a learned variance."""
    check_type("learned_variance", learned_variance, bool)
    return shape[0] * (2 if learned_variance else 1)


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


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of images, checked to be three integers of at least 1."""
    if len(shape) != 3:
        one = len(shape) == 1
        hint = 'vectors take an MLP ("mlp")' if one else 'series and volumes take a UNet ("unet")'
        raise ValueError(
            f"shape must be (C, H, W) for this network of images, got {tuple(shape)}; {hint}"
        )
    channels, height, width = (check_integer("each entry of shape", n, minimum=1) for n in shape)
    return channels, height, width


def attended(name: str, sides: Sequence[int], chosen: Sequence[int]) -> list[bool]:
    """Whether each level, of features with this larger side, is among the chosen sides.

    Raises:
        ValueError: If no level has a chosen side; `name` is the argument for the message.
    """
    for side in chosen:
        if side not in sides:
            raise ValueError(f"{name} must name resolutions among {list(sides)}, got {side!r}")
    return [side in chosen for side in sides]


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


def recomputed(block: nn.Module, *inputs: Tensor) -> Tensor:
    """block(*inputs), of which only the inputs are kept; the backward pass computes the rest again.

    Chen et al. 2016, arXiv:1604.06174, by `torch.utils.checkpoint`. Dropout draws the same numbers
    in both computations.
    """
    return checkpoint(block, *inputs, use_reentrant=False)


class ResidualBlock(nn.Module):
    """x ↦ s (W x + conv(silu(norm(conv(silu(norm(x))) + embedding)))).

    The residual block of DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B). s = √½ keeps the
    variance of the sum of two branches (Song et al. 2021, arXiv:2011.13456, appendix H); W is
    the identity, or a convolution of side 1 where the number of channels changes. The last
    convolution starts at zero.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        width: Size of the conditioning vector.
        dropout: Probability in [0, 1).
        skip_scale: Multiply the sum by √½.
        axes: Number of axes of the grid: 1, 2 or 3.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        width: int,
        dropout: float,
        skip_scale: bool,
        axes: int = 2,
    ) -> None:
        super().__init__()
        conv = CONVOLUTIONS[axes]
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(width, channels_out)
        self.norm2 = group_norm(channels_out)
        self.dropout = Dropout(dropout)
        self.conv2 = zeroed(conv(channels_out, channels_out, 3, padding=1))
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else conv(channels_in, channels_out, 1)
        self.scale = math.sqrt(0.5) if skip_scale else 1.0

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Features, shape (B, channels_in, *sizes).
            embedding: Conditioning vector after its nonlinearity, shape (B, width).

        Returns:
            Shape (B, channels_out, *sizes).
        """
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.condition(embedding).reshape(*h.shape[:2], *[1] * (h.ndim - 2))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (self.skip(x) + h) * self.scale


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ/√d) v, all of shape (B, heads, positions, d); every derivative exists.

    With a `mask` (bool, shape (B, 1, 1, positions)) only the k and v where it is True count.
    """
    # Only the plain kernel has a forward-mode derivative, which exact traces of a Jacobian may use.
    # (It is also the only kernel with second derivatives, for callers that set this context.)
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(q).tangent is not None:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, mask)


def _heads(channels: int, size: int) -> int:
    """The number of heads of about `size` channels that divides the channels."""
    return max(n for n in range(1, max(1, channels // size) + 1) if channels % n == 0)


class _SelfAttention(nn.Module):
    """x ↦ s (x + proj(mix(q, k, v))), (q, k, v) = W norm(x), over all positions of a grid.

    A subclass says by `mix` how the values are combined. The projection starts at zero.

    Args:
        channels: Channels of input and output.
        skip_scale: Multiply the sum by √½.
        heads: Number of heads, which divides the channels.
    """

    def __init__(self, channels: int, skip_scale: bool, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zeroed(nn.Linear(channels, channels))
        self.scale = math.sqrt(0.5) if skip_scale else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Apply attention to features of shape (B, channels, *sizes); same shape out."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, positions, channels)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.mix(q, k, v)
        out = self.proj(mixed.transpose(1, 2).flatten(2))
        return (x + out.transpose(1, 2).reshape(x.shape)) * self.scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mixed values; all of shape (B, heads, positions, channels / heads)."""
        raise NotImplementedError


class Attention(_SelfAttention):
    """Self-attention: each position takes softmax(q kᵀ/√d) v, d the channels of a head.

    Vaswani et al. 2017, arXiv:1706.03762, section 3.2, through
    `torch.nn.functional.scaled_dot_product_attention`. The cost grows with the square of the
    number of positions.

    Args:
        channels: Channels of input and output.
        skip_scale: Multiply the sum by √½.
        heads: Number of heads, which divides the channels; None for heads of about 128 channels.
    """

    def __init__(self, channels: int, skip_scale: bool, heads: int | None = None) -> None:
        super().__init__(channels, skip_scale, heads or _heads(channels, _HEAD_CHANNELS))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax over the positions of q kᵀ/√d, times v."""
        return attend(q, k, v)


class LinearAttention(_SelfAttention):
    """Linear attention: softmax_d(q) (softmax_n(k)ᵀ v), in heads of about 32 channels.

    The softmax of q runs over the d channels of a head, and that of k over the n positions. So the
    (d, d) matrix in brackets is the same for all positions, and the cost grows linearly with their
    number. The weights that a position gives to all others are at least 0 and sum to 1, as those of
    full attention do. Shen et al. 2018, arXiv:1812.01243, "efficient attention" with softmax
    normalization, here in several heads.

    Args:
        channels: Channels of input and output.
        skip_scale: Multiply the sum by √½.
    """

    def __init__(self, channels: int, skip_scale: bool) -> None:
        super().__init__(channels, skip_scale, _heads(channels, _LINEAR_HEAD_CHANNELS))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The values, averaged with the softmax of k, and mixed by the softmax of q."""
        context = k.softmax(dim=-2).transpose(-1, -2) @ v
        return q.softmax(dim=-1) @ context
