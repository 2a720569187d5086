"""What a comparison measures beside its cells: errors along the trajectory and by noise level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..data import Dataset
from ..output.parts import Part, load_part, save_part
from ..tasks.given import GivenModel
from . import noise_levels, trajectory
from .data import BenchData
from .limit import TimeLimit
from .sweep import Sweep

__all__ = ["INSIGHTS", "Insights"]

INSIGHTS = "errors by time and noise level"  # their name in the plan


@dataclass(frozen=True)
class Insights:
    """The additional measurements of a case.

    Attributes:
        sweep: The sweep.
        given: Its model.
        data: The data of the comparison.
    """

    sweep: Sweep
    given: GivenModel
    data: BenchData

    @cached_property
    def wanted(self) -> dict[str, str]:
        """Name of each file to make, and the fingerprint of what determines its content."""
        found = {}
        if self.sweep.solver is not None and trajectory.chosen(self.sweep.cells):
            found[trajectory.TRAJECTORY] = trajectory.made_from(self.sweep)
        if self._splits:
            found[noise_levels.NOISE_LEVELS] = noise_levels.made_from(self.sweep, self._splits)
        return found

    @property
    def evaluations(self) -> float:
        """Expected cost, in evaluations of the network for all samples of a cell."""
        along = trajectory.likely_evaluations(self.sweep)
        return along + noise_levels.likely_evaluations(self.sweep, self._splits)

    def missing(self, places: Sequence[Path]) -> bool:
        """Whether no folder holds some of the files."""
        return any(self._find(name, places) is None for name in self.wanted)

    def measure(self, folder: Path, places: Sequence[Path], limit: TimeLimit) -> None:
        """Write the files to a folder, as far as there is time.

        Args:
            folder: Folder of the comparison.
            places: Folders that may hold them already.
            limit: The time at which the work ends.
        """
        for name, content in self.wanted.items():
            part = self._find(name, places)
            if part is not None:
                save_part(folder / name, content, *part)
            elif limit.allows(self.evaluations * self.sweep.cost.evaluation_seconds):
                if name == trajectory.TRAJECTORY:
                    trajectory.measure(self.sweep, folder)
                else:
                    noise_levels.measure(self.sweep, self.given, self._splits, folder)

    def _find(self, name: str, places: Sequence[Path]) -> Part | None:
        found = (load_part(place / name, self.wanted[name]) for place in places)
        return next((part for part in found if part is not None), None)

    @cached_property
    def _splits(self) -> dict[str, Dataset]:
        """The data whose errors are measured, by split."""
        model = self.sweep.model
        if self.data.train is None or model.guided or model.decoder is not None:
            return {}  # they do not predict the noise of data
        splits = {"training": self.data.train}
        if self.data.test is not None:
            splits["held-out"] = self.data.test
        return noise_levels.usable(self.sweep, self.given, splits)
