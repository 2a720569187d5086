"""Features of a small image classifier, shipped for two data sets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .._tensor import check_integer
from .estimate import as_rows
from .features import FeatureSpace, digest_of

__all__ = ["CNNFeatures", "SmallCNN", "load_features"]

_BATCH = 1024  # images per forward pass of the network


class SmallCNN(nn.Module):
    """Classifier of small grey images: three convolutions to 4×4, one hidden layer, one head.

    Args:
        size: Height and width of the images: 8 or 28.
        features: Width d of the hidden layer.
        classes: Number of classes.

    Raises:
        ValueError: If there is no such architecture for the size.
    """

    _STRIDES = {8: (1, 2, 1), 28: (2, 2, 2)}

    def __init__(self, size: int, features: int = 64, classes: int = 10) -> None:
        super().__init__()
        if size not in self._STRIDES:
            raise ValueError(f"size must be one of {sorted(self._STRIDES)}, got {size}")
        features = check_integer("features", features, minimum=1)
        classes = check_integer("classes", classes, minimum=2)
        self.size = size
        widths = (1, 16, 32, 32)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, padding=1)
            for a, b, stride in zip(widths, widths[1:], self._STRIDES[size], strict=False)
        )
        self.hidden = nn.Linear(widths[-1] * 4 * 4, features)
        self.head = nn.Linear(features, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate layer, shape (n, d), of images (n, 1, size, size) on [−1, 1]."""
        for conv in self.convs:
            x = nn.functional.silu(conv(x))
        return nn.functional.silu(self.hidden(x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (n, classes), of images (n, 1, size, size) on [−1, 1]."""
        return self.head(self.embed(x))


class CNNFeatures(FeatureSpace):
    """Penultimate layer of a trained `SmallCNN`, standardized over its training images.

    Standardized features make Fréchet distances and kernels comparable between data sets: each
    feature has mean 0 and variance 1 on the training images.

    Args:
        name: Name of the space.
        net: Trained network.
        mean: Mean of each feature over the training images, shape (d,).
        std: Standard deviation of each feature over the training images, shape (d,), positive.
        metadata: Provenance: seed, test accuracy, command.

    Raises:
        ValueError: If the standard deviations are not positive.
    """

    def __init__(
        self,
        name: str,
        net: SmallCNN,
        mean: Tensor,
        std: Tensor,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if not bool((std > 0).all()):
            raise ValueError(f"std must be positive, got a smallest value of {float(std.min()):g}")
        self.name = name
        self.net = net.eval().requires_grad_(False)
        self.mean, self.std = mean, std
        self.metadata = dict(metadata or {})

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.net.state_dict(), "feature_mean": self.mean, "feature_std": self.std}

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of the standardization."""
        return digest_of(self._tensors())

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features of images, shape (n, d), float64, on the device of `x`.

        Args:
            x: Images on the model's scale [−1, 1], shape (n, 1, size, size). Samples must be
                rounded and clipped to the levels of the data, as the training images were.

        Raises:
            TypeError: If `x` is not a tensor.
            ValueError: If the shape is wrong, or values are not finite or not in [−1, 1].
        """
        weight = self.net.head.weight
        images = self._checked(x).to(weight)
        features = torch.cat([self.net.embed(batch) for batch in images.split(_BATCH)])
        return ((features - self.mean) / self.std).to(x.device, torch.float64)

    def _checked(self, x: Tensor) -> Tensor:
        rows = as_rows(x, minimum=1)
        size = self.net.size
        if x.shape[1:] != (1, size, size):
            wanted = f"(n, 1, {size}, {size}) for {self.name}"
            raise ValueError(f"x must have shape {wanted}, got {tuple(x.shape)}")
        low, high = float(rows.min()), float(rows.max())
        if low < -1.001 or high > 1.001:  # room for the rounding of half precision
            raise ValueError(
                f"x must lie on the model's scale [-1, 1], got values from {low:g} to {high:g}; "
                "encode levels, and round and clip samples to the levels of the data"
            )
        return x.detach()

    def save(self, path: str | Path) -> None:
        """Write weights, standardization and metadata to one safetensors file."""
        tensors = {key: value.contiguous() for key, value in self._tensors().items()}
        metadata = {
            **self.metadata,
            "name": self.name,
            "size": str(self.net.size),
            "sha256": self.fingerprint,
        }
        save_file(tensors, str(path), metadata)

    @classmethod
    def load(cls, path: str | Path) -> CNNFeatures:
        """Read a file written by `save` and verify its hash.

        Raises:
            ValueError: If the file was not written by `save`, or does not match its hash.
        """
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            mean, std = tensors.pop("feature_mean"), tensors.pop("feature_std")
            classes, features = tensors["head.weight"].shape
            net = SmallCNN(int(metadata["size"]), features, classes)
            net.load_state_dict(tensors)
            space = cls(metadata["name"], net, mean, std, metadata)
        except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold feature weights: {error}") from error
        if space.fingerprint != metadata.get("sha256"):
            raise ValueError(f"{path} is damaged: its weights do not match their hash")
        return space


def load_features(name: str) -> CNNFeatures:
    """The feature space shipped for a data set.

    Args:
        name: Data set, `digits` (8×8) or `fashion-mnist` (28×28).

    Raises:
        ValueError: If no features are shipped for this data set.
    """
    folder = files("scoresde") / "assets"
    shipped = {
        item.name.removeprefix("features_").removesuffix(".safetensors").replace("_", "-"): item
        for item in folder.iterdir()
        if item.name.startswith("features_")
    }
    if name not in shipped:
        raise ValueError(f"name must be one of {', '.join(sorted(shipped))}, got {name}")
    with as_file(shipped[name]) as path:
        return CNNFeatures.load(path)
