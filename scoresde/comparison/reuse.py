"""Cells and reference solutions of other comparisons that are used instead of being made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ..output.parts import load_part
from ..output.result_folder import Output
from .plan import Cell
from .records import CELLS
from .reference import REFERENCE
from .sweep import Sweep

__all__ = ["copy_known"]


def copy_known(sweep: Sweep, cells: Iterable[Cell], places: Iterable[Path], output: Output) -> None:
    """Copy cells and the solution from other folders if all that determines them is the same.

    Args:
        sweep: The sweep to which the cells belong.
        cells: The cells that are wanted.
        places: Folders of other comparisons.
        output: Where to copy to; what is there already stays.
    """
    made_from = {f"{CELLS}/{sweep.key(cell)}.npz": sweep.made_from(cell) for cell in cells}
    if sweep.solver is not None:
        made_from[REFERENCE] = sweep.solver.fingerprint
    for place in places:
        for name, content in made_from.items():
            new = not any((there / name).exists() for there in (output.work, output.folder))
            if new and load_part(place / name, content) is not None:
                (output.work / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(place / name, output.work / name)
