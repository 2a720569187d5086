"""The options of `scoresde bench`, and the checks that need no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._tensor import check_integer, check_number, plain_numbers
from ..grid import snapped, uniform
from ..names.grids import parse_grid
from ..noise import check_seed
from ..plain import ConfigError, check_unique
from ..samplers import AdaptiveSDE, Sampler
from ..samplers.choice import DEFAULT_T_MIN
from ..score import ScoreModel
from ..tasks.given import GivenModel
from ..tasks.likelihood.request import ScoreRequest, check_request, resolved
from .checked import LABELS
from .feature_choice import AUTO
from .labels import RECOMMENDED, named_grids, named_samplers
from .plan import Cell, plan_cells, recommended_cells

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
        checkpoint: A shipped checkpoint's name, or a file; for a model in memory its name.
        samplers: Samplers as `named_samplers` reads them. An adaptive ODE method runs at each of
            `ODE_TOLERANCES`, the adaptive SDE at each of `SDE_TOLERANCES`, and every other sampler
            on each grid within each budget. "recommended" is added if it is not among them.
        grids: Grids as `named_grids` reads them. For a checkpoint with rounded labels they are
            moved to its discrete times, and there is no reference solution.
        nfe: The budgets, in evaluations per sample, the final denoising included.
        n: Samples per cell, at least 4.
        seed: Seed for all noise.
        t_min: Last time of the grids that have none of their own; None for 1e-3, or the time of
            the network's first discrete label if that is later.
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
        features: The feature space of the quality metrics, as `choose_features` reads it.

    Raises:
        ConfigError: If a sampler is unknown, or its parameters are wrong.
        TypeError: If a sampler or grid is of another kind.
        ValueError: On a number out of range, unknown labels, or a sampler, a grid or a budget that
            is given twice.
    """

    checkpoint: str | Path
    samplers: Sequence[Any] | Mapping[str, Any]
    grids: Sequence[Any] | Mapping[str, Any] = ("log_snr",)
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
    features: str = AUTO

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_integer("n", self.n, minimum=4)
        check_integer("batch", self.batch, minimum=1)
        if self.likelihood:
            check_integer("likelihood", self.likelihood, minimum=2)
        for budget in self.nfe:
            check_integer("nfe", budget, minimum=1)
        if self.t_min is not None:
            check_number("t_min", self.t_min, above=0, below=1)
        check_seed(self.seed)
        samplers = named_samplers(self.samplers)
        if samplers and self.nfe:
            samplers |= {RECOMMENDED: None} if RECOMMENDED not in samplers else {}
        object.__setattr__(self, "samplers", samplers)
        object.__setattr__(self, "grids", named_grids(self.grids))
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

    def plan(self, given: GivenModel, model: ScoreModel) -> list[Cell]:
        """The cells of a resolved request.

        Args:
            given: The model as it was given.
            model: The same model, ready to evaluate.

        Raises:
            ConfigError: If a grid is unknown, or its parameters are wrong.
            ValueError: If a grid from a file does not begin at t = 1, a grid ends below the least
                time of the network, or no cell can run.
        """
        grids = {n: parse_grid(g) if isinstance(g, str) else g for n, g in self.grids.items()}
        cells: list[Cell] = []
        for name, sampler in self.samplers.items():
            if sampler is None:
                cells += recommended_cells(model, self.nfe, given.spec.shape)
                continue
            some = [(name, one) for one in _at_tolerances(name, sampler)]
            known = given.snapped, given.learned_variance
            cells += plan_cells(given.sde, some, grids, self.nfe, self.t_min, *known)
        named = [cell for cell in cells if cell.label != RECOMMENDED]
        asked = named if any(self.samplers.values()) else cells
        if all(cell.ts is None for cell in asked):
            reasons = (f"{cell.label}: {cell.reason}" for cell in asked)
            raise ValueError(f"no cell can run: {next(reasons, 'no sampler, grid or budget')}")
        for cell in cells:
            if cell.ts is not None:
                model.check_last(float(cell.ts[-1]))
        return cells


def _at_tolerances(name: str, sampler: Sampler) -> list[Sampler]:
    """The sampler; an adaptive method once per tolerance."""
    if not sampler.adaptive:
        return [sampler]
    tolerances = SDE_TOLERANCES if isinstance(sampler, AdaptiveSDE) else ODE_TOLERANCES
    if "tol=" in name:
        raise ConfigError(
            f"sampler {name!r}: the benchmark runs an adaptive method at rtol = atol = "
            f"{', '.join(f'{tol:g}' for tol in tolerances)}; leave rtol and atol out"
        )
    return [replace(sampler, rtol=tolerance, atol=tolerance) for tolerance in tolerances]
