"""Noise-conditional classifiers: from noisy data and a noise label to one logit for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import ConditionSpec
from .._tensor import check_integer, check_number
from .axes import CONVOLUTIONS, POOLS, grid_shape, padding
from .blocks import arguments_of, attended, check_inputs, group_norm, level_factors, zeroed
from .embedding import LabelEmbedding
from .mlp import Block
from .unet import Level

__all__ = ["MLPClassifier", "UNetClassifier"]

_LEAST_CLASSES = 2  # one class needs no classifier


class MLPClassifier(nn.Module):
    """The residual blocks of `MLP` for vectors, with one output for each class.

    All logits are 0 at initialisation, so that the first loss is log K for K classes.

    Attributes:
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Data shape (D,), D at least 1.
        classes: Number of classes K, at least 2.
        width: Size of the hidden layers and of the conditioning vector.
        depth: Number of residual blocks of two linear layers each.
        dropout: Dropout probability in every block, in [0, 1).
        embedding: Kind of the embedding of the noise label; see `LabelEmbedding`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("depth",)

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.0,
        embedding: str = "fourier",
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        if len(shape) != 1:
            raise ValueError(
                f"shape must be (D,), got {tuple(shape)}; series, images and volumes take a "
                'UNetClassifier ("unet_classifier")'
            )
        self.shape = (check_integer("each entry of shape", shape[0], minimum=1),)
        self.classes = check_integer("classes", classes, minimum=_LEAST_CLASSES)
        width = check_integer("width", width, minimum=1)
        depth = check_integer("depth", depth, minimum=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        self.embedding = LabelEmbedding(min(width, 64), width, embedding, ConditionSpec())
        self.stem = nn.Linear(self.shape[0], width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.head = zeroed(nn.Linear(width, self.classes))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy vectors, shape (B, D), in the dtype of the weights.
            label: Noise label, shape (B,).

        Returns:
            Logits, shape (B, K), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong.
        """
        check_inputs(x, label, self.shape)
        embedding = F.silu(self.embedding(label, None))
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(F.silu(h)).to(x.dtype)


class UNetClassifier(nn.Module):
    """The downward half of `UNet` for series, images and volumes, with one output for each class.

    The features of the lowest level are averaged over all positions, and a linear layer makes the
    logits of them. Dhariwal and Nichol 2021, arXiv:2105.05233, section 4, also take the downward
    half of their U-Net; they pool the features by attention. All logits are 0 at initialisation.

    Attributes:
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Data shape (C, L), (C, H, W) or (C, D, H, W), all at least 1.
        classes: Number of classes K, at least 2.
        channels: Channels of the first level.
        multipliers: Channels of each level in units of `channels`.
        blocks: Residual blocks per level; the lowest level has one more.
        attention: As for `UNet`.
        dropout: Dropout probability in every block, in [0, 1).
        embedding: Kind of the embedding of the noise label; see `LabelEmbedding`.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or a resolution of `attention` is never
            reached.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("blocks",)

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] | None = None,
        dropout: float = 0.0,
        embedding: str = "fourier",
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        self.shape = grid_shape(shape)
        self.classes = check_integer("classes", classes, minimum=_LEAST_CLASSES)
        multipliers = level_factors(multipliers)
        channels = check_integer("channels", channels, minimum=1)
        blocks = check_integer("blocks", blocks, minimum=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        multiple = 2 ** (len(multipliers) - 1)
        self.pad = padding(self.shape, multiple)
        side = max(-(-size // multiple) * multiple for size in self.shape[1:])
        sides = [side // 2**i for i in range(len(multipliers))]
        attend = attended("attention", sides, sides[-1:] if attention is None else attention)
        widths, width = [channels * m for m in multipliers], 2 * channels
        axes, last = len(self.shape) - 1, len(multipliers) - 1
        self.embedding = LabelEmbedding(channels, width, embedding, ConditionSpec())
        self.stem = CONVOLUTIONS[axes](self.shape[0], channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level([above] + [own] * (blocks + (i == last)), width, dropout, True, axes, attend[i])
            for i, (above, own) in enumerate(zip([channels, *widths], widths, strict=False))
        )
        self.norm = group_norm(widths[-1])
        self.head = zeroed(nn.Linear(widths[-1], self.classes))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy data, shape (B, C, *sizes), in the dtype of the weights.
            label: Noise label, shape (B,).

        Returns:
            Logits, shape (B, K), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong.
        """
        check_inputs(x, label, self.shape)
        if x.shape[0] == 0:  # torch pads and averages no empty batch
            return x.new_empty(0, self.classes)
        embedding = F.silu(self.embedding(label, None))
        h = self.stem(F.pad(x, self.pad, mode="replicate") if any(self.pad) else x)
        for i, level in enumerate(self.levels):
            h = level(h if i == 0 else POOLS[x.ndim - 2](h, 2), embedding)
        features = F.silu(self.norm(h)).flatten(2).mean(2)
        return self.head(features).to(x.dtype)
