"""A noise-conditional U-Net for series, images and volumes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._tensor import check_integer, check_number
from .axes import CONVOLUTIONS, POOLS, cropped, folded, grid_shape, padding, unfolded
from .blocks import (
    Attention,
    ResidualBlock,
    arguments_of,
    attended,
    check_inputs,
    group_norm,
    level_factors,
    output_channels,
    recomputed,
    zeroed,
)
from .embedding import LabelEmbedding

__all__ = ["Level", "UNet"]


class Level(nn.Module):
    """Residual blocks at one resolution, with attention after the first if `attend`.

    With `checkpointing` each of them is `recomputed` in a training step.
    """

    checkpointing = False

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        dropout: float,
        skip_scale: bool,
        axes: int,
        attend: bool,
    ) -> None:
        super().__init__()
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, width, dropout, skip_scale, axes) for a, b in pairs
        )
        self.attention = Attention(channels[1], skip_scale) if attend else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Apply the level to features (B, channels, *sizes) with an embedding (B, width)."""
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        call = recomputed if again else _called
        h = call(self.blocks[0], h, embedding)
        if not isinstance(self.attention, nn.Identity):
            h = call(self.attention, h)
        for block in self.blocks[1:]:
            h = call(block, h, embedding)
        return h


def _called(block: nn.Module, *inputs: Tensor) -> Tensor:
    return block(*inputs)


