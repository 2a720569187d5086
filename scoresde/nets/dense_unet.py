"""A fully connected U-Net: vectors, or images as vectors of their pixels."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._condition import ConditionSpec
from .._tensor import check_integer, check_type
from .blocks import arguments_of, check_inputs, zeroed

__all__ = ["DenseUNet"]


class _Layer(nn.Module):
    """h ↦ silu(norm(W h + b)); the norm is a layer norm or nothing."""

    def __init__(self, units_in: int, units_out: int, layer_norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(units_in, units_out)
        self.norm = nn.LayerNorm(units_out) if layer_norm else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(h)))


class DenseUNet(nn.Module):
    """Fully connected U-Net F(x, label): the output has the shape of x and is zero at first.

    The sizes of the layers are mirrored: D + 1, w_1, ..., w_n, ..., w_1, D for data of D numbers.
    The additional input element is the noise label itself, without an embedding, which suits labels
    in [0, 1] such as the time t (`preconditioning.label = "time"`). The output of each layer on the
    way down is added to that of the layer of equal size on the way up: residual connections in
    place of the concatenation of Ronneberger et al. 2015, arXiv:1505.04597.

    Data of any shape are flattened, so that each pixel is one input. The network knows nothing of
    which pixels are neighbours.

    Attributes:
        condition: The conditions that it takes: none.
        arguments: The arguments as plain data.
        layer_counts: Names of the arguments that give numbers of layers: none.

    Args:
        shape: Data shape, (D,) or for instance (C, H, W), all at least 1.
        widths: Units of the layers on the way down, w_1, ..., w_n.
        layer_norm: Normalize the output of each hidden layer, before its nonlinearity, to mean 0
            and variance 1 over its units.
        time_input: Whether the network receives the label. Without it the network has to see from
            x alone how noisy it is.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a size is less than 1, or there is no width.
    """

    layer_counts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (2000, 1000, 500),
        layer_norm: bool = False,
        time_input: bool = True,
    ) -> None:
        arguments = arguments_of(locals())
        super().__init__()
        self.arguments = arguments
        self.condition = ConditionSpec()
        self.shape = tuple(check_integer("each entry of shape", n, minimum=1) for n in shape)
        if len(widths) == 0:
            raise ValueError("widths must name at least one layer, got none")
        widths = [check_integer("each entry of widths", n, minimum=1) for n in widths]
        for name, value in (("layer_norm", layer_norm), ("time_input", time_input)):
            check_type(name, value, bool)
        self.time_input = time_input
        size = math.prod(self.shape)
        down, up = [size + time_input, *widths], widths[::-1]
        pairs = zip(down[:-1], down[1:], strict=True)
        self.down = nn.ModuleList(_Layer(a, b, layer_norm) for a, b in pairs)
        pairs = zip(up[:-1], up[1:], strict=True)
        self.up = nn.ModuleList(_Layer(a, b, layer_norm) for a, b in pairs)
        self.head = zeroed(nn.Linear(widths[0], size))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: Scaled noisy data, shape (B, *shape), in the dtype of the weights.
            label: Noise label, shape (B,), of size about 1.

        Returns:
            Shape (B, *shape), in the dtype of x.

        Raises:
            ValueError: If a shape is wrong.
        """
        check_inputs(x, label, self.shape)
        h, kept = x.flatten(1), []
        if self.time_input:
            h = torch.cat([h, label.to(h.dtype)[:, None]], dim=1)
        for layer in self.down:
            h = layer(h)
            kept.append(h)
        kept.pop()  # the output of the middle layer is the input of the way up
        for layer in self.up:
            h = layer(h) + kept.pop()
        return self.head(h).reshape(x.shape).to(x.dtype)
