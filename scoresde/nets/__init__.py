"""Noise-conditional networks: a U-Net for images and an MLP for vectors.

They map `(x, label, y)` to a tensor shaped like `x` and do not depend on an SDE. The score model
that wraps a network defines the meaning of the label and of the output. A network's `condition`
says which conditions y it takes.
"""

from .._condition import ConditionSpec
from .ddpm import DDPMUNet
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "ConditionSpec", "DDPMUNet", "UNet"]
