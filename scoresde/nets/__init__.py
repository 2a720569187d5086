"""Noise-conditional networks: a U-Net for images and an MLP for vectors.

They map `(x, label, y)` to a tensor shaped like `x` and know no SDE. The score model that wraps a
network says what the label and the output mean.
"""

from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "UNet"]
