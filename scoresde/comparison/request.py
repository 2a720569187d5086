"""The options of `scoresde bench`, and the checks that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._tensor import check_number
from ..grid import snapped, uniform
from ..names.grids import parse_grid
from ..names.samplers import parse_sampler
from ..noise import check_seed
from ..plain import ConfigError, check_unique
from ..samplers import AdaptiveSDE, Sampler
from ..tasks.given import GivenModel
from ..tasks.likelihood.request import ScoreRequest, check_request, resolved
from ..tasks.sampling import DEFAULT_T_MIN
from .checked import LABELS
from .plan import Cell, plan_cells

__all__ = ["ODE_TOLERANCES", "SDE_TOLERANCES", "BenchRequest"]

# Cells of an adaptive ODE method.
ODE_TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
# Cells of the adaptive SDE, whose evaluations grow as tolerance^(−2/3): 1e-5 would take 50,000.
SDE_TOLERANCES = (0.2, 0.1, 0.05, 0.02)
LIKELIHOOD_BATCH = 64  # data at a time


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The samplers, grids and budgets to compare, and the settings of all cells.

    Args:
        checkpoint: A shipped checkpoint's name, or a file.
        samplers: Samplers as `parse_sampler` reads them. An adaptive ODE method runs at each of
            `ODE_TOLERANCES`, the adaptive SDE at each of `SDE_TOLERANCES`, and every other sampler
            on each grid within each budget.
        grids: Grids as `parse_grid` reads them. For a checkpoint with rounded labels they are
            moved to its discrete times, and there is no reference solution.
        nfe: The budgets, in evaluations per sample, the final denoising included.
        n: Samples per cell, at least 4.
        seed: Seed for all noise.
        t_min: Last time of the grids; None for 1e-3, or the time of the network's first discrete
            label if that is later.
        batch: Samples at a time.
        device: Device of the network.
        data_root: Folder of the data set; None for the folder named in the checkpoint.
        reference_tolerance: rtol = atol of the reference solution; None = no paired error.
        quality: Measure the distance of the samples to real data.
        likelihood: Number of test data whose likelihood to measure: 0, or at least 2.
        labels: Labels of the samples of a conditional model: "shares" gives each class its share
            of the training data, "uniform" gives the same share to every class that has training
            data. Without quality and likelihood no data are loaded, and every class has the same
            share.

    Raises:
        ValueError: On a number out of range, unknown labels, or a sampler, a grid or a budget that
            is given twice.
    """

    checkpoint: str | Path
    samplers: Sequence[str]
    grids: Sequence[str] = ("log_snr",)
    nfe: Sequence[int]
    n: int = 256
    seed: int = 0
    t_min: float | None = None
    batch: int = 256
    device: str = "cpu"
    data_root: str | Path | None = None
    reference_tolerance: float | None = 1e-6
    quality: bool = True
    likelihood: int = 0
    labels: str = "shares"

    def __post_init__(self) -> None:
        check_number("n", self.n, at_least=4)
        check_number("batch", self.batch, at_least=1)
        if self.likelihood:
            check_number("likelihood", self.likelihood, at_least=2)
        for budget in self.nfe:
            check_number("nfe", budget, at_least=1)
        if self.t_min is not None:
            check_number("t_min", self.t_min, above=0, below=1)
        check_seed(self.seed)
        check_unique("sampler", [text.strip() for text in self.samplers])
        check_unique("grid", self.grids)
        check_unique("nfe", self.nfe)
        if self.labels not in LABELS:
            raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {self.labels!r}")

    def resolved(self, given: GivenModel) -> BenchRequest:
        """The request with the last time and the reference solution that fit the checkpoint.

        Raises:
            ValueError: If the network was not trained at times as small as `t_min`.
        """
        t_min, sde = given.last_time(self.t_min, DEFAULT_T_MIN), given.sde
        if given.snapped:  # the model has no ODE, because it is wrong between its discrete times
            t_min = float(snapped(sde, uniform(sde, 1, t_min))[-1])
            return replace(self, t_min=t_min, reference_tolerance=None)
        given.check_first_time(t_min)
        return replace(self, t_min=t_min)

    def scoring(self, given: GivenModel) -> ScoreRequest | None:
        """The request for the likelihood of test data; None if it is not requested.

        Raises:
            ValueError: If the likelihood of this checkpoint cannot be computed.
        """
        if not self.likelihood:
            return None
        asked = ScoreRequest(
            given.name,
            data_root=None if self.data_root is None else str(self.data_root),
            n=self.likelihood,
            batch=min(self.batch, LIKELIHOOD_BATCH),
            seed=self.seed,
            device=self.device,
        )
        check_request(resolved(asked, given), given)
        return asked

    def plan(self, given: GivenModel) -> list[Cell]:
        """The cells of a resolved request.

        Raises:
            ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
            ValueError: If a grid from a file has other ends, or no cell can run.
        """
        samplers = [(text.strip(), one) for text in self.samplers for one in _at_tolerances(text)]
        grids = {name: parse_grid(name) for name in self.grids}
        sde, snap = given.sde, given.snapped
        cells = plan_cells(sde, samplers, grids, self.nfe, self.t_min, snap)
        if all(cell.ts is None for cell in cells):
            reasons = (f"{cell.label}: {cell.reason}" for cell in cells)
            raise ValueError(f"no cell can run: {next(reasons, 'no sampler, grid or budget')}")
        return cells


def _at_tolerances(text: str) -> list[Sampler]:
    """The sampler named by a text; an adaptive method once per tolerance."""
    sampler = parse_sampler(text)
    if not sampler.adaptive:
        return [sampler]
    tolerances = SDE_TOLERANCES if isinstance(sampler, AdaptiveSDE) else ODE_TOLERANCES
    if "tol=" in text:
        raise ConfigError(
            f"sampler {text.strip()!r}: the benchmark runs an adaptive method at rtol = atol = "
            f"{', '.join(f'{tol:g}' for tol in tolerances)}; leave rtol and atol out"
        )
    return [replace(sampler, rtol=tolerance, atol=tolerance) for tolerance in tolerances]
