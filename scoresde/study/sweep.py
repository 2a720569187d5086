"""Run every cell of a plan on one model from the same noise, resumably."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .._tensor import NonFiniteError
from ..data import DataSpec
from ..metrics import paired_rmse
from ..noise import SampleNoise
from ..samplers import Samples, sample
from ..score import NetworkScore, ScoreModel
from .outputs import save_arrays, write_json
from .plan import Cell
from .quality import Quality
from .records import CELLS, Result, estimate_to_json
from .reference import Reference
from .running import advise_on_memory

__all__ = ["Sweep", "Tell"]

# Called with the name of a stage, and what `OnProgress` is called with.
Tell = Callable[[str, int, int | None, str], None]

KEPT_IMAGES = 64  # samples of each cell that are kept
KEPT_POINTS = 1024  # the same of vectors, for scatter plots


@dataclass(frozen=True)
class Sweep:
    """A model, the cells to measure, and what to measure in them.

    Attributes:
        model: Score model, on `device`.
        spec: What the data are.
        cells: The plan.
        n: Samples per cell.
        seed: Seed of x_T and of all other noise, the same for every cell.
        t_min: Last time of all grids.
        batch: Samples at a time.
        device: Where the model is.
        quality: Ruler of the samples; None = no quality metrics.
        tolerance: rtol = atol of the reference solution; None = no paired error.
        y: Class labels, shape (n,), for a conditional model.
    """

    model: ScoreModel
    spec: DataSpec
    cells: list[Cell]
    n: int
    seed: int
    t_min: float
    batch: int
    device: str = "cpu"
    quality: Quality | None = None
    tolerance: float | None = 1e-6
    y: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the samples of a cell, (n, *D)."""
        return (self.n, *self.spec.shape)

    @property
    def kept(self) -> int:
        """How many samples of each cell are kept."""
        return min(self.n, KEPT_IMAGES if len(self.spec.shape) == 3 else KEPT_POINTS)

    @property
    def cost(self) -> int:
        """Evaluations of all cells, as the plan counted them."""
        return sum(cell.cost for cell in self.cells if cell.ts is not None)

    def run(self, folder: Path, tell: Tell) -> list[Result]:
        """Measure what the folder does not hold yet.

        Args:
            folder: An existing folder of these settings (see `open_output`).
            tell: Called with (stage, done, total, note) as the work goes on.

        Returns:
            One result per cell, in the order of the plan.

        Raises:
            RuntimeError: If a sampler did not start from the common noise.
        """
        (folder / CELLS).mkdir(exist_ok=True)
        start = self.start()
        save_arrays(folder / "start.npz", x_init=start[: self.kept].numpy())
        if self.quality is not None:
            floor = {name: estimate_to_json(e) for name, e in self.quality.floor.items()}
            write_json(folder / "quality.json", {**self.quality.about, "floor_values": floor})
        reference = None
        if self.tolerance is not None:
            solver = Reference(
                self.tolerance, self.seed, self.t_min, self.batch, self.device, self.y
            )
            on_progress = partial(tell, "reference solution")
            reference = solver.solve(self.model, self.shape, folder, on_progress)
        measure = _Measure(self, folder, reference, _digest(start))
        results: list[Result] = []
        done = 0
        for cell in self.cells:
            tell("sampling", done, self.cost, f"{cell.label} {cell.grid}".strip())
            results.append(Result.load(folder, cell.key) or measure(cell))
            done += cell.cost if cell.ts is not None else 0
        tell("sampling", done, self.cost, "")
        return results

    def start(self) -> Tensor:
        """x_T of the samples as `sample` draws it from the seed, float32 on the CPU."""
        noise = SampleNoise(self.seed, range(self.n))
        return (noise.prior(self.shape) * self.model.sde.prior_std).to(torch.float32)


class _Measure:
    """One cell after another: sample, time, measure, write."""

    def __init__(self, sweep: Sweep, folder: Path, reference: Tensor | None, digest: str) -> None:
        self.sweep, self.folder = sweep, folder
        self.reference, self.digest = reference, digest
        self._bare: float | None = None

    def __call__(self, cell: Cell) -> Result:
        result = self._of(cell)
        result.save(self.folder)
        return result

    def _of(self, cell: Cell) -> Result:
        if cell.ts is None:
            return _result(cell, "skipped", reason=cell.reason)
        if self._bare is None:
            self._bare = _bare_seconds(self.sweep)
        try:
            out, seconds = self._timed(cell)
        except RuntimeError as error:
            if not (isinstance(error, NonFiniteError) or "gave up" in str(error)):
                raise
            return _result(cell, "failed", reason=str(error))
        if _digest(out.x_init) != self.digest:
            raise RuntimeError(f"{cell.label} did not start from the common noise")
        x, quality = out.x.cpu(), self.sweep.quality
        self._keep(cell, x)
        metrics = {} if quality is None else quality.measure(x)
        if self.reference is not None and cell.deterministic:
            metrics["paired_rmse"] = paired_rmse(x, self.reference)
        return _result(
            cell,
            "done",
            nfe=out.nfe,
            n=len(x),
            features="" if quality is None else quality.features.label,
            x_init_sha256=self.digest,
            seconds=seconds,
            seconds_bare=self._bare * out.nfe,
            metrics=metrics,
        )

    def _timed(self, cell: Cell) -> tuple[Samples, float]:
        sweep = self.sweep
        _synchronize(sweep.device)
        began = time.perf_counter()
        with advise_on_memory(min(sweep.batch, sweep.n), sweep.spec.shape, "--batch"):
            out = sample(
                sweep.model,
                cell.sampler,
                cell.ts,
                sweep.shape,
                seed=sweep.seed,
                y=sweep.y,
                batch=sweep.batch,
                denoise=True,
                device=sweep.device,
            )
        _synchronize(sweep.device)
        return out, time.perf_counter() - began

    def _keep(self, cell: Cell, x: Tensor) -> None:
        """Write the first samples: as levels, which are small, where the data have them."""
        spec, x = self.sweep.spec, x[: self.sweep.kept]
        kept = x if spec.levels is None else spec.to_levels(x)
        save_arrays(self.folder / CELLS / f"{cell.key}.npz", x=kept.numpy())


def _result(cell: Cell, status: str, **measured: object) -> Result:
    return Result(
        key=cell.key,
        sampler=cell.label,
        grid=cell.grid,
        nfe_asked=cell.budget,
        tolerance=cell.tolerance,
        status=status,
        deterministic=cell.deterministic,
        steps=cell.steps,
        **measured,
    )


def _bare_seconds(sweep: Sweep) -> float:
    """Time of one pass of the network alone over all samples: the median of five.

    A first one warms up caches and thread pools, and is not counted.
    """
    x, y, times = sweep.start().to(sweep.device), sweep.y, []
    for _ in range(6):
        _synchronize(sweep.device)
        began = time.perf_counter()
        for begin in range(0, sweep.n, sweep.batch):
            rows = slice(begin, begin + sweep.batch)
            _bare_pass(sweep.model, x[rows], None if y is None else y[rows].to(sweep.device))
        _synchronize(sweep.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


@torch.no_grad()
def _bare_pass(model: ScoreModel, x: Tensor, y: Tensor | None) -> None:
    """The network without preconditioning, checks and sampler; of another model, its ε."""
    if isinstance(model, NetworkScore):
        model.net(x, torch.zeros(len(x), device=x.device), y)
    else:
        model.given(y).eps(x, 1.0)


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).hexdigest()


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
