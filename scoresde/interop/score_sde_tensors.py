"""Names and shapes of the tensors of score_sde_pytorch, for a network of ours."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ..nets import NCSNpp
from ..nets.block_parts import AttentionBlock, LogWaves, Residual
from ..nets.ncsnpp_levels import Resampled

__all__ = ["from_library", "in_library", "names_of"]

_UNITS = (Residual, AttentionBlock, Resampled, LogWaves, nn.Linear, nn.Conv2d, nn.GroupNorm)
_RESIDUAL = {
    "norm1": "GroupNorm_0",
    "conv1": "Conv_0",
    "time_emb_proj": "Dense_0",
    "norm2": "GroupNorm_1",
    "conv2": "Conv_1",
}
_ATTENTION = {
    "group_norm": "GroupNorm_0",
    "to_q": "NIN_0",
    "to_k": "NIN_1",
    "to_v": "NIN_2",
    "to_out.0": "NIN_3",
}


def _units(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that the library counts, in its order."""
    for name, child in module.named_children():
        if isinstance(child, _UNITS):
            yield f"{prefix}{name}", child
        else:
            yield from _units(child, f"{prefix}{name}.")


def names_of(net: NCSNpp) -> Iterator[tuple[str, str]]:
    """(name in the library, our name) of every tensor of a network, in the library's order."""
    for number, (path, unit) in enumerate(_units(net)):
        for ours in unit.state_dict():
            layer, _, kind = ours.rpartition(".")
            theirs = _layer(net, path, unit, layer)
            if theirs.startswith("NIN") or isinstance(unit, LogWaves):
                kind = {"weight": "W", "bias": "b"}[kind]
            parts = ["all_modules", str(number), theirs, kind]
            yield ".".join(part for part in parts if part), f"{path}.{ours}"


def _layer(net: NCSNpp, path: str, unit: nn.Module, layer: str) -> str:
    """The library's name of a layer inside a unit."""
    if isinstance(unit, Residual):
        shortcut = "NIN_0" if net.arguments["block"] == "ddpm" else "Conv_2"
        return _RESIDUAL.get(layer, shortcut)
    if isinstance(unit, AttentionBlock):
        return _ATTENTION[layer]
    if isinstance(unit, Resampled):
        return "Conv2d_0" if unit.fir else "Conv_0"
    return "Conv_0" if path.endswith(".join") else ""


def in_library(tensor: Tensor, name: str) -> Tensor:
    """A tensor with the shape that one of ours has in the library."""
    return tensor.flatten(1).T if name.endswith(".W") and tensor.ndim > 1 else tensor


def from_library(tensor: Tensor, name: str, like: Tensor) -> Tensor:
    """A tensor of the library in our shape and dtype: some matrices are transposed there."""
    matrix = name.endswith(".W") and tensor.ndim == 2
    return (tensor.T.reshape(like.shape) if matrix else tensor).to(like.dtype)
