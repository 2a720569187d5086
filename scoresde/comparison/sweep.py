"""A sweep: every cell of a plan is run on one model from the same noise, and can be resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._tensor import NonFiniteError, expand
from ..data import DataSpec
from ..evaluation import count_nfe
from ..fingerprint import fingerprint
from ..metrics import paired_rmse
from ..noise import SampleNoise
from ..output.files import save_arrays, write_json
from ..output.progress import Tell
from ..score import ScoreModel
from ..score.sets import only_present, share_present
from ..tasks.compiling import compile_network, is_compiled
from .checked import estimates_to_json
from .draw import DrawSettings, draw
from .influences import influence_arrays
from .limit import NO_LIMIT, OutOfTimeError, TimeLimit
from .measure import Cost, timing
from .plan import Cell, likely_evaluations
from .quality import Quality
from .records import CELLS, FLOOR, CellResult, load_cell, save_cell
from .reference import REFERENCE, Reference
from .stages import save_stages, stage_files

__all__ = ["Sweep"]

KEPT_IMAGES = 64  # images of each cell that are stored
KEPT_POINTS = 1024  # vectors of each cell that are stored, for scatter plots
KEY_DIGITS = 16  # digits of a fingerprint in a file name; the file itself holds all 64

START, QUALITY = "start.npz", "quality.json"


@dataclass(frozen=True)
class Sweep:
    """A model, the cells to run on it, and the metrics of each cell.

    Attributes:
        model: Score model, on the device of the settings.
        model_sha256: Fingerprint of the model, such as the digest of its checkpoint.
        spec: Description of the data.
        cells: The plan.
        settings: The settings shared by all draws.
        quality: The metrics that compare samples with data; None = no such metrics.
        tolerance: rtol = atol of the reference solution; None = no paired error.
        processes: Number of processes that measure cells at the same time.
    """

    model: ScoreModel
    model_sha256: str
    spec: DataSpec
    cells: list[Cell]
    settings: DrawSettings
    quality: Quality | None = None
    tolerance: float | None = 1e-6
    processes: int = 1

    @property
    def kept(self) -> int:
        """Number of samples of each cell that are stored."""
        return min(self.settings.n, KEPT_IMAGES if len(self.spec.shape) == 3 else KEPT_POINTS)

    @property
    def about_quality(self) -> dict[str, Any]:
        """Reference data, features and floor of the quality metrics, as plain data."""
        return self.quality.about | {"floor_values": estimates_to_json(self.quality.floor)}

    @cached_property
    def common(self) -> str:
        """Fingerprint of everything that determines the samples of all cells."""
        return self.settings.fingerprint(self.model_sha256)

    @cached_property
    def measures(self) -> str:
        """Fingerprint of everything that determines the metrics, apart from the samples."""
        quality = None if self.quality is None else self.quality.fingerprint
        solution = None if self.solver is None else self.solver.fingerprint
        return fingerprint({"quality": quality, "reference": solution, "kept": self.kept})

    @property
    def end(self) -> float:
        """Time at which the reference solution ends: the least last time of all grids.

        All cells approximate one point, the solution of the ODE at t = 0. The reference comes
        closest to it. A cell whose grid ends earlier has the error of its larger last step, which
        is the denoising.
        """
        ends = [float(cell.ts[-1]) for cell in self.cells if cell.ts is not None]
        return min([self.settings.t_min, *ends])

    @cached_property
    def solver(self) -> Reference | None:
        """The solver of the reference solution; None if there is no paired error."""
        if self.tolerance is None:
            return None
        made_from, settings = self.common, self.settings
        if self.end < settings.t_min:  # stored comparisons have no end of their own
            made_from, settings = (
                fingerprint([made_from, self.end]),
                replace(settings, t_min=self.end),
            )
        return Reference(self.tolerance, settings, made_from)

    def made_from(self, cell: Cell) -> str:
        """Fingerprint of everything that determines the numbers of a cell."""
        return fingerprint([self.common, self.measures, cell.fingerprint])

    def key(self, cell: Cell) -> str:
        """Name of the cell's file, without its ending."""
        return f"{cell.slug}--{self.made_from(cell)[:KEY_DIGITS]}"

    @property
    def parts(self) -> list[str]:
        """Paths of the files from which a stopped sweep continues: the solution, and all cells."""
        reference = [] if self.tolerance is None else [REFERENCE]
        cells = [cell for cell in self.cells if cell.ts is not None]
        return [*reference, *(f"{CELLS}/{self.key(cell)}.npz" for cell in cells)]

    @property
    def files(self) -> list[str]:
        """Paths of everything that `run` may write."""
        return [
            START,
            *([] if self.quality is None else [QUALITY, FLOOR]),
            *stage_files(self),
            *self.parts,
        ]

    def run(
        self,
        folder: Path,
        tell: Tell,
        known: Sequence[Path] = (),
        cells: Sequence[Cell] | None = None,
        limit: TimeLimit = NO_LIMIT,
        failed: Mapping[str, CellResult] | None = None,
    ) -> list[CellResult]:
        """Run the cells that neither `folder` nor a known folder holds yet.

        The reference solution is computed before the first cell that needs it. A cell that does
        not fit into the time limit is left out; later cells may fit.

        Args:
            folder: An existing folder to write to.
            tell: Called with (stage, done, total, note) during the work.
            known: Folders with earlier results. A result is used if its fingerprint is the same.
            cells: Some cells of the plan; None for all.
            limit: The time at which the work ends.
            failed: Results by cell of those that have just failed, and are not tried again.

        Returns:
            One result per finished cell, in the order of the plan; also for cells that cannot run.

        Warns:
            UserWarning: If a file is damaged; its content is computed again.

        Raises:
            RuntimeError: If a sampler did not start from the common noise.
        """
        save_arrays(folder / START, x_init=self.start[: self.kept].numpy())
        if self.quality is not None:
            write_json(folder / QUALITY, self.about_quality)
            save_arrays(folder / FLOOR, **influence_arrays(self.quality.floor))
        cells = self.cells if cells is None else cells
        places, done, total = (folder, *known), 0, sum(map(likely_evaluations, cells))
        solved = self.stored_solution(places) if any(map(self.is_paired, cells)) else None
        results: list[CellResult] = []
        for cell in cells:
            tell("sampling", done, total, f"{cell.label} {cell.grid}".strip())
            done += likely_evaluations(cell)
            result = (failed or {}).get(cell.name) or self.stored(cell, places)
            if result is None:
                try:
                    unsolved = solved is None and self.is_paired(cell)
                    if limit.finite and not limit.allows(self.seconds(cell, unsolved)):
                        continue
                    if unsolved:
                        solved = self.solve(folder, tell, limit)
                    result = self.measure(cell, folder, solved, limit)
                except OutOfTimeError:
                    continue
            results.append(result)
        if solved is None and any(self.is_paired(cell) for cell in cells) and not limit.finite:
            solved = self.solve(folder, tell, limit)  # its cells are stored, and it is not
        if solved is not None and self.quality is not None:
            save_stages(self, folder, places, solved, tell, limit)
        tell("sampling", total, total, "")
        return results

    def compile(self) -> None:
        """Compile the network if the settings say so, unless a case of the same model has done it.

        Everything that is timed comes later.
        """
        settings = self.settings
        if settings.compiled and not is_compiled(self.model):
            rows = min(settings.batch, settings.n)
            compile_network(self.model, rows, settings.data_shape, torch.float32, settings.y)

    def is_paired(self, cell: Cell) -> bool:
        """Whether a cell is compared with the reference solution."""
        return self.solver is not None and cell.deterministic and cell.ts is not None

    def seconds(self, cell: Cell, unsolved: bool) -> float:
        """Expected seconds of a cell, perhaps with those of the reference solution."""
        first = self.cost.of_solution(self.solver) if unsolved else 0.0
        return first + self.cost.of_cell(cell)

    def result(self, cell: Cell, status: str, **measured: Any) -> CellResult:
        """The result of a cell, with the measured values."""
        return CellResult(
            cell.slug if cell.ts is None else self.key(cell),
            cell.label,
            cell.grid,
            cell.budget,
            cell.tolerance,
            status,
            cell.deterministic,
            cell.setting,
            steps=cell.steps,
            t_min=None if cell.ts is None else float(cell.ts[-1]),
            **measured,
        )

    @cached_property
    def start(self) -> Tensor:
        """x_T, as drawn by `sample` from the seed, shape (n, *D), float32 on the CPU."""
        noise = SampleNoise(self.settings.seed, range(self.settings.n))
        x = noise.prior(self.settings.shape, torch.device(self.settings.device))
        model = self.model.given(self.settings.y)
        x = x * self.model.sde.start_std(self.model.sde.t_regular)
        return only_present(model, x).to("cpu", torch.float32)

    def per_point(self, *states: Tensor) -> list[Tensor]:
        """States (n, *D) whose mean squares over D are those over the points of sets."""
        share = share_present(self.model.given(self.settings.y), states[0])
        return [x if share is None else x * expand(share.rsqrt(), x).to(x) for x in states]

    @cached_property
    def cost(self) -> Cost:
        """What the model and the metrics cost on this machine."""
        return Cost(self.model, self.settings, self.start, self.quality)

    def stored_solution(self, places: Sequence[Path]) -> Tensor | None:
        """The reference solution from the first folder that has it."""
        part = self.solver.find(places)
        return None if part is None else torch.from_numpy(part.arrays["x"])

    def solve(self, folder: Path, tell: Tell, limit: TimeLimit) -> Tensor:
        """The reference solution, computed and written to the folder."""
        on_progress = partial(tell, "reference solution")
        part = self.solver.solve(self.model, folder, on_progress, limit)
        on_progress(100, 100, "")
        return torch.from_numpy(part.arrays["x"])

    def stored(self, cell: Cell, places: Sequence[Path]) -> CellResult | None:
        """The result of a cell that cannot run or is stored; None if it must be measured."""
        if cell.ts is None:
            return self.result(cell, "skipped", reason=cell.reason)
        name, made_from = f"{CELLS}/{self.key(cell)}.npz", self.made_from(cell)
        planned = self.result(cell, "done")
        found = (load_cell(place / name, made_from, planned) for place in places)
        return next((result for result in found if result is not None), None)

    def measure(
        self, cell: Cell, folder: Path, solved: Tensor | None, limit: TimeLimit
    ) -> CellResult:
        """Draw the samples of a cell, time them, compute the metrics, and write the file."""
        settings, on_step = self.settings, limit.check if limit.finite else None
        bare = (
            self.cost.evaluation_seconds
        )  # before the first cell, which must not warm up the network
        run = partial(draw, settings, self.model, cell.sampler, cell.ts, denoise=cell.denoise)
        try:
            with count_nfe(self.model) as counted:
                out, spent = timing(settings.device, partial(run, on_step=on_step))
        except RuntimeError as error:
            if not (isinstance(error, NonFiniteError) or "gave up" in str(error)):
                raise
            return self.result(cell, "failed", reason=str(error))
        digest = _digest(out.x_init)
        if digest != _digest(self.start):
            raise RuntimeError(f"{cell.label} did not start from the common noise")
        x = out.x.cpu()
        metrics = {} if self.quality is None else self.quality.measure(x)
        if self.is_paired(cell):
            metrics["paired_rmse"] = paired_rmse(*self.per_point(x, solved))
        result = self.result(
            cell,
            "done",
            nfe=out.nfe,
            n=len(x),
            features="" if self.quality is None else self.quality.features.label,
            x_init_sha256=digest,
            nfe_derivative=counted.derivative * out.nfe // counted.forward,
            flops=self.cost.flops_of(out.nfe),
            seconds=spent.seconds,
            seconds_low=spent.low,
            seconds_high=spent.high,
            seconds_bare=bare * out.nfe,
            memory=spent.memory,
            processes=self.processes,
            metrics=metrics,
        )
        few = x[: self.kept] if self.spec.levels is None else self.spec.to_levels(x[: self.kept])
        save_cell(folder / CELLS / f"{result.key}.npz", self.made_from(cell), result, few)
        return result


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()
