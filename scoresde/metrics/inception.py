"""Inception-v3 as published with FID (Heusel et al. 2017, arXiv:1706.08500), of the year 2015.

It differs from torchvision's Inception-v3 in three places: the average pools of its blocks A, C and
E leave out the padding, the pool of the last block takes the maximum, and there are 1,008 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

__all__ = ["FIDInception"]

_LAYERS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


class _InnerMean:
    """A block whose average pool does not count the padding."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return [*super()._forward(x)[:-1], self.branch_pool(pooled)]


class _Maximum:
    """A block with a maximum in place of the average pool."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(F.max_pool2d(x, 3, 1, 1))]


class _A(_InnerMean, InceptionA):
    pass


class _C(_InnerMean, InceptionC):
    pass


class _E(_InnerMean, InceptionE):
    pass


class _LastE(_Maximum, InceptionE):
    pass


class FIDInception(nn.Module):
    """The network up to its last average pool, 2,048 numbers."""

    dimension = 2048

    def __init__(self) -> None:
        super().__init__()
        net = Inception3(num_classes=1008, aux_logits=False, init_weights=False)
        for name, (a, width) in {"5b": (192, 32), "5c": (256, 64), "5d": (288, 64)}.items():
            setattr(net, f"Mixed_{name}", _A(a, width))
        for name, width in {"6b": 128, "6c": 160, "6d": 160, "6e": 192}.items():
            setattr(net, f"Mixed_{name}", _C(768, width))
        net.Mixed_7b, net.Mixed_7c = _E(1280), _LastE(2048)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, 2048) of images (n, 3, 299, 299) on [-1, 1]."""
        for name in _LAYERS:
            x = getattr(self.net, name)(x)
        return x.mean((2, 3))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take published weights.

        Raises:
            ValueError: If names or shapes differ from those of the network.
        """
        try:
            self.net.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError("names or shapes of its tensors differ") from error
