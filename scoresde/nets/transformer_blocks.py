"""The parts of the transformer: blocks of attention, and the positions of tokens."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import attend, zeroed
from .dropout import Dropout
from .embedding import SinusoidalEmbedding

__all__ = ["Block", "PositionEmbedding", "SizeEmbedding", "modulated"]

_EXPANSION = 4  # hidden channels of the two linear layers, in units of the width
_WAVES = 16  # of a position along each axis of the grid, and of the size of a set


def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """h (1 + scale) + shift, for h of shape (B, N, width), shift and scale (B, 1, width)."""
    return h * (1 + scale) + shift


class Block(nn.Module):
    """One block: attention, perhaps cross-attention, then two linear layers for each token.

        h ← h + g₁ attention(norm(h) (1 + s₁) + b₁)
        h ← h + attention(norm(h), context)
        h ← h + g₂ linear(gelu(linear(norm(h) (1 + s₂) + b₂)))

    The shifts b, scales s and gates g are linear in the conditioning vector, and start at zero
    (adaLN-Zero, Peebles and Xie 2022, arXiv:2212.09748, section 3.2). The last layer of the
    cross-attention starts at zero too, so that a new block is the identity.

    Args:
        width: Length of tokens and of the conditioning vector.
        heads: Number of heads, which divides the width.
        dropout: Probability in [0, 1), of the hidden features of the two linear layers.
        looks: Whether there is a context for cross-attention.
    """

    def __init__(self, width: int, heads: int, dropout: float, looks: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.cross = _CrossAttention(width, heads) if looks else None
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.linear1 = nn.Linear(width, _EXPANSION * width)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(_EXPANSION * width, width)
        self.modulation = zeroed(nn.Linear(width, 6 * width))

    def forward(
        self, h: Tensor, embedding: Tensor, there: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Apply the block.

        Args:
            h: Tokens, shape (B, N, width).
            embedding: Conditioning vector after its nonlinearity, shape (B, width).
            there: Which tokens exist, bool, shape (B, N); None for all.
            context: Tokens of the condition, shape (B, T, width); None without cross-attention.

        Returns:
            Shape (B, N, width). Tokens that do not exist have no influence on the others.
        """
        b1, s1, g1, b2, s2, g2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        h = h + g1 * self._attention(modulated(self.norm1(h), b1, s1), there)
        if self.cross is not None:
            h = h + self.cross(h, context)
        inner = F.gelu(self.linear1(modulated(self.norm2(h), b2, s2)))
        return h + g2 * self.linear2(self.dropout(inner))

    def _attention(self, h: Tensor, there: Tensor | None) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if there is None else there[:, None, None, :]
        return self.proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class _CrossAttention(nn.Module):
    """proj(softmax(q kᵀ/√d) v), q from the normalized tokens, k and v from the context."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        q = self.q(self.norm(h)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class PositionEmbedding(nn.Module):
    """A trained linear map of sinusoids of the position along each axis of a grid.

    The fastest sinusoid turns by a quarter of a circle from one token to the next, and the slowest
    by half a circle along the longest axis, so that all positions are told apart.

    Args:
        grid: Number of tokens along each axis.
        width: Length of the tokens.
    """

    def __init__(self, grid: Sequence[int], width: int) -> None:
        super().__init__()
        slowest = math.pi / max(2, *grid)
        self.waves = SinusoidalEmbedding(_WAVES, math.pi / 2, slowest)
        self.linear = nn.Linear(2 * _WAVES * len(grid), width)
        self.grid = tuple(grid)

    def forward(self) -> Tensor:
        """The embedding of every token, shape (N, width), in the dtype of the weights."""
        weight = self.linear.weight
        axes = [torch.arange(n, device=weight.device) for n in self.grid]
        places = torch.meshgrid(*axes, indexing="ij")
        waves = torch.cat([self.waves(place.flatten()) for place in places], dim=1)
        return self.linear(waves.to(weight.dtype))


class SizeEmbedding(nn.Module):
    """A trained linear map of sinusoids of the number of points of a set.

    Attention takes averages, which do not tell how many points there are.

    Args:
        width: Length of the conditioning vector.
    """

    # The fastest wave turns by a quarter of a circle from one size to the next. The slowest has a
    # half circle in about 3000 points.
    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves = SinusoidalEmbedding(_WAVES, math.pi / 2, 1e-3)
        self.linear = nn.Linear(2 * _WAVES, width)

    def forward(self, size: Tensor) -> Tensor:
        """The embedding of sizes of shape (B,), shape (B, width), in the dtype of the weights."""
        return self.linear(self.waves(size).to(self.linear.weight.dtype))
