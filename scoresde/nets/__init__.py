"""Noise-conditional networks: U-Nets, transformers, and fully connected networks for vectors.

They map `(x, label, y)` to a tensor shaped like `x` and do not depend on an SDE. The score model
that wraps a network defines the meaning of the label and of the output. A network's `condition`
says which conditions y it takes. The classifiers among them map `(x, label)` to logits.
"""

from .._condition import ConditionSpec
from .block_unet import BlockUNet
from .classifiers import MLPClassifier, UNetClassifier
from .ddpm import DDPMUNet
from .dense_unet import DenseUNet
from .minimal_unet import MinimalUNet
from .mlp import MLP
from .ncsnpp import NCSNpp
from .transformer import Transformer
from .unet import UNet

__all__ = [
    "MLP",
    "BlockUNet",
    "ConditionSpec",
    "DDPMUNet",
    "DenseUNet",
    "MLPClassifier",
    "MinimalUNet",
    "NCSNpp",
    "Transformer",
    "UNet",
    "UNetClassifier",
]
