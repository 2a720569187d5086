"""Measure whether samplers converge as claimed, for `scoresde verify`.

The folder of results, if there is one, gets

- results.csv and results.json: one row per claim and SDE, with all errors
- errors.png: error against evaluations
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._condition import map_condition
from .._identity import foreign_identity
from .._tensor import check_type
from ..grid import log_snr
from ..names.samplers import is_own, parse_sampler, sampler_label
from ..noise import SampleNoise, check_seed
from ..output.files import write_json
from ..output.manifest import Origin, Source
from ..output.progress import Tell
from ..output.result_folder import ResultFolder
from ..plain import ConfigError, check_unique, nearest
from ..samplers import ProbabilityFlowODE, Sampler
from ..samplers.steps import draws_noise
from ..score import ScoreModel
from ..score.sets import only_present
from ..score.units import in_model_scale
from ..tasks.given import GivenModel
from ..tasks.request import versions
from .claims import CHECKED_GRIDS, CHECKED_SDES, CLAIMS, Claim, claims_about_own
from .contract import invented
from .orders import OdeProblem
from .trials import Measurement, Trial, run_trials
from .verdicts import save_errors_figure, write_csv

__all__ = ["Verification", "prepare_verification", "trials_of"]

# Steps on a network. A smooth score shows the orders only at more steps than are usual in sampling.
NETWORK_STEPS = (10, 20, 40, 80, 160)
NETWORK_SAMPLES = 8
NETWORK_TOLERANCE = 1e-8
VERIFY_FILES = ("results.csv", "results.json", "errors.png")


@dataclass(frozen=True)
class Verification:
    """A checked verification, ready to run.

    Attributes:
        origin: Everything that determines the results.
        trials: The claims, each in one setting.
        results: Folder for the results; None = they are not written.
    """

    origin: Origin
    trials: list[Trial]
    results: ResultFolder | None = None

    def run(self, tell: Tell) -> list[Measurement]:
        """Measure, and write the results, unless the folder holds them already.

        Args:
            tell: Called with (stage, done, total, note) during the work.

        Raises:
            RuntimeError: If a reference solution fails.
        """
        if self.results is None:
            return run_trials(self.trials, tell)
        if self.results.finished:
            return [Measurement(**row) for row in self.results.read("results.json")["rows"]]
        with self.results.write(VERIFY_FILES) as output:
            rows = run_trials(self.trials, tell)
            write_json(output.work / "results.json", self.report(rows))
            write_csv(output.work / "results.csv", rows)
            save_errors_figure(output.work / "errors.png", rows)
            output.publish()
        return rows

    def report(self, rows: Sequence[Measurement]) -> dict[str, Any]:
        """Settings and rows as plain data."""
        missed = sum(row.missed for row in rows)
        return {"settings": self.origin.plain, "missed": missed, "rows": [asdict(r) for r in rows]}


def prepare_verification(
    samplers: Sequence[str | Sampler] | None = None,
    sdes: Sequence[str] | None = None,
    *,
    order: int | None = None,
    quick: bool = False,
    given: GivenModel | None = None,
    seed: int = 0,
    folder: Path | None = None,
    overwrite: bool = False,
) -> Verification:
    """Check everything and choose what to measure; nothing is written.

    Args:
        samplers: Sampler objects, names of samplers (all claims about them), or texts of single
            claims; None = all claims.
        sdes: Names in `CHECKED_SDES`; None = all, or VP if `quick`, or VP and VE for objects.
        order: The order claimed for samplers that are not in the table of claims.
        quick: The short form.
        given: Measure on this model instead of exact ones. Without `samplers`, all samplers that
            are named without parameters.
        seed: Seed of x_T for a network.
        folder: Folder for the results; None = they are not written.
        overwrite: Replace results of other settings in the folder.

    Raises:
        ConfigError: If a sampler is unknown.
        ValueError: If an SDE is unknown, nothing is claimed, `sdes` or `quick` are given with a
            model, the model's labels are rounded, or the folder holds results of other settings.
    """
    check_seed(seed)
    if samplers is not None:
        samplers = [parse_sampler(s) if isinstance(s, str) and is_own(s) else s for s in samplers]
    own = _own(samplers)
    texts = None if samplers is None else [s for s in samplers if isinstance(s, str)]
    known = _claims_about(texts)
    if order is not None and not own:
        raise ValueError(f"--order: {order}, but the orders of samplers in the table are known")
    names = None if texts is None else [*texts, *own]
    settings = {"samplers": names, "versions": versions()} | ({"order": order} if own else {})
    source, shown = _sources(own), ["versions"]
    if given is not None:
        given.check_score("verify")
    if given is None:
        sdes = [sdes] if isinstance(sdes, str) else sdes
        sdes = list(sdes or (("vp",) if quick else CHECKED_SDES if known else ("vp", "ve")))
        _check_sdes(sdes)
        trials = trials_of(known, sdes, quick) + _own_trials(own, order, sdes)
        if not trials:
            raise ValueError(f"--samplers: no claim of {', '.join(names or ())} in this form")
        settings |= {"sdes": sdes, "quick": quick}
    else:
        if sdes is not None or quick:
            raise ValueError("--checkpoint: sets SDE and steps itself; leave out --sdes, --quick")
        if samplers is None:
            known = [claim for claim in known if ":" not in claim.sampler]
        trials = _network_trials(known, given, seed, _own_trials(own, order, ["vp"]))
        settings |= {"checkpoint": given.name, "sha256": given.source.sha256, "seed": seed}
        source[given.kind] = given.source
        shown += ["checkpoint", "sha256"]
    origin = Origin("verify", settings, source, shown=tuple(shown))
    results = None if folder is None else ResultFolder.open(folder, origin, overwrite)
    return Verification(origin, trials, results)


def _own(samplers: Sequence[str | Sampler] | None) -> dict[str, Sampler]:
    """Sampler objects by their label."""
    objects = [s for s in samplers or () if not isinstance(s, str)]
    for sampler in objects:
        check_type("sampler", sampler, Sampler)
    labels = [sampler_label(sampler) for sampler in objects]
    check_unique("--samplers:", labels)
    return dict(zip(labels, objects, strict=True))


def _sources(own: Mapping[str, Sampler]) -> dict[str, Source]:
    """The code of the user's own samplers."""
    codes = {label: foreign_identity(sampler) for label, sampler in own.items()}
    return {f"sampler {label}": Source(label, c) for label, c in codes.items() if c is not None}


