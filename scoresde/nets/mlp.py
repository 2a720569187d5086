"""A noise-conditional multilayer perceptron for vectors."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import Condition, ConditionSpec
from .._tensor import check_integer, check_number
from .blocks import arguments_of, check_inputs, zeroed
from .dropout import Dropout
from .embedding import LabelEmbedding

__all__ = ["MLP", "Block"]


class Block(nn.Module):
    """h ↦ h + W₂ silu(W₁ silu(h) + embedding), W₂ zero at initialisation."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.condition = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.linear2 = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block to h and an embedding, both of shape (B, width)."""
        inner = self.linear1(F.silu(h)) + self.condition(embedding)
        return h + self.linear2(self.dropout(F.silu(inner)))


class MLP(nn.Module):
    """Residual MLP F(x, label, y): the output has the shape of x and is zero at initialisation.

    Attributes:
        condition: The conditions that it takes.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers.

    Args:
        shape: Data shape (D,), D at least 1.
        width: Size of the hidden layers and of the conditioning vector.
        depth: Number of residual blocks of two linear layers each.
        dropout: Dropout probability in every block, in [0, 1).
        classes: Number of classes, or None. See `ConditionSpec`.
        embedding: "fourier", "sinusoidal" or "ddpm" embedding of the noise label; see
            `LabelEmbedding`.
        vector: Length of a vector of numbers as condition, or None.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ("depth",)

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.0,
        classes: int | None = None,
        embedding: str = "fourier",
        vector: int | None = None,
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        if len(shape) != 1:
            raise ValueError(
                f"shape must be (D,), got {tuple(shape)}; series, images and volumes take a UNet "
                '("unet"), sets of points a Transformer ("transformer")'
            )
        self.shape = (check_integer("each entry of shape", shape[0], minimum=1),)
        width = check_integer("width", width, minimum=1)
        depth = check_integer("depth", depth, minimum=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        self.condition = ConditionSpec(classes, vector)
        self.embedding = LabelEmbedding(min(width, 64), width, embedding, self.condition)
        self.stem = nn.Linear(self.shape[0], width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.head = zeroed(nn.Linear(width, self.shape[0]))

    def forward(self, x: Tensor, label: Tensor, y: Condition | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy vectors, shape (B, D), in the dtype of the weights.
            label: Noise label, shape (B,), e.g. log(σ/α); embedded in float32 or better.
            y: Condition, as `ConditionSpec` says, with "no condition" allowed in single entries;
                None for no condition at all.

        Returns:
            Shape (B, D), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong, or y is not allowed or out of range.
        """
        check_inputs(x, label, self.shape)
        parts = None if y is None else self.condition.parts(y, x.shape[0])
        embedding = F.silu(self.embedding(label, parts))
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(F.silu(h)).to(x.dtype)
