"""Averages of any length of a finished run, made from its snapshots, for `scoresde ema`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .._tensor import check_fits
from ..checkpoint import CheckpointError, RawCheckpoint, save_checkpoint
from ..ema import Profile, Reconstruction, reconstruct
from ..ema.posthoc import DOUBTFUL
from ..fingerprint import fingerprint
from ..output.manifest import Source
from .request import StoredModel
from .train.files import CHECKPOINT
from .train.snapshots import Snapshot, list_snapshots

__all__ = ["RunAverages", "save_average"]


@dataclass(frozen=True)
class RunAverages:
    """A run with its snapshots, and the step whose averages are wanted.

    Attributes:
        stored: The run's checkpoint.
        snapshots: The snapshots, each with another number of updates.
        step: A step with a snapshot.
    """

    stored: StoredModel
    snapshots: tuple[Snapshot, ...]
    step: int

    @classmethod
    def read(
        cls, folder: Path, step: int | None = None, net: str | None = None, sde: str | None = None
    ) -> RunAverages:
        """Read the checkpoint of a run and the headers of its snapshots.

        Args:
            folder: The run's folder.
            step: A step with a snapshot; None for the last one.
            net: A network of the user's own, as `net_from_text` reads it.
            sde: An SDE of the user's own, as `sde_from_text` reads it.

        Raises:
            CheckpointError: If a file is missing, damaged or of another kind.
            FileNotFoundError: If there are no snapshots.
            ValueError: If there is none of this step.
        """
        stored = StoredModel.read(folder / CHECKPOINT, net, sde)
        found = list_snapshots(folder)
        # Between two of equal updates all steps were skipped, so that their averages are equal.
        snapshots = tuple({s.updates: s for s in reversed(found)}.values())[::-1]
        step = found[-1].step if step is None else step
        if step not in {snapshot.step for snapshot in snapshots}:
            known = ", ".join(str(snapshot.step) for snapshot in snapshots)
            raise ValueError(f"--step: {step} has no snapshot; the steps of {folder} are {known}")
        return cls(stored, snapshots, step)

    @property
    def at_end(self) -> bool:
        """Whether the run's own checkpoint is of this step."""
        return self.stored.raw.metadata.get("steps_done") == self.step

    @property
    def source(self) -> Source:
        """Name and content of the snapshots, for the origin of results."""
        digests = [snapshot.sha256 for snapshot in self.snapshots]
        return Source(str(self._last.path.parent), fingerprint(digests))

    @property
    def _last(self) -> Snapshot:
        return next(s for s in self.snapshots if s.step == self.step)

    def fit(self, sigma_rel: float) -> Reconstruction:
        """The factors of the stored averages for the average of this relative width.

        They are in the order of the snapshots, and of the averages in each snapshot.

        Raises:
            ValueError: If the width is out of range, or cannot be made from the snapshots.
        """
        profiles = [Profile(width, s.updates) for s in self.snapshots for width in s.sigma_rel]
        try:
            return reconstruct(profiles, Profile(sigma_rel, self._last.updates))
        except ValueError as error:
            raise ValueError(f"--sigma-rel: {error}") from error

    def checkpoint(self, sigma_rel: float) -> RawCheckpoint:
        """The content of a checkpoint with the average of this relative width.

        Sums are computed in float64. Counters and masks are those of the step.

        Warns:
            UserWarning: If the residual of the fit is above 0.1.

        Raises:
            CheckpointError: If a snapshot is damaged, or is of another network.
            ValueError: As for `fit`.
        """
        fit = self.fit(sigma_rel)
        if fit.residual > DOUBTFUL:
            warnings.warn(
                f"σ_rel {sigma_rel:g} is made from these snapshots with a residual of "
                f"{fit.residual:.2f}: its profile is not the one asked for",
                stacklevel=2,
            )
        raw = self.stored.raw
        tensors = {k: v for k, v in raw.tensors.items() if k.startswith("autoencoder.")}
        tensors |= {f"model.{k}": v for k, v in self._sums(fit.coefficients).items()}
        about = {"sigma_rel": sigma_rel, "residual": fit.residual}
        # The means since the last log line, and the time of a later step, are not of this average.
        gone = {"pending"} if self.at_end else {"pending", "seconds"}
        metadata = {k: v for k, v in raw.metadata.items() if k not in gone}
        metadata |= {"steps_done": self.step, "ema_updates": self._last.updates, "ema": about}
        digest = fingerprint([self.source.sha256, self.step, about])
        return RawCheckpoint(self._last.path, tensors, metadata, digest)

    def _sums(self, coefficients: Sequence[float]) -> dict[str, Tensor]:
        """The sums of the stored averages, by the names of the network's tensors."""
        own = self.stored.raw.below("model.")
        sums = {name: torch.zeros(v.shape, dtype=torch.float64) for name, v in own.items()}
        factors = iter(coefficients)
        for snapshot in self.snapshots:
            used = [next(factors) for _ in snapshot.sigma_rel]
            if not any(used):
                continue
            raw = snapshot.tensors()
            for i, factor in enumerate(used):
                average = raw.below(f"{i}.")
                try:
                    check_fits(average, own, "the run's network")
                except ValueError as error:
                    raise CheckpointError(str(error), snapshot.path) from error
                for name, value in average.items():
                    floating = own[name].is_floating_point()
                    sums[name] = sums[name].add(value, alpha=factor) if floating else value
        return {name: value.to(own[name].dtype) for name, value in sums.items()}

    def model(self, sigma_rel: float) -> StoredModel:
        """The model with the average of this relative width; as for `checkpoint`."""
        return replace(self.stored, raw=self.checkpoint(sigma_rel))


def save_average(averages: RunAverages, sigma_rel: float, out: Path) -> Reconstruction:
    """Write a checkpoint with the average of a relative width, for `scoresde.load`.

    Args:
        averages: The run.
        sigma_rel: The relative width.
        out: The file, which must not exist.

    Returns:
        The fit, with its residual.

    Raises:
        CheckpointError: If a file of the run is damaged.
        ValueError: If the file exists, or the average cannot be made.
    """
    if out.exists():
        raise ValueError(f"--out {out}: is there already; give another name")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.absolute().parent}")
    made = averages.checkpoint(sigma_rel)
    save_checkpoint(out, made.tensors, made.metadata)
    return averages.fit(sigma_rel)
