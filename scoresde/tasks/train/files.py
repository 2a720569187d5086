"""The files of a training run: their names, how often they are written, what may be replaced.

- checkpoint.safetensors: averaged weights, and the state for resuming; replaced atomically
- best.safetensors: the averaged weights of the smallest validation loss, if there is a validation
- ema-*.safetensors: snapshots of power-function averages, if train.ema_snapshot_every is set
- log.jsonl: one line per `log_every` steps, and one per validation
- samples-*.png: a grid of samples every `sample_every` steps
- loss.png: loss against step, and error against time
- scoresde.tfevents.*: log and grids for TensorBoard, if `events.steps_with_events` runs the loop
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..._files import clean_folder
from ..._tensor import check_integer, plain_numbers
from ...checkpoint import read_checkpoint
from ...output.tensorboard import EVENTS
from .history import is_log
from .snapshots import snapshot_files

__all__ = [
    "BEST",
    "CHECKPOINT",
    "FIGURE",
    "LOG",
    "SAVE_MINUTES",
    "Intervals",
    "check_folder",
    "files_of_a_run",
    "open_folder",
    "sample_grids",
]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LOG = "log.jsonl"
FIGURE = "loss.png"

SAVE_MINUTES = 5  # age at which a checkpoint is replaced: the most that a killed process loses


@dataclass(frozen=True)
class Intervals:
    """How often a run writes. This never changes the weights, so a resumed run may change it.

    Args:
        log_every: Steps between log lines.
        save_every: Steps between checkpoints; a checkpoint is also saved when the latest one is
            `SAVE_MINUTES` old.
        sample_every: Steps between pictures of samples.
        validate_every: Steps between validations, if the training has held-out data.
        validate_bits: Number of held-out data whose bits/dim are measured at each validation, at
            least 2; 0 for none.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is out of range.
    """

    log_every: int = 100
    save_every: int = 1000
    sample_every: int = 5000
    validate_every: int = 1000
    validate_bits: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name, value in vars(self).items():
            check_integer(name, value, minimum=0 if name == "validate_bits" else 1)


def check_folder(folder: Path) -> None:
    """Raise if a run would replace files in the folder that do not belong to a run.

    Args:
        folder: The run's folder; need not exist.

    Raises:
        CheckpointError: If the checkpoint is not ours, or is damaged, and there is no log.
        ValueError: If other files have the names of a run's files, and there is no log.
    """
    found = files_of_a_run(folder)
    log = folder / LOG
    # A run that is killed early leaves an empty log, which does not show that other files are ours.
    if not found or (is_log(log) and (found == [log] or log.stat().st_size)):
        return
    if folder / CHECKPOINT in found:
        read_checkpoint(folder / CHECKPOINT)
    else:
        raise ValueError(
            f"--out {folder}: holds {found[-1].name}, which scoresde train did not write; give "
            "another folder"
        )


def open_folder(folder: Path, done: int) -> None:
    """Prepare a run's folder for the files of the steps after `done`, which are written again."""
    folder.mkdir(parents=True, exist_ok=True)
    if done == 0:
        for path in files_of_a_run(folder):
            path.unlink()
    for step, path in snapshot_files(folder).items():
        if step > done:
            path.unlink()
    clean_folder(folder)


def files_of_a_run(folder: Path) -> list[Path]:
    """The files in a folder that have the names of a run's files."""
    single = [p for name in (CHECKPOINT, LOG, FIGURE, BEST) if (p := folder / name).is_file()]
    pictures = [path for _, path in sample_grids(folder)]
    return single + pictures + [*snapshot_files(folder).values(), *folder.glob(f"{EVENTS}*")]


def sample_grids(folder: Path) -> list[tuple[int, Path]]:
    """Step and file of each grid of samples in a run's folder, in the order of the steps."""
    found = ((re.fullmatch(r"samples-(\d{7,})", p.stem), p) for p in folder.glob("samples-*.png"))
    return sorted((int(match[1]), path) for match, path in found if match)
