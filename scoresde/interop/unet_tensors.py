"""Tensors of U-Nets of other libraries, of the same layers as ours, under our names.

The libraries hold q, k and v of an attention in one tensor, in three different orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._tensor import check_fits, finite_or_raise
from ..nets.block_parts import AttentionBlock, Residual

__all__ = ["Naming", "carried", "library_tensors"]

_QKV = ("to_q", "to_k", "to_v")


class _Ours(NamedTuple):
    """Our names of one layer or tensor of a library; `heads` of an attention, else 0."""

    names: tuple[str, ...]
    heads: int = 0


@dataclass(frozen=True)
class Naming:
    """How a library names the tensors of its blocks.

    Attributes:
        residual: Layer of our `Residual` -> its name there.
        attention: Layer of our `AttentionBlock` -> its name there; "to_q" is that of q, k and v.
        order: What the channels of q, k and v stand for, slowest first: a permutation of "part"
            (q, k or v), "head" and "channel".
        ones: Dimensions of size 1 that end the shape of the weights of an attention.
    """

    residual: Mapping[str, str]
    attention: Mapping[str, str]
    order: tuple[str, str, str]
    ones: int

    def layers(self, unit: nn.Module) -> Iterator[tuple[str, _Ours]]:
        """(name of a layer there, what it is here) of a block, or of a layer alone."""
        if isinstance(unit, AttentionBlock):
            for ours, theirs in self.attention.items():
                yield theirs, _Ours(_QKV if ours == "to_q" else (ours,), unit.heads)
        elif isinstance(unit, Residual):
            own = dict(unit.named_children())
            for ours, theirs in self.residual.items():
                if not isinstance(own[ours], nn.Identity):
                    yield theirs, _Ours((ours,))
        else:
            yield "", _Ours(("",))

    def there(self, tensor: Tensor, ours: _Ours) -> Tensor:
        """A tensor without memory, of the shape that one of ours has in the library."""
        rows, *rest = tensor.shape
        ones = [1] * self.ones if ours.heads and rest else []
        return torch.empty(rows * len(ours.names), *rest, *ones, device="meta")

    def apart(self, tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
        """q, k and v of one tensor, each of shape (channels, ...)."""
        rest = tensor.shape[1:]
        channels = tensor.shape[0] // 3
        sizes = {"part": 3, "head": heads, "channel": channels // heads}
        many = tensor.reshape(*(sizes[axis] for axis in self.order), *rest)
        parts = many.unbind(self.order.index("part"))
        flipped = self.order.index("channel") < self.order.index("head")
        return tuple(
            (part.transpose(0, 1) if flipped else part).reshape(channels, *rest) for part in parts
        )


def carried(
    net: nn.Module,
    places: Sequence[tuple[str, str]],
    given: Mapping[str, Tensor],
    naming: Naming,
) -> dict[str, Tensor]:
    """The tensors of a library under our names, in float32.

    Args:
        net: Our network; its tensors may be on the device "meta".
        places: (name there, our name) of each block or layer.
        given: The tensors by their names there.
        naming: Names inside the blocks.

    Raises:
        ValueError: If tensors are missing or unexpected, or have another shape.
        NonFiniteError: If a tensor is not finite.
    """
    own, names = net.state_dict(), _names(net, places, naming)
    check_fits(given, library_tensors(net, places, naming), "the network of these settings")
    found = {}
    for name, ours in names.items():
        value = given[name] if given[name].is_meta else finite_or_raise(given[name], name)
        parts = naming.apart(value, ours.heads) if len(ours.names) == 3 else (value,)
        for mine, part in zip(ours.names, parts, strict=True):
            found[mine] = part.reshape(own[mine].shape).to(torch.float32, copy=True)
    return found


def library_tensors(
    net: nn.Module, places: Sequence[tuple[str, str]], naming: Naming
) -> dict[str, Tensor]:
    """Tensors without memory, with the names and shapes of the library; see `carried`."""
    own = net.state_dict()
    names = _names(net, places, naming)
    return {name: naming.there(own[ours.names[0]], ours) for name, ours in names.items()}


def _names(net: nn.Module, places: Sequence[tuple[str, str]], naming: Naming) -> dict[str, _Ours]:
    """Name of a tensor in the library -> ours."""
    own, modules = net.state_dict(), dict(net.named_modules())
    found = {}
    for place, path in places:
        for layer, ours in naming.layers(modules[path]):
            for kind in ("weight", "bias"):
                mine = tuple(_joined(path, name, kind) for name in ours.names)
                if mine[0] in own:
                    found[_joined(place, layer, kind)] = _Ours(mine, ours.heads)
    return found


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
