"""The vision transformer of DINOv2 (Oquab et al. 2023, arXiv:2304.07193), up to its class token.

A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1) cuts an image into
patches, maps each to a vector, adds positions, and passes them with a class token through blocks
of attention and perceptron. DINOv2 multiplies the output of both by factors of each channel
(LayerScale). Here these are multiplied into the weights, so that torch's own blocks compute it.

The published code is facebookresearch/dinov2 (commit b8931f7). Its models without registers scale
the positions with an offset of 0.1 and without antialias, which the features depend on.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DINOv2"]

_HEAD = 64  # channels of a head of attention, in all published sizes
_OFFSET = 0.1  # that the published code adds to the size when it scales the positions
_NORM_EPS = 1e-6
# Names of the published tensors of a block, and ours.
_NAMES = {
    **{f"norm{i}.{part}": f"norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")},
    **{f"attn.qkv.{part}": f"self_attn.in_proj_{part}" for part in ("weight", "bias")},
    **{f"attn.proj.{part}": f"self_attn.out_proj.{part}" for part in ("weight", "bias")},
    **{f"mlp.fc{i}.{part}": f"linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")},
}
_SCALED = {"attn.proj": "ls1.gamma", "mlp.fc2": "ls2.gamma"}


class DINOv2(nn.Module):
    """The network of a file of published weights, of any size with 14×14 patches and a plain MLP.

    Args:
        weights: The tensors of the file by their published names.

    Raises:
        KeyError: If a tensor is missing.
        RuntimeError: If shapes do not fit.
        ValueError: If the file is of a model with registers, which is another network.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        if "register_tokens" in weights:
            raise ValueError("a model with registers; FD-DINOv2 takes the one without")
        self.token, self.positions = weights["cls_token"], weights["pos_embed"]
        kernel = weights["patch_embed.proj.weight"]
        self.dimension, self.patch = kernel.shape[0], kernel.shape[-1]
        depth = len([name for name in weights if name.endswith("norm1.weight")])
        d, heads = self.dimension, self.dimension // _HEAD
        self.embed = nn.Conv2d(3, d, self.patch, self.patch)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                *(d, heads, 4 * d, 0.0, "gelu", _NORM_EPS), batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(d, _NORM_EPS)
        self.load_state_dict(_renamed(weights, depth))

    def forward(self, x: Tensor) -> Tensor:
        """Normalized class token (n, d) of normalized images (n, 3, h, w), h and w in patches."""
        patches = self.embed(x)
        size = patches.shape[2:]
        token = self.token.expand(len(x), -1, -1)
        x = torch.cat([token, patches.flatten(2).mT], 1) + self._positions(*size)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def _positions(self, height: int, width: int) -> Tensor:
        """Positions for h·w patches, interpolated if necessary, shape (1, 1 + h·w, d)."""
        first, rest = self.positions[:, :1], self.positions[:, 1:]
        side = round(rest.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return self.positions
        grid = rest.mT.reshape(1, -1, side, side)
        scale = ((height + _OFFSET) / side, (width + _OFFSET) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([first, grid.flatten(2).mT], 1)


def _renamed(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The tensors of the network by our names, with LayerScale in the weights."""
    found = {f"embed.{part}": weights[f"patch_embed.proj.{part}"] for part in ("weight", "bias")}
    found |= {f"norm.{part}": weights[f"norm.{part}"] for part in ("weight", "bias")}
    for i in range(depth):
        for theirs, ours in _NAMES.items():
            value = weights[f"blocks.{i}.{theirs}"]
            scale = _SCALED.get(theirs.rpartition(".")[0])
            if scale is not None:
                gamma = weights[f"blocks.{i}.{scale}"]
                value = gamma.reshape(-1, *[1] * (value.ndim - 1)) * value
            found[f"blocks.{i}.{ours}"] = value
    return found
