"""What results are made from, as their origin names it."""

from __future__ import annotations

import torch

from .. import __version__
from ..checkpoint import RawCheckpoint
from ..data import Dataset
from ..fingerprint import fingerprint
from ..study.manifest import Source

__all__ = ["NAMES", "checkpoint_source", "data_source", "versions"]

# Options that say where checkpoint and data are: their content is compared, not these.
NAMES = ("checkpoint", "data", "split", "data_root", "levels")


def checkpoint_source(name: object, raw: RawCheckpoint) -> Source:
    """A checkpoint by the name it was given by."""
    return Source(str(name), raw.sha256)


def data_source(data: Dataset) -> Source:
    """Data with labels, spec and, where it is known, their exact density."""
    split = "" if data.split == "all" else f"the {data.split} split of "
    density = None if data.log_prob is None else data.name
    return Source(f"{split}{data.name}", fingerprint([data.fingerprint, density]))


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    return {"scoresde": __version__, "torch": torch.__version__}
