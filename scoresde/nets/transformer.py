"""A noise-conditional transformer for sets of points, and for patches of series and images."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec, present
from .._tensor import check_integer, check_number, check_type
from .axes import cropped, folded, grid_shape, padding, unfolded
from .blocks import arguments_of, check_inputs, recomputed, zeroed
from .embedding import LabelEmbedding
from .transformer_blocks import Block, PositionEmbedding, SizeEmbedding, modulated

__all__ = ["Transformer"]

_LABEL_FEATURES = 64  # waves of the noise label, at most


class Transformer(nn.Module):
    """Transformer F(x, label, y): the output has the shape of x and is zero at initialisation.

    Every token looks at all tokens by attention. The noise label and the conditions scale and shift
    the tokens in each block (adaLN-Zero, Peebles and Xie 2022, arXiv:2212.09748, section 3.2).

    Without `patch` the data are N tokens of F features, such as a set of N points. If the network
    does not know their `positions`, an exchange of points exchanges the outputs in the same way
    (Vaswani et al. 2017, arXiv:1706.03762, section 3.5: attention itself knows no order). With
    `sizes` the sets have different numbers of points. A set of n points fills the first n tokens.
    The rest has no influence on the output, which is zero there.

    With `patch` the data are series, images or volumes, and each token is a patch of them. Sizes
    that `patch` does not divide are padded by repeating the border, and the result is cropped.

    Attributes:
        condition: The conditions that it takes.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.
        checkpointing: Whether the blocks keep only their inputs for the backward pass of a
            training step, and are computed again there; False at first.

    Args:
        shape: Data shape (N, F): N tokens of F features. With `patch`: (C, L), (C, H, W) or
            (C, D, H, W).
        width: Length of the tokens inside the network and of the conditioning vector.
        depth: Number of blocks, each of attention and two linear layers.
        heads: Number of attention heads, which divides `width`.
        patch: Side of the patches of series, images or volumes; None for tokens as they are.
        positions: Whether the network knows the position of each token; None means True, but
            False with `sizes`.
        dropout: Dropout probability in every block, in [0, 1).
        classes: Number of classes, or None. See `ConditionSpec`.
        embedding: "fourier", "sinusoidal" or "ddpm" embedding of the noise label; see
            `LabelEmbedding`.
        vector: Length of a vector of numbers as condition, or None.
        tokens: Number and length (T, F) of tokens as condition, or None. Every block looks at them
            by cross-attention, which knows no order of these tokens. A token with a NaN is replaced
            by a trained one that means "no token", so that texts may have different lengths.
        sizes: Least and most number of points (least, N) of sets; None if all tokens exist.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range, or the shape is of other data.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("depth",)

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int | None = None,
        positions: bool | None = None,
        dropout: float = 0.0,
        classes: int | None = None,
        embedding: str = "fourier",
        vector: int | None = None,
        tokens: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        width = check_integer("width", width, minimum=1)
        depth = check_integer("depth", depth, minimum=1)
        heads = check_integer("heads", heads, minimum=1)
        if width % heads:
            raise ValueError(f"heads must divide width = {width}, got {heads}")
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        self.patch = patch = None if patch is None else check_integer("patch", patch, minimum=1)
        self.condition = ConditionSpec(classes, vector, sizes=sizes, tokens=tokens)
        sizes = self.condition.sizes
        self.shape = _token_shape(shape, sizes) if patch is None else grid_shape(shape)
        _check_sizes(self.shape, patch, sizes)
        self.pad = padding(self.shape, patch or 1)
        grid, features = _grid(self.shape, patch)

        self.embedding = LabelEmbedding(
            min(width, _LABEL_FEATURES), width, embedding, self.condition
        )
        self.stem = nn.Linear(features, width)
        positions = sizes is None if positions is None else positions
        check_type("positions", positions, bool)
        self.positions = PositionEmbedding(grid, width) if positions else None
        self.size = None if sizes is None else SizeEmbedding(width)
        if self.condition.tokens is not None:
            self.context = nn.Linear(self.condition.tokens[1], width)
            self.no_token = nn.Parameter(torch.empty(width).normal_())
        looks = self.condition.tokens is not None
        self.blocks = nn.ModuleList(Block(width, heads, dropout, looks) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.head = zeroed(nn.Linear(width, features))
        self.checkpointing = False

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy data, shape (B, *shape), in the dtype of the weights.
            label: Noise label, shape (B,), e.g. log(σ/α); embedded in float32 or better.
            y: Condition, as `ConditionSpec` says, with "no condition" allowed in single entries;
                None for no condition at all. The sizes of sets must be given.

        Returns:
            The shape and dtype of x; zero at points that do not exist.

        Raises:
            ValueError: If a shape is wrong, or y is not allowed or out of range.
        """
        check_inputs(x, label, self.shape)
        if y is None and self.condition.sizes is not None:
            raise ValueError(f"y must be given, as the network takes {self.condition}, got None")
        parts = None if y is None else self.condition.parts(y, x.shape[0])
        embedding, there = self.embedding(label, parts), None
        if x.shape[0] == 0:  # torch pads no empty batch
            return torch.zeros_like(x)
        if self.size is not None:
            embedding = embedding + self.size(parts["size"])
            there = present(parts["size"], self.shape[0])
            x = x.masked_fill(~there[..., None], 0)  # also NaN
        h, embedding = self.stem(self._tokens(x)), F.silu(embedding)
        if self.positions is not None:
            h = h + self.positions()
        context = self._context(x, parts)
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            inputs = (h, embedding, there, context)
            h = recomputed(block, *inputs) if again else block(*inputs)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        out = self._data(self.head(modulated(self.norm(h), shift, scale))).to(x.dtype)
        return out if there is None else out.masked_fill(~there[..., None], 0)

    def _tokens(self, x: Tensor) -> Tensor:
        """Data as tokens, shape (B, N, features)."""
        if self.patch is None:
            return x
        padded = F.pad(x, self.pad, mode="replicate") if any(self.pad) else x
        return folded(padded, self.patch).flatten(2).transpose(1, 2)

    def _data(self, tokens: Tensor) -> Tensor:
        """The inverse of `_tokens`."""
        if self.patch is None:
            return tokens
        grid, _ = _grid(self.shape, self.patch)
        return cropped(unfolded(tokens.transpose(1, 2).unflatten(2, grid), self.patch), self.pad)

    def _context(self, x: Tensor, parts: Mapping[str, Tensor] | None) -> Tensor | None:
        """The tokens of the condition, shape (B, T, width); one that means "none" if missing."""
        if self.condition.tokens is None:
            return None
        if parts is None:
            return self.no_token.expand(x.shape[0], 1, -1)
        tokens = parts["tokens"].to(self.no_token.dtype)
        absent = tokens.isnan().any(2, keepdim=True)
        # NaN is replaced before the layer: its gradient would be NaN although it is not used.
        return torch.where(absent, self.no_token, self.context(tokens.masked_fill(absent, 0)))


def _token_shape(shape: Sequence[int], sizes: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape (N, F) of tokens, checked."""
    if len(shape) == 1:
        hint = 'vectors take an MLP ("mlp")'
    elif len(shape) > 2:
        hint = "images and volumes need patch"
    elif shape[0] == 1 and sizes is None:
        hint = "this is a single token, and series (C, L) need patch"
    else:
        return tuple(check_integer("each entry of shape", n, minimum=1) for n in shape)
    raise ValueError(
        f"shape must be (N, F) for a Transformer without patch, got {tuple(shape)}; {hint}"
    )


def _check_sizes(shape: Sequence[int], patch: int | None, sizes: tuple[int, int] | None) -> None:
    """Raise ValueError unless the sizes, if any, are those of sets of this shape."""
    if sizes is not None and patch is not None:
        raise ValueError(f"patch must be None with sizes: sets have no patches, got {patch}")
    if sizes is not None and sizes[1] != shape[0]:
        raise ValueError(
            f"sizes must be (least, {shape[0]}) for shape {tuple(shape)}, got {tuple(sizes)}"
        )


def _grid(shape: Sequence[int], patch: int | None) -> tuple[tuple[int, ...], int]:
    """Number of tokens along each axis, and the number of features of a token."""
    if patch is None:
        return (shape[0],), shape[1]
    sizes = tuple(math.ceil(size / patch) for size in shape[1:])
    return sizes, shape[0] * patch ** len(sizes)
