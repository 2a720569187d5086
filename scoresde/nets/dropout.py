"""Dropout whose masks belong to the examples of a training, whichever process computes them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._philox import pieces

__all__ = ["DROPOUT_VERSION", "Dropout", "keyed"]

DROPOUT_VERSION = 2
"""Version of the masks in a training.

1: from torch's global generator, seeded at each step.
2: keyed by the number of the example and the number of the layer.
"""

_LEVELS = 2**16


class Dropout(nn.Module):
    """x ↦ m ⊙ x / (1 − p) in training, each entry of m being 0 with probability p; otherwise x.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting",
    section 10, with the factor 1 / (1 − p) in training. Inside a block of `keyed` the mask of an
    example is a function of (seed, number of the example, number of the layer), so that it does
    not depend on the other examples of the batch, and is the same when activations are computed
    again. There p is rounded to a multiple of 2⁻¹⁶, and 1 / (1 − p) is the factor of the rounded p.

    Outside such a block this is `torch.nn.Dropout`. So it is if the input has another number of
    rows than the batch, because it is then not known which rows belong to which example.

    Args:
        p: Probability in [0, 1).

    Attributes:
        names: Words (seed, number, layer, 0) of each example inside a block of `keyed`, int64,
            shape (4, B); otherwise None.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.names: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask to x of shape (B, *D)."""
        if not self.training or self.p == 0:
            return x
        if self.names is None or self.names.shape[1] != x.shape[0]:
            return F.dropout(x, self.p)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)  # levels of 2^16 that give a zero
        level = _pieces(self.names, math.prod(x.shape[1:])).view(x.shape)
        kept = x * (_LEVELS / (_LEVELS - dropped))
        return kept.masked_fill(level < dropped - _LEVELS // 2, 0.0)

    def extra_repr(self) -> str:
        """The probability, for `print`."""
        return f"p={self.p}"


@contextmanager
def keyed(net: nn.Module, seed: int, examples: range) -> Iterator[None]:
    """Give the masks of a network's `Dropout` layers addresses inside a block.

    The block must hold the backward pass too, if activations are computed again there. A layer
    that is called twice in the block has the same mask in both calls.

    Args:
        net: A network; its layers are numbered in the order of `net.modules()`.
        seed: Integer in [0, 2^64).
        examples: Numbers of the examples that are the rows of the input.
    """
    layers = [module for module in net.modules() if isinstance(module, Dropout)]
    if any(layer.p for layer in layers):
        device = next(net.parameters()).device
        names = torch.zeros(len(layers), 4, len(examples), dtype=torch.int64, device=device)
        names[:, 0] = seed - 2**64 * (seed >= 2**63)
        names[:, 1] = torch.arange(examples.start, examples.stop, device=device)
        names[:, 2] = torch.arange(len(layers), device=device)[:, None]
        for layer, own in zip(layers, names, strict=True):
            layer.names = own
    try:
        yield
    finally:
        for layer in layers:
            layer.names = None


# One operator, into which torch.compile does not look: NumPy or a kernel makes the numbers.
@torch.library.custom_op("scoresde::mask_pieces", mutates_args=())
def _pieces(names: Tensor, n: int) -> Tensor:
    return pieces(names, "mask", n)


@_pieces.register_fake
def _(names: Tensor, n: int) -> Tensor:
    return names.new_empty((names.shape[1], n), dtype=torch.int16)
