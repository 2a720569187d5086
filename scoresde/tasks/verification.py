"""Do samplers converge as they promise? What `scoresde verify` calls.

In the folder, if one is given:

- results.csv and results.json: one row per claim, SDE and grid, with all errors
- errors.png: error against evaluations
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import DataSpec
from ..grid import log_snr
from ..noise import SampleNoise, check_seed
from ..plain import ConfigError, nearest
from ..registry import parse_sampler
from ..samplers import ProbabilityFlowODE, Sampler, sample
from ..score import NetworkScore
from ..study.claims import CLAIMS, SDES, Claim
from ..study.files import write_json
from ..study.manifest import Origin
from ..study.orders import ode_errors, slope
from ..study.plan import check_unique
from ..study.result_folder import ResultFolder
from ..study.verdicts import save_figure, write_csv
from ..study.verify import Row, Trial, finite_or_none, run_trials, trials_of
from .request import StoredModel, versions

__all__ = ["Ladder", "Verification", "prepare_verification"]

Tell = Callable[[str, int, int, str], None]

# On a network: the asymptotic range of smooth scores begins later than what anybody samples with.
LADDER = (10, 20, 40, 80, 160)
OBSERVED = 3  # of them, the last, give the slope
SAMPLES = 8
T_MIN = 1e-3
TOLERANCE = 1e-8
FILES = ("results.csv", "results.json", "errors.png")


@dataclass(frozen=True)
class Ladder:
    """Errors of deterministic samplers on a trained network, in float64, from the same x_T.

    They are distances to dop853's solution with an error control per sample at 1e-8. A network is
    only as smooth as its activations and attention let it be, so that no order is claimed.

    Attributes:
        model: The network, in float64.
        spec: What its data are.
        claims: One claim of kind "ode" for each sampler.
        samplers: Their samplers.
        seed: Seed of x_T.
        y: Class labels of the samples, or None.
    """

    model: NetworkScore
    spec: DataSpec
    claims: tuple[Claim, ...]
    samplers: tuple[Sampler, ...]
    seed: int = 0
    y: Tensor | None = None

    def run(self, tell: Tell) -> list[Row]:
        """One row per sampler, on equal steps in λ.

        Args:
            tell: Called with (stage, done, total, note) as the work goes on.

        Raises:
            RuntimeError: If the reference solver gives up.
        """
        model = self.model.given(self.y)
        shape = (SAMPLES, *self.spec.shape)
        start = SampleNoise(self.seed, range(SAMPLES)).prior(shape).double() * model.sde.prior_std
        tell("reference solution", 0, 1, "")
        exact = self._exact(start)
        tell("reference solution", 1, 1, "")
        grids = [log_snr(model.sde, n, T_MIN) for n in LADDER]
        rows = []
        for i, (claim, sampler) in enumerate(zip(self.claims, self.samplers, strict=True)):
            tell("ladder", i, len(self.claims), claim.sampler)
            errors, nfe = ode_errors(model, sampler, grids, start, exact)
            rows.append(_row(claim, type(model.sde).__name__, errors, nfe))
        tell("ladder", len(self.claims), len(self.claims), "")
        return rows

    def _exact(self, start: Tensor) -> Tensor:
        solver = ProbabilityFlowODE("dop853", TOLERANCE, TOLERANCE, per_sample=True)
        ends = log_snr(self.model.sde, 1, T_MIN)
        settings = {"seed": self.seed, "x_init": start, "y": self.y, "dtype": torch.float64}
        return sample(self.model, solver, ends, start.shape, **settings).x


@dataclass(frozen=True)
class Verification:
    """What to measure, checked and ready to run.

    Attributes:
        origin: What the results are made from.
        trials: Claims on exact models; empty if a network is asked for.
        ladder: The network; None if claims are measured.
        results: Where results go; None = nowhere.
    """

    origin: Origin
    trials: list[Trial] = field(default_factory=list)
    ladder: Ladder | None = None
    results: ResultFolder | None = None

    def run(self, tell: Tell) -> list[Row]:
        """Measure, and write the results, unless the folder holds them already.

        Args:
            tell: Called with (stage, done, total, note) as the work goes on.
        """
        if self.results is None:
            return self._measure(tell)
        if self.results.finished:
            return [Row(**row) for row in self.results.read("results.json")["rows"]]
        with self.results.write(FILES) as output:
            rows = self._measure(tell)
            write_json(output.work / "results.json", self.report(rows))
            write_csv(output.work / "results.csv", rows)
            save_figure(output.work / "errors.png", rows)
            output.publish()
        return rows

    def _measure(self, tell: Tell) -> list[Row]:
        return run_trials(self.trials, tell) if self.ladder is None else self.ladder.run(tell)

    def report(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Settings and rows as plain data."""
        missed = sum(row.missed for row in rows)
        return {"settings": self.origin.plain, "missed": missed, "rows": [asdict(r) for r in rows]}


