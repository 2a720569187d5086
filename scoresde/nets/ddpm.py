"""The U-Net of DDPM, in the form of its paper and in that of small tutorials."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._tensor import check_choice, check_integer, check_number
from .axes import cropped, padding
from .blocks import (
    Attention,
    LinearAttention,
    ResidualBlock,
    arguments_of,
    attended,
    check_inputs,
    group_norm,
    image_shape,
    level_factors,
    output_channels,
    zeroed,
)
from .embedding import LabelEmbedding

__all__ = ["DDPMUNet"]

_RESAMPLING = ("strided", "pooled")
_JOINING = ("concatenate", "add")


class _Form(NamedTuple):
    """What all levels share: size of the conditioning vector, dropout, and the two choices."""

    width: int
    dropout: float
    pooled: bool
    adds: bool


class _Step(nn.Module):
    """A residual block, with attention after it if `attend` is "full" or "linear"."""

    def __init__(
        self, channels_in: int, channels_out: int, form: _Form, attend: str | None
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(
            channels_in, channels_out, form.width, form.dropout, skip_scale=False
        )
        self.attention: nn.Module = nn.Identity()
        if attend == "full":
            self.attention = Attention(channels_out, skip_scale=False, heads=1)
        elif attend == "linear":
            self.attention = LinearAttention(channels_out, skip_scale=False)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(h, embedding))


class _Down(nn.Module):
    """A level of the downward half; all but the first halve the resolution at their beginning."""

    def __init__(
        self, above: int, own: int, blocks: int, form: _Form, attend: str | None, first: bool
    ) -> None:
        super().__init__()
        self.shrink: nn.Module = nn.Identity()
        if not first:
            strided = nn.Conv2d(above, above, 3, stride=2, padding=1)
            self.shrink = nn.MaxPool2d(2) if form.pooled else strided
        inputs = [above, *[own] * (blocks - 1)]
        self.steps = nn.ModuleList(_Step(channels, own, form, attend) for channels in inputs)

    def forward(self, h: Tensor, embedding: Tensor) -> list[Tensor]:
        """The features before the first block and after each block."""
        features = [self.shrink(h)]
        for step in self.steps:
            features.append(step(features[-1], embedding))
        return features


class _Up(nn.Module):
    """A level of the upward half; all but the lowest double the resolution at their beginning."""

    def __init__(
        self, below: int | None, own: int, above: int, blocks: int, form: _Form, attend: str | None
    ) -> None:
        super().__init__()
        self.adds = form.adds
        coming = own if form.adds or below is None else below
        self.grow = nn.Identity() if below is None else _grow(below, coming, form.pooled)
        inputs = [own] * blocks
        if not form.adds:  # the channels that come from below, and those of `_Down`'s features
            ahead, kept = [coming, *[own] * blocks], [*[own] * blocks, above]
            inputs = [a + b for a, b in zip(ahead, kept, strict=True)]
        self.steps = nn.ModuleList(_Step(channels, own, form, attend) for channels in inputs)

    def forward(self, h: Tensor, features: list[Tensor], embedding: Tensor) -> Tensor:
        h = self.grow(h)
        if self.adds:
            h = h + features[-1]
            for step in self.steps:
                h = step(h, embedding)
            return h
        for step, kept in zip(self.steps, reversed(features), strict=True):
            h = step(torch.cat([h, kept], dim=1), embedding)
        return h


def _grow(channels_in: int, channels_out: int, pooled: bool) -> nn.Module:
    """A layer that doubles the resolution."""
    if pooled:
        return nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv)


class DDPMUNet(nn.Module):
    """U-Net F(x, label, y) of DDPM: the output has the shape of x and is zero at initialisation.

    The backbone of Ho et al. 2020, arXiv:2006.11239, section 4 and appendix B: residual blocks of
    two convolutions with group normalization and SiLU, the label added into each block, attention
    of one head after each block of the chosen levels. The middle is a block, full attention and a
    block at the lowest resolution. Appendix B does not mention this attention. The authors' code
    has it, and only with it does the network for CIFAR-10, which is the default here, have the
    paper's 35.7 million parameters.

    `resampling` and `joining` give two families:

        strided, concatenate    The paper: 3×3 convolutions of stride 2 go down, nearest-neighbour
                                repetition and a 3×3 convolution go up. All features of the
                                downward half are kept, and each upward block sees one of them as
                                further channels. So a level has one block more upwards.
        pooled, add             Small tutorials: 2×2 max-pooling goes down, 2×2 transposed
                                convolutions go up. The last features of a level are added at the
                                beginning of the same level upwards.

    With all levels in `linear_attention` it is the attention U-Net of further tutorials: linear
    attention on the residual paths, and full attention in the middle.

    Groups of the normalization have at least 4 channels: there are 32 groups, as in the paper, from
    128 channels on, and fewer below. Weights are initialized as PyTorch does it, but for those
    that start at zero. Sizes that 2^(levels − 1) does not divide are padded as in `UNet`.

    Attributes:
        condition: The conditions that it takes.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Image shape (C, H, W), all at least 1.
        channels: Channels of the first level, before its multiplier.
        multipliers: Channels of each level in units of `channels`; its length is the number of
            levels.
        blocks: Residual blocks of each level in the downward half.
        attention: Resolutions (larger side of the feature map, after padding) with full attention.
            The middle has it always.
        linear_attention: Resolutions with linear attention. One that is in `attention`, too, gets
            full attention.
        dropout: Dropout probability in every block, in [0, 1).
        resampling: "strided" or "pooled".
        joining: "concatenate" or "add".
        activation: "silu" (the paper's) or "gelu" (of tutorials), in the layers after the waves of
            the label.
        embedding: "ddpm", "fourier" or "sinusoidal" embedding of the noise label; see
            `LabelEmbedding`. "ddpm" goes with `label = "index"`, which runs from 0 to 999.
        classes: Number of classes, or None. See `ConditionSpec`.
        vector: Length of a vector of numbers as condition, or None.
        learned_variance: Return 2C channels, of which the second half belongs to a learned variance
            of the reverse steps; see `Call`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or a chosen resolution is never reached.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        linear_attention: Sequence[int] = (),
        dropout: float = 0.0,
        resampling: str = "strided",
        joining: str = "concatenate",
        activation: str = "silu",
        embedding: str = "ddpm",
        classes: int | None = None,
        vector: int | None = None,
        learned_variance: bool = False,
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        self.shape = image_shape(shape)
        channels = check_integer("channels", channels, minimum=1)
        factors = level_factors(multipliers)
        blocks = check_integer("blocks", blocks, minimum=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        check_choice("resampling", resampling, _RESAMPLING)
        check_choice("joining", joining, _JOINING)
        self.pad = padding(self.shape, 2 ** (len(factors) - 1))
        attend = _attended(self.shape, len(factors), attention, linear_attention)
        form = _Form(4 * channels, dropout, resampling == "pooled", joining == "add")

        self.condition = ConditionSpec(classes, vector)
        self.embedding = LabelEmbedding(channels, form.width, embedding, self.condition, activation)
        self.stem = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        widths = [channels * factor for factor in factors]
        above, below = [channels, *widths[:-1]], [*widths[1:], None]
        rows = list(zip(above, widths, below, attend, strict=True))
        self.down = nn.ModuleList(
            _Down(a, own, blocks, form, kind, first=i == 0)
            for i, (a, own, _, kind) in enumerate(rows)
        )
        lowest = widths[-1]
        self.middle = nn.ModuleList(_Step(lowest, lowest, form, kind) for kind in ("full", None))
        self.up = nn.ModuleList(
            _Up(b, own, a, blocks, form, kind) for a, own, b, kind in reversed(rows)
        )
        self.norm = group_norm(widths[0])
        self.learned_variance = learned_variance
        outputs = output_channels(self.shape, learned_variance)
        self.head = zeroed(nn.Conv2d(widths[0], outputs, 3, padding=1))

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy images, shape (B, C, H, W), in the dtype of the weights.
            label: Noise label, shape (B,); embedded in float32 or better.
            y: Condition, as `ConditionSpec` says, with "no condition" allowed in single entries;
                None for no condition at all.

        Returns:
            Shape (B, C, H, W), or (B, 2C, H, W) with a learned variance, in the dtype of x.

        Raises:
            ValueError: If a shape is wrong, or y is not allowed or out of range.
        """
        check_inputs(x, label, self.shape)
        parts = None if y is None else self.condition.parts(y, x.shape[0])
        embedding = F.silu(self.embedding(label, parts))
        h = self.stem(F.pad(x, self.pad, mode="replicate") if any(self.pad) else x)
        kept = []
        for level in self.down:
            kept.append(level(h, embedding))
            h = kept[-1][-1]
        for step in self.middle:
            h = step(h, embedding)
        for level in self.up:
            h = level(h, kept.pop(), embedding)
        return cropped(self.head(F.silu(self.norm(h))), self.pad).to(x.dtype)


def _attended(
    shape: tuple[int, int, int], levels: int, full: Sequence[int], linear: Sequence[int]
) -> list[str | None]:
    """The kind of attention of each level."""
    multiple = 2 ** (levels - 1)
    side = max(-(-size // multiple) * multiple for size in shape[1:])
    sides = [side // 2**i for i in range(levels)]
    chosen = zip(
        attended("attention", sides, full),
        attended("linear_attention", sides, linear),
        strict=True,
    )
    return ["full" if a else "linear" if b else None for a, b in chosen]