class UNet(nn.Module):
    """U-Net F(x, label, y): the output has the shape of x and is zero at initialisation.

    The data have one, two or three axes besides the channels: series (C, L), images (C, H, W) or
    volumes (C, D, H, W). Each level has residual blocks at one resolution. In the downward half the
    features are averaged between levels, over 2 neighbours along each axis. In the upward half they
    are repeated twice along each axis and joined with the downward features of the same resolution.
    The lowest level has one more block and is the middle.
    Ronneberger et al. 2015, arXiv:1505.04597, with the blocks of Ho et al. 2020, arXiv:2006.11239,
    appendix B. Here features are joined once per level and not once per block, so that most of the
    weights are at the lowest resolution, where they cost least.

    Sizes that `patch · 2^(levels − 1)` does not divide are padded by repeating the border, half on
    each side (the odd one at the end of the axis), and the result is cropped.

    Attributes:
        condition: The conditions that it takes.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.
        checkpointing: Whether the blocks keep only their inputs for the backward pass of a
            training step, and are computed again there; False at first.

    Args:
        shape: Data shape (C, L), (C, H, W) or (C, D, H, W), all at least 1.
        channels: Channels of the first level.
        multipliers: Channels of each level in units of `channels`; its length is the number of
            levels.
        blocks: Residual blocks per level, in the downward and in the upward half.
        attention: Resolutions (largest side of the feature map, after padding and the stem) that
            get attention, after the first block of each level; None for the lowest resolution.
        dropout: Dropout probability in every block, in [0, 1).
        classes: Number of classes, or None. See `ConditionSpec`.
        patch: Side of the patches that the stem folds into channels (pixel unshuffle). For images,
            side 2 costs about a quarter of side 1.
        embedding: "fourier", "sinusoidal" or "ddpm" embedding of the noise label; see
            `LabelEmbedding`.
        skip_scale: Multiply every residual sum by √½.
        vector: Length of a vector of numbers as condition, or None.
        array: Channels of an array of the data's size as condition, or None. They are joined with
            the channels of the data.
        fourier: Numbers n of Fourier features of the input: sin(2ⁿπ x) and cos(2ⁿπ x) are joined
            with the channels of the data, so that the network sees their fine detail. Here x is the
            input of the network, c_in x_t, which tends to the data at low noise where c_in tends
            to 1 (to 1/σ_data for the target "edm"). The centres of 256 levels on [−1, 1] are 2⁻⁷
            apart: sin(2⁷π x) is 1 and −1 at them in turn, and n = 8 has one period per level.
            Kingma et al. 2021, arXiv:2107.00630, appendix C, eq. (34), whose published code uses
            n = 7 and 8.
        learned_variance: Return 2C channels, of which the second half belongs to a learned variance
            of DDPM's reverse steps; see `Call`.

    Raises:
        ValueError: If an argument is out of its range, or a resolution of `attention` is never
            reached.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] | None = None,
        dropout: float = 0.0,
        classes: int | None = None,
        patch: int = 1,
        embedding: str = "fourier",
        skip_scale: bool = True,
        vector: int | None = None,
        array: int | None = None,
        fourier: Sequence[int] = (),
        learned_variance: bool = False,
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        self.shape = grid_shape(shape)
        multipliers = level_factors(multipliers)
        channels = check_integer("channels", channels, minimum=1)
        blocks = check_integer("blocks", blocks, minimum=1)
        self.patch = patch = check_integer("patch", patch, minimum=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        multiple = patch * 2 ** (len(multipliers) - 1)
        self.pad = padding(self.shape, multiple)
        side = max(-(-size // multiple) * multiple for size in self.shape[1:])
        sides = [side // patch // 2**i for i in range(len(multipliers))]
        attend = attended("attention", sides, sides[-1:] if attention is None else attention)
        widths = [channels * m for m in multipliers]
        above, width = [channels, *widths[:-1]], 2 * channels
        axes = len(self.shape) - 1
        rest = (width, dropout, skip_scale, axes)

        around = None if array is None else (array, *self.shape[1:])
        self.condition = ConditionSpec(classes, vector, around)
        self.embedding = LabelEmbedding(channels, width, embedding, self.condition)
        if around is not None:
            self.no_array = nn.Parameter(torch.empty(around).normal_())
        self.fourier = [check_integer("each entry of fourier", n, minimum=0) for n in fourier]
        inputs = self.shape[0] * (1 + 2 * len(self.fourier)) + (array or 0)
        conv, folding = CONVOLUTIONS[axes], patch**axes
        self.stem = conv(inputs * folding, channels, 3, padding=1)
        levels = [
            Level([a] + [c] * blocks, *rest, at)
            for a, c, at in zip(above[:-1], widths[:-1], attend[:-1], strict=True)
        ]
        self.down = nn.ModuleList(levels)
        self.middle = Level([above[-1]] + [widths[-1]] * (blocks + 1), *rest, attend[-1])
        levels = [
            Level([below + c] + [c] * blocks, *rest, at)
            for below, c, at in zip(widths[1:], widths[:-1], attend[:-1], strict=True)
        ]
        self.up = nn.ModuleList(reversed(levels))
        self.norm = group_norm(widths[0])
        self.learned_variance = learned_variance
        outputs = output_channels(self.shape, learned_variance)
        self.head = zeroed(conv(widths[0], outputs * folding, 3, padding=1))

    @property
    def checkpointing(self) -> bool:
        """As above; setting it changes all levels."""
        return self.middle.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        for level in (*self.down, self.middle, *self.up):
            level.checkpointing = value

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy data, shape (B, C, *sizes), in the dtype of the weights.
            label: Noise label, shape (B,), e.g. log(σ/α); embedded in float32 or better.
            y: Condition, as `ConditionSpec` says, with "no condition" allowed in single entries;
                None for no condition at all.

        Returns:
            Shape (B, C, *sizes), or (B, 2C, *sizes) with a learned variance, in the dtype of x.

        Raises:
            ValueError: If a shape is wrong, or y is not allowed or out of range.
        """
        check_inputs(x, label, self.shape)
        parts = None if y is None else self.condition.parts(y, x.shape[0])
        embedding = F.silu(self.embedding(label, parts))
        if x.shape[0] == 0:  # torch pads and averages no empty batch
            return x.new_empty(0, output_channels(self.shape, self.learned_variance), *x.shape[2:])
        h = torch.cat([x, *self._features(x), *self._array(x, parts)], dim=1)
        padded = F.pad(h, self.pad, mode="replicate") if any(self.pad) else h
        h = self.stem(folded(padded, self.patch))
        kept, pool = [], POOLS[x.ndim - 2]
        for level in self.down:
            h = level(h, embedding)
            kept.append(h)
            h = pool(h, 2)
        h = self.middle(h, embedding)
        for level in self.up:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = level(torch.cat([h, kept.pop()], dim=1), embedding)
        out = unfolded(self.head(F.silu(self.norm(h))), self.patch)
        return cropped(out, self.pad).to(x.dtype)

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """The Fourier features of the input, at least in float32: bfloat16 has 8 bits."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        for n in self.fourier:
            angle = 2**n * math.pi * wide
            yield from (angle.sin().to(x.dtype), angle.cos().to(x.dtype))

    def _array(self, x: Tensor, parts: Mapping[str, Tensor] | None) -> Iterator[Tensor]:
        """The array of the condition like x; where it is NaN or missing, the trained `no_array`."""
        if self.condition.array is None:
            return
        without = self.no_array.to(x.dtype)
        if parts is None:
            yield without.expand(x.shape[0], *without.shape)
            return
        array = parts["array"].to(x.dtype)
        absent = array.isnan().flatten(1).any(1).reshape(-1, *[1] * without.ndim)
        yield torch.where(absent, without, array)