def prepare_verification(
    samplers: Sequence[str] | None = None,
    sdes: Sequence[str] | None = None,
    *,
    quick: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    folder: Path | None = None,
    overwrite: bool = False,
) -> Verification:
    """Check everything and choose what to measure; nothing is written.

    Args:
        samplers: Names, for all claims about them, or texts of single claims; None = all.
        sdes: Names in `SDES`; None = all, or VP if `quick`.
        quick: The short form.
        checkpoint: Measure on this network instead of exact models: a shipped checkpoint's name,
            or a file. Without `samplers` all that are named without parameters.
        seed: Seed of x_T for a network.
        folder: Where results go; None = nowhere.
        overwrite: Replace results of other settings in the folder.

    Raises:
        ConfigError: If a sampler is unknown.
        CheckpointError: If the checkpoint cannot be read.
        ValueError: If an SDE is unknown, nothing is claimed, `sdes` or `quick` are given with a
            checkpoint, its labels are rounded, or the folder holds results of other settings.
    """
    check_seed(seed)
    claims = _chosen(samplers)
    settings: dict[str, Any] = {
        "samplers": None if samplers is None else list(samplers),
        "versions": versions(),
    }
    ladder, trials = None, []
    if checkpoint is not None:
        if sdes is not None or quick:
            raise ValueError("--checkpoint: it has an SDE and steps of its own; no --sdes, --quick")
        stored = StoredModel.read(checkpoint)
        ladder = _ladder(stored, claims, samplers is None, seed)
        settings |= {"checkpoint": stored.name, "sha256": stored.source.sha256, "seed": seed}
        source = {"checkpoint": stored.source}
        origin = Origin("verify", settings, source, shown=("checkpoint", "sha256", "versions"))
    else:
        names = _checked_sdes(sdes or (("vp",) if quick else tuple(SDES)))
        trials = trials_of(claims, names, lambda text: parse_sampler(text).sampler, quick)
        if not trials:
            raise ValueError(f"--samplers: no claim of {', '.join(samplers or ())} in this form")
        settings |= {"sdes": list(names), "quick": quick}
        origin = Origin("verify", settings, shown=("versions",))
    results = None if folder is None else ResultFolder.open(folder, origin, overwrite)
    return Verification(origin, trials, ladder, results)


def _chosen(samplers: Sequence[str] | None) -> list[Claim]:
    """The claims about some samplers."""
    if samplers is None:
        return list(CLAIMS)
    check_unique("--samplers:", samplers)
    out = []
    for text in samplers:
        try:
            parse_sampler(text)
        except ConfigError as error:
            raise ConfigError(f"--samplers: {error}") from error
        found = [c for c in CLAIMS if text in (c.sampler, c.sampler.partition(":")[0])]
        if not found:
            known = dict.fromkeys(claim.sampler for claim in CLAIMS)
            raise ValueError(f"--samplers: nothing is claimed of {text!r}; {nearest(text, known)}")
        out += [claim for claim in found if claim not in out]
    return out


def _checked_sdes(names: Sequence[str]) -> Sequence[str]:
    check_unique("--sdes:", names)
    for name in names:
        if name not in SDES:
            raise ValueError(f"--sdes: {name!r} is unknown; {nearest(name, SDES)}")
    return names


def _ladder(stored: StoredModel, claims: Sequence[Claim], only_names: bool, seed: int) -> Ladder:
    """The ladder on a checkpoint."""
    if stored.snapped:
        raise ValueError(
            "--checkpoint: its labels are rounded, so that there is no ODE between its times; take "
            "one with continuous labels"
        )
    chosen = {
        claim.sampler: claim
        for claim in reversed(claims)  # the first claim about a sampler wins
        if claim.kind == "ode" and not (only_names and ":" in claim.sampler)
    }
    if not chosen:
        raise ValueError("--samplers: must name a deterministic one that takes the grid's steps")
    some = tuple(reversed(chosen.values()))
    samplers = tuple(parse_sampler(claim.sampler).sampler for claim in some)
    y = None if stored.classes is None else torch.arange(SAMPLES) % stored.classes
    return Ladder(stored.build(dtype="float64"), stored.spec, some, samplers, seed, y)


def _row(claim: Claim, sde: str, errors: list[float], nfe: list[int]) -> Row:
    return Row(
        sampler=claim.sampler,
        kind=claim.kind,
        sde=sde,
        grid="log_snr",
        expected=claim.order,
        band=claim.band,
        observed=finite_or_none(slope(LADDER[-OBSERVED:], errors[-OBSERVED:])),
        last=finite_or_none(slope(LADDER[-2:], errors[-2:])),
        verdict="no claim",
        steps=list(LADDER),
        nfe=nfe,
        errors=[finite_or_none(error) for error in errors],
        paper=claim.paper,
        note="on a network",
    )
