"""`ImageFiles`: images of a folder that are decoded when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._rows import Rows
from .decoding import BadImageError, decode_image

__all__ = ["ImageFiles", "stacked", "try_decoding"]


class ImageFiles(Rows):
    """Images in files, as 8-bit grey or RGB; see `load_folder`.

    Args:
        name: Name of the data, for messages.
        files: One file for each image; all have been decoded once.
        shape: Shape (N, C, H, W) with C = 1 or 3.
        workers: Number of processes that decode ahead.
    """

    def __init__(
        self, name: str, files: Sequence[Path], shape: tuple[int, ...], workers: int = 0
    ) -> None:
        super().__init__(name, shape, torch.uint8, workers)
        self.files = files
        self._states = np.array([_state_of(file) for file in files])

    def read(self, rows: np.ndarray) -> Tensor:
        """Some images; see `Rows.read`."""
        if not rows.size:
            return torch.empty(0, *self.shape[1:], dtype=self.dtype)
        images = []
        for row in rows.tolist():
            file = self.files[row]
            if not np.array_equal(_state_of(file), self._states[row]):
                raise ValueError(f"{file} has changed since it was opened")
            images.append(decode_image(file)[0])
        return stacked(images, self.shape[1] == 3)


def try_decoding(file: Path) -> tuple[np.ndarray | None, list[str], str | None]:
    """`decode_image`, with the text of a `BadImageError` as a third result instead of the error."""
    try:
        return *decode_image(file), None
    except BadImageError as error:
        return None, [], str(error)


def stacked(images: Sequence[np.ndarray], colour: bool) -> Tensor:
    """Images (H, W) or (H, W, 3) of one size as a tensor, uint8 (N, C, H, W).

    Args:
        images: At least one image.
        colour: Whether grey images are repeated in three channels.
    """
    if not colour:
        return torch.from_numpy(np.stack(images)).unsqueeze(1)
    rgb = [image if image.ndim == 3 else np.stack([image] * 3, axis=-1) for image in images]
    return torch.from_numpy(np.stack(rgb).transpose(0, 3, 1, 2).copy())


def _state_of(file: Path) -> tuple[int, int]:
    """What changes if a file is written to: its size and the time of its change."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns
