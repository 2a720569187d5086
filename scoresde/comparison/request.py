"""The options of `scoresde bench`, and the checks that need no data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from .._tensor import check_integer, check_number, plain_number, plain_numbers
from ..grid import snapped, uniform
from ..names.grids import parse_grid
from ..names.guidance import parse_guidance
from ..noise import check_seed
from ..plain import ConfigError, check_unique
from ..samplers import AdaptiveSDE, Sampler
from ..samplers.choice import DEFAULT_T_MIN
from ..score import ScoreModel
from ..tasks.given import GivenModel
from ..tasks.likelihood.request import ScoreRequest, check_request, resolved
from .checked import LABELS
from .feature_choice import AUTO, check_features
from .labels import RECOMMENDED, named_grids, named_models, named_samplers
from .measures import DEFAULT_METRICS, check_metrics
from .plan import Cell, plan_cells, recommended_cells

__all__ = ["ODE_TOLERANCES", "SDE_TOLERANCES", "BenchRequest"]

# Cells of an adaptive ODE method.
ODE_TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
# Cells of the adaptive SDE, whose evaluations grow as tolerance^(−2/3): 1e-5 would take 50,000.
SDE_TOLERANCES = (0.2, 0.1, 0.05, 0.02)
LIKELIHOOD_BATCH = 64  # data at a time
SHOWN_WITH_GUIDANCE = ("precision", "recall")  # guidance makes samples better and less diverse


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The models, samplers, grids and budgets to compare, and the settings of all cells.

    Models, seeds, shares of the labels and guidance make the *cases* of a comparison. The cells of
    one case start from the same noise under the same conditions; samplers, grids, last times and
    budgets make its cells.

    Args:
        checkpoint: Models as `named_models` reads them: names or paths of checkpoints, or objects.
        samplers: Samplers as `named_samplers` reads them. An adaptive ODE method runs at each of
            `ODE_TOLERANCES`, the adaptive SDE at each of `SDE_TOLERANCES`, and every other sampler
            on each grid within each budget. "recommended" is added if it is not among them.
        grids: Grids as `named_grids` reads them. For a checkpoint with rounded labels they are
            moved to its discrete times, and there is no reference solution.
        nfe: The budgets, in evaluations per sample, the final denoising included.
        n: Samples per cell, at least 4.
        seeds: Seeds for all noise, a number or several; each gives cases of its own.
        t_min: Last time of the grids that have none of their own, or several; None for 1e-3, or
            the time of the network's first discrete label if that is later.
        batch: Samples at a time.
        device: Device of the network.
        data_root: Folder of the data set; None for the folder named in the checkpoint.
        reference_tolerance: rtol = atol of the reference solution, below 0.1; None = no paired
            error.
        quality: Measure the distance of the samples to real data.
        likelihood: Number of test data whose likelihood to measure: 0, or at least 2.
        labels: Labels of the samples of a conditional model, a text or several; each gives cases
            of its own. "shares" gives each class its share of the training data, "uniform" gives
            the same share to every class that has training data. Without quality and likelihood
            no data are loaded, and every class has the same share.
        features: The feature space of the quality metrics, as `choose_features` reads it.
        metrics: Names of quality metrics, some of `QUALITY_METRICS`.
        compiled: Compile the networks, for samples and likelihood.
        guidance: Guidance as `parse_guidance` reads it, or several, such as the scales 1, 2 and 4;
            each gives cases of its own. None for no guidance. With guidance, the metrics are those
            of `SHOWN_WITH_GUIDANCE` too, unless others than the default are asked for.

    Raises:
        ConfigError: If a sampler is unknown, or its parameters are wrong.
        FileNotFoundError: If there is no such file of weights.
        TypeError: If a sampler or grid is of another kind.
        ValueError: On a number out of range, unknown labels, features or metrics, features that
            are not installed, or a model, a sampler, a grid, a budget, a seed or a last time that
            is given twice.
    """

    checkpoint: Any
    samplers: Sequence[Any] | Mapping[str, Any]
    grids: Sequence[Any] | Mapping[str, Any] = ("log_snr",)
    nfe: Sequence[int]
    n: int = 256
    seeds: int | Sequence[int] = 0
    t_min: float | Sequence[float] | None = None
    batch: int = 256
    device: str = "cpu"
    data_root: str | Path | None = None
    reference_tolerance: float | None = 1e-6
    quality: bool = True
    likelihood: int = 0
    labels: str | Sequence[str] = "shares"
    features: str = AUTO
    metrics: str | Sequence[str] = DEFAULT_METRICS
    compiled: bool = False
    guidance: str | float | Sequence[str | float] | None = None

    def __post_init__(self) -> None:
        plain_numbers(self)
        for name in ("nfe", "seeds", "t_min", "labels"):
            self._set(name, _several(getattr(self, name)))
            if name in ("seeds", "labels") and not getattr(self, name):
                raise ValueError(f"{name} must have at least one value, got none")
            check_unique(name, getattr(self, name))
        check_integer("n", self.n, minimum=4)
        check_integer("batch", self.batch, minimum=1)
        if self.likelihood:
            check_integer("likelihood", self.likelihood, minimum=2)
        if self.reference_tolerance is not None:
            # The check of the solution solves again at ten times the tolerance.
            check_number("reference_tolerance", self.reference_tolerance, above=0, below=0.1)
        self._set("guidance", tuple(str(parse_guidance(g)) for g in _several(self.guidance)))
        check_unique("guidance", self.guidance)
        if self.guidance and self.likelihood:
            raise ValueError(
                f"likelihood must be 0 with guidance, got {self.likelihood}: the density of guided "
                "samples is not that of the data"
            )
        for budget in self.nfe:
            check_integer("nfe", budget, minimum=1)
        for t in self.t_min:
            check_number("t_min", t, above=0, below=1)
        for seed in self.seeds:
            check_seed(seed)
        for labels in self.labels:
            if labels not in LABELS:
                raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
        if self.quality:
            check_features(self.features)
        metrics = check_metrics(_several(self.metrics))
        if self.guidance and metrics == DEFAULT_METRICS:
            metrics = check_metrics((*metrics, *SHOWN_WITH_GUIDANCE))
        self._set("metrics", metrics)
        self._set("checkpoint", named_models(self.checkpoint))
        samplers = named_samplers(self.samplers)
        if samplers and self.nfe:
            samplers |= {RECOMMENDED: None} if RECOMMENDED not in samplers else {}
        self._set("samplers", samplers)
        self._set("grids", named_grids(self.grids))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def cases(self) -> dict[str, BenchRequest]:
        """The request of each case by its name, which is made of what there are several of.

        The only case of a comparison has the name "".
        """
        found = {}
        every = product(self.checkpoint, self.seeds, self.labels, self.guidance or (None,))
        for model, seed, labels, guidance in every:
            parts = [
                *([model] if len(self.checkpoint) > 1 else []),
                *([f"seed{seed}"] if len(self.seeds) > 1 else []),
                *([labels] if len(self.labels) > 1 else []),
                *([f"guidance{_as_folder(guidance)}"] if len(self.guidance) > 1 else []),
            ]
            only = {"checkpoint": {model: self.checkpoint[model]}, "seeds": seed, "labels": labels}
            only["guidance"] = guidance
            found["--".join(parts)] = replace(self, **only)
        return found

    @property
    def model(self) -> tuple[str, Any]:
        """Name and model of a request of one case."""
        (one,) = self.checkpoint.items()
        return one

    @property
    def seed(self) -> int:
        """The seed of a request of one case."""
        (seed,) = self.seeds
        return seed

    @property
    def shares(self) -> str:
        """The shares of the classes in a request of one case."""
        (labels,) = self.labels
        return labels

    @property
    def guide(self) -> str | None:
        """The guidance of a request of one case."""
        return self.guidance[0] if self.guidance else None

    def resolved(self, given: GivenModel) -> BenchRequest:
        """The request of one case with the last times and the reference that fit the checkpoint.

        Raises:
            ValueError: If the network was not trained at times as small as `t_min`.
        """
        if given.distilled is not None:
            if self.likelihood:
                given.check_score("a likelihood")
            t_min = given.distilled.t_min
            return replace(self, t_min=[t_min], reference_tolerance=None)
        times = [given.last_time(t, DEFAULT_T_MIN) for t in self.t_min or (None,)]
        if given.snapped:  # the model has no ODE, because it is wrong between its discrete times
            times = [float(snapped(given.sde, uniform(given.sde, 1, t))[-1]) for t in times]
            times = list(dict.fromkeys(times))
            return replace(self, t_min=times, reference_tolerance=None)
        for t in times:
            given.check_first_time(t)
        return replace(self, t_min=times)

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
            compiled=self.compiled,
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
        if given.distilled is not None:
            return self._plan_of_student(given, model)
        known = {
            "snap": given.snapped,
            "learned_variance": given.learned_variance,
            "evaluations": given.evaluations,
        }
        cells: list[Cell] = []
        for name, sampler in self.samplers.items():
            if sampler is None:
                cells += recommended_cells(model, self.nfe, given.spec.shape)
                continue
            some = [(name, one) for one in _at_tolerances(name, sampler)]
            planned = partial(plan_cells, given.sde, some, grids, self.nfe, **known)
            cells += _at_last_times(planned, self.t_min)
        named = [cell for cell in cells if cell.label != RECOMMENDED]
        asked = named if any(self.samplers.values()) else cells
        if all(cell.ts is None for cell in asked):
            reasons = (f"{cell.label}: {cell.reason}" for cell in asked)
            raise ValueError(f"no cell can run: {next(reasons, 'no sampler, grid or budget')}")
        for cell in cells:
            if cell.ts is not None:
                model.check_last(float(cell.ts[-1]))
        return cells

    def _plan_of_student(self, given: GivenModel, model: ScoreModel) -> list[Cell]:
        """The cells of a student: its own settings, and the reasons why others cannot run."""
        cells = []
        for name, sampler in self.samplers.items():
            if sampler is None:
                cells += recommended_cells(model, self.nfe, given.spec.shape)
            else:
                reason = f"{given.distilled.in_words} has its own sampler and times: recommended"
                cells += [Cell(name, sampler, budget=n, reason=reason) for n in self.nfe]
        return cells


def _several(value: Any) -> tuple[Any, ...]:
    """A value that may be None, one, or several, as a tuple of plain numbers."""
    if value is None:
        return ()
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return tuple(map(plain_number, value if several else [value]))


def _as_folder(guidance: str) -> str:
    """A text of guidance as a part of the name of a folder."""
    return re.sub(r"[^\w.=+-]+", "-", guidance)


def _at_last_times(planned: Callable[[float], list[Cell]], times: Sequence[float]) -> list[Cell]:
    """The cells planned for each last time, in turn; the grid of a cell says which time it has.

    A cell whose grid has a last time of its own is planned once.
    """
    if len(times) == 1:
        return planned(times[0])
    found = []
    for same in zip(*map(planned, times), strict=True):
        if len({cell.fingerprint for cell in same}) == 1:
            found.append(same[0])
            continue
        for cell, t in zip(same, times, strict=True):
            found.append(replace(cell, grid=f"{cell.grid}:t_min={t:g}".lstrip(":")))
    return found


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
