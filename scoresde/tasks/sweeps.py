"""Results of `scoresde ema` for a run, to be shown with the run's pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._text import printable
from ..output.files import read_json
from ..output.manifest import Manifest
from ..output.result_folder import SUMMARY, check_whole

__all__ = ["SWEEP", "Sweep", "find_sweeps"]

SWEEP = "sweep.png"
NAMES = {"loss": "loss on held-out data", "bits": "likelihood of held-out data", "mmd": "MMD²"}


@dataclass(frozen=True)
class Sweep:
    """A finished result of `scoresde ema`.

    Attributes:
        picture: Its figure.
        caption: What the figure shows, with the best relative width.
    """

    picture: Path
    caption: str


def find_sweeps(run: Path, given: Sequence[Path], checkpoint: str) -> list[Sweep]:
    """The results of `scoresde ema` in subfolders of a run, then those that are given.

    A warning names a subfolder with results of another state of the run, which are left out.

    Args:
        run: The run's folder.
        given: Further folders of results.
        checkpoint: Digest of the run's checkpoint, as results name it.

    Raises:
        ValueError: If a given folder holds no finished results of `scoresde ema` for this state of
            the run.
    """
    found = dict(_inside(run, checkpoint))
    for folder in given:
        wrong = _not_of(folder, checkpoint)
        if wrong is not None:
            raise ValueError(f"--ema {folder}: {wrong}")
        found[folder.resolve()] = _read(folder)
    return list(found.values())


def _inside(run: Path, checkpoint: str) -> Iterator[tuple[Path, Sweep]]:
    """The results in subfolders of the run."""
    for folder in sorted(path for path in run.iterdir() if path.is_dir()):
        if _manifest(folder) is not None:
            wrong = _not_of(folder, checkpoint)
            if wrong is None:
                yield folder.resolve(), _read(folder)
            else:
                warnings.warn(f"{printable(str(folder))}: {wrong}; left out", stacklevel=4)


def _manifest(folder: Path) -> Manifest | None:
    """The manifest of results of `scoresde ema`; None if there are none."""
    try:
        found = Manifest.read(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if found.settings.get("command") == "ema" else None


def _not_of(folder: Path, checkpoint: str) -> str | None:
    """Why the results in a folder cannot be shown; None if they can."""
    found = _manifest(folder)
    if found is None or not found.finished:
        return "holds no finished results of `scoresde ema`"
    if found.sources["checkpoint"].sha256 != checkpoint:
        return "holds results of `scoresde ema` for another run or for an earlier state of this one"
    try:
        check_whole(folder)
    except ValueError as error:
        return printable(str(error))
    return None


def _read(folder: Path) -> Sweep:
    summary = read_json(folder / SUMMARY)
    text = (
        f"Length of the average of the weights after step {summary['step']}: "
        f"{NAMES[summary['by']]} against relative width; smallest at σ_rel {summary['best']:g}"
    )
    return Sweep(folder / SWEEP, text)