def _own_trials(own: Mapping[str, Sampler], order: int | None, sdes: Sequence[str]) -> list[Trial]:
    """The trials of sampler objects on exact models."""
    trials = []
    for label, sampler in own.items():
        noisy = not sampler.adaptive and draws_noise(CHECKED_SDES[sdes[0]], sampler, 1e-3)
        kind = "tolerance" if sampler.adaptive else "weak" if noisy else "ode"
        claims = claims_about_own(label, kind, order, tuple(sdes))
        trials += [Trial(claim, sampler, sde, claim.steps) for claim in claims for sde in sdes]
    return trials


def trials_of(claims: Iterable[Claim], sdes: Sequence[str], quick: bool = False) -> list[Trial]:
    """The settings in which to measure some claims on exact models.

    Args:
        claims: The claims.
        sdes: Names in `CHECKED_SDES`; a claim is measured under those of them that it names.
        quick: Measure only claims marked `quick`, without the steps that only the figure shows.
    """
    return [
        Trial(
            claim,
            parse_sampler(claim.sampler),
            sde,
            claim.steps if quick or claim.kind != "ode" else _from_ten(claim.steps),
        )
        for claim in claims
        if claim.quick or not quick
        for sde in sdes
        if sde in claim.sdes
    ]


def _from_ten(steps: tuple[float, ...]) -> tuple[float, ...]:
    """The steps, preceded by halves of the first one down to about ten, for the figure."""
    before = []
    n = steps[0] // 2
    while n >= 10:
        before.append(n)
        n //= 2
    return (*reversed(before), *steps)


def _network_trials(
    claims: Sequence[Claim], given: GivenModel, seed: int, own: Sequence[Trial]
) -> list[Trial]:
    """One trial of each deterministic sampler, on equal steps in λ from one x_T, in float64.

    Errors are distances to the solution of dop853 at tolerance 1e-8 per sample. A network is only
    as smooth as its activations and attention, so that there is no verdict.
    """
    if given.snapped:
        raise ValueError(
            "--checkpoint: its labels are rounded, so that there is no ODE between its times; take "
            "one with continuous labels"
        )
    # the first claim about a sampler gives the expected order
    chosen: dict[str, tuple[Claim, Sampler]] = {}
    for claim in claims:
        if claim.kind == "ode":
            chosen.setdefault(claim.sampler, (claim, parse_sampler(claim.sampler)))
    for trial in own:
        if trial.claim.kind == "ode":
            chosen.setdefault(trial.claim.sampler, (trial.claim, trial.sampler))
    if not chosen:
        raise ValueError("--samplers: must name a deterministic one that takes the grid's steps")
    rows = range(NETWORK_SAMPLES)
    y = None
    if given.condition:
        drawn = invented(given.condition, seed)
        y = map_condition(lambda leaf: leaf[torch.arange(NETWORK_SAMPLES) % len(leaf)], drawn)
    model = in_model_scale(given.build(dtype="float64")).given(y)
    start = SampleNoise(seed, rows).prior((len(rows), *given.spec.shape)).double()
    start = only_present(model, start)
    problem = OdeProblem(
        model,
        start * model.sde.start_std(model.sde.t_regular),
        CHECKED_GRIDS["log_snr"].t_min,
        _network_flow,
    )
    note = "on a network of latents" if given.of_latents else "on a network"
    on_network = {"grid": "log_snr", "steps": NETWORK_STEPS[-3:], "note": note}
    sde = type(model.sde).__name__
    return [
        Trial(replace(claim, **on_network), sampler, sde, NETWORK_STEPS, problem)
        for claim, sampler in chosen.values()
    ]


@torch.no_grad()
def _network_flow(model: ScoreModel, start: Tensor, t_min: float) -> Tensor:
    """The probability-flow ODE's solution at t_min, by dop853 for each sample."""
    solver = ProbabilityFlowODE("dop853", NETWORK_TOLERANCE, NETWORK_TOLERANCE, per_sample=True)
    return solver.run(model, start, log_snr(model.sde, 1, t_min), None).state


def _claims_about(samplers: Sequence[str] | None) -> list[Claim]:
    """The claims about some samplers, or all."""
    if samplers is None:
        return list(CLAIMS)
    check_unique("--samplers:", samplers)
    out: list[Claim] = []
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


def _check_sdes(names: Sequence[str]) -> None:
    for name in names:
        check_type("sdes", name, str)
    check_unique("--sdes:", names)
    for name in names:
        if name not in CHECKED_SDES:
            raise ValueError(f"--sdes: {name!r} is unknown; {nearest(name, CHECKED_SDES)}")
