"""EfficientNet-Lite0: the network without its classifier.

EfficientNet (Tan and Le 2019, arXiv:1905.11946, Table 1) is a stack of inverted bottlenecks: expand
the channels, convolve each alone, project. The Lite variant has no squeeze-and-excitation, ReLU6 in
place of swish, and stem and head of fixed width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

# Repeats, kernel, stride of the first, expansion, input and output channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_NORM_EPS = 1e-3


class _Convolution(nn.Sequential):
    """Convolution without bias, batch normalization and, if `active`, ReLU6.

    With stride 2 an even image is padded more at its end, as in TensorFlow.
    """

    def __init__(
        self, a: int, b: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        conv = nn.Conv2d(a, b, kernel, stride, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(b, eps=_NORM_EPS), *([nn.ReLU6()] if active else []))
        before, whole = (kernel - stride) // 2, kernel - stride
        self.pads = (before, whole - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, b, h/stride, w/stride) of x of shape (n, a, h, w), h and w even."""
        return super().forward(F.pad(x, self.pads))


class _Bottleneck(nn.Sequential):
    """Expand, convolve each channel alone, project; with a skip connection if shapes allow."""

    def __init__(self, a: int, b: int, kernel: int, stride: int, expansion: int) -> None:
        wide = a * expansion
        expand = [_Convolution(a, wide)] if expansion > 1 else []
        alone = _Convolution(wide, wide, kernel, stride, groups=wide)
        super().__init__(*expand, alone, _Convolution(wide, b, active=False))
        self.skip = a == b and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, b, h/stride, w/stride) of x of shape (n, a, h, w)."""
        return x + super().forward(x) if self.skip else super().forward(x)


class EfficientNetLite0(nn.Module):
    """Stem, 16 bottlenecks and head; the output is the average over pixels, 1,280 numbers."""

    dimension = 1280

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            _Bottleneck(b if i else a, b, kernel, 1 if i else stride, expansion)
            for repeats, kernel, stride, expansion, a, b in _STAGES
            for i in range(repeats)
        ]
        self.layers = nn.Sequential(_Convolution(3, 32, 3, 2), *blocks, _Convolution(320, 1280))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, 1280) of normalized images (n, 3, h, w), h and w multiples of 32."""
        return self.layers(x).mean((2, 3))

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take published weights, whose names differ, in the order of the layers.

        Raises:
            ValueError: If number or shapes of the tensors differ from those of the network.
        """
        own = self.state_dict()
        given = [value for name, value in weights.items() if not name.startswith("_fc.")]
        if [value.shape for value in given] != [value.shape for value in own.values()]:
            raise ValueError("number or shapes of its tensors differ")
        self.load_state_dict(dict(zip(own, given, strict=True)))
