"""Snapshots of a run's power-function averages, from which `scoresde ema` makes other lengths.

`ema-0003500.safetensors` holds the averages after step 3,500. The tensors of average i are named
`i.NAME`; the metadata give the relative width of each average and the number of updates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..._envelope import read_envelope
from ..._tensor import check_integer, check_number
from ...checkpoint import CheckpointError, RawCheckpoint, read_checkpoint, save_checkpoint
from ...ema import PowerEMA

__all__ = ["Snapshot", "list_snapshots", "save_snapshot", "snapshot_files"]


@dataclass(frozen=True)
class Snapshot:
    """The header of a snapshot file.

    Attributes:
        path: The file.
        step: Steps done.
        updates: Updates of the averages: the steps that were not skipped.
        sigma_rel: Relative width of each average.
        sha256: Digest of the file's content.
    """

    path: Path
    step: int
    updates: int
    sigma_rel: tuple[float, ...]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Read the header alone.

        Raises:
            CheckpointError: If the file is not a snapshot.
        """
        try:
            with open(path, "rb") as file:
                envelope = read_envelope(file)
            about = envelope["metadata"]
            widths = tuple(check_number("sigma_rel", width) for width in about["sigma_rel"])
            counts = [check_integer(k, about[k], minimum=1) for k in ("steps_done", "updates")]
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a snapshot of averages: {error}", path) from error
        return cls(path, *counts, widths, envelope["sha256"])

    def tensors(self) -> RawCheckpoint:
        """The whole file, verified; average i is `below(f"{i}.")`.

        Raises:
            CheckpointError: If the file is damaged, or has changed since its header was read.
        """
        raw = read_checkpoint(self.path)
        if raw.sha256 != self.sha256:
            raise CheckpointError("has changed while it was being read", self.path)
        return raw


def save_snapshot(folder: Path, step: int, averages: Sequence[PowerEMA]) -> None:
    """Write the averages after a step, in half precision; nothing before the first update.

    Rounding changes each value by at most 2⁻¹¹ of itself, or by 3e-8 if it is below 6e-5. A tensor
    with values beyond ±65504, the range of float16, keeps its dtype.

    Args:
        folder: The run's folder.
        step: Steps done.
        averages: At least one average.

    Raises:
        ValueError: If a value is not finite.
        OSError: If the file cannot be written; an older file is then unchanged.
    """
    if averages[0].updates == 0:
        return
    tensors = {
        f"{i}.{name}": _halved(value)
        for i, average in enumerate(averages)
        for name, value in average.averages.items()
    }
    about = {
        "sigma_rel": [average.sigma_rel for average in averages],
        "updates": averages[0].updates,
        "steps_done": step,
    }
    save_checkpoint(folder / f"ema-{step:07d}.safetensors", tensors, about)


def snapshot_files(folder: Path) -> dict[int, Path]:
    """The files with names of snapshots, by step in increasing order."""
    found = {}
    for path in folder.glob("ema-*.safetensors"):
        if path.is_file() and (match := re.fullmatch(r"ema-(\d{7,})", path.stem)):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def list_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots of a run in the order of their steps.

    Raises:
        CheckpointError: If a file is not a snapshot.
        FileNotFoundError: If there are none.
    """
    files = snapshot_files(folder).values()
    if not files:
        raise FileNotFoundError(
            f"{folder}: holds no snapshots of averages; train with train.ema_snapshot_every above "
            "0 in the config"
        )
    return [Snapshot.read(path) for path in files]


def _halved(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    return half if torch.isfinite(half).all() else value
