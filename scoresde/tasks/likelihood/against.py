"""`scoresde likelihood --against`: two models on the same data with the same random numbers.

- per_image.csv and per_image.npz: one row per datum, with the values of both models
- difference.txt and difference.png: the mean difference with all known errors
- summary.json: request, difference and errors as plain data
- parts/: the finished batches, from which the same command continues
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...data import Dataset
from ...output.progress import OnProgress, silent
from ...output.shared_work import ALONE, Share, SharedWork
from ..given import GivenModel
from ..held_out import check_held_out, load_held_out
from ..request import StoredModel, versions
from .against_files import FILES, PairedScores
from .files import Budgets
from .request import ScoreRequest, check_request, resolved
from .scoring import Run
from .task import Scoring

__all__ = ["compare_models"]

PREFIXES = ("a-", "b-")  # of the files of finished batches


def compare_models(
    request: ScoreRequest,
    against: str | GivenModel,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    given: GivenModel | None = None,
    in_memory: tuple[Dataset, Dataset] | None = None,
    share: Share = ALONE,
) -> dict[str, Any]:
    """Score the same data under two models, and write their difference to a folder.

    Both models get the same data, dequantization noise and probes, and the trace rule and nodes
    that are chosen for the first one. A stopped request continues where it was.

    Args:
        request: The request for the first model, A.
        against: The second model, B; a text is a checkpoint file or a shipped name.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after every batch.
        given: Model A; None for the checkpoint that the request names.
        in_memory: As for `score_data`.
        share: The batches that this process computes.

    Returns:
        The summary: the difference A − B of the mean negative log-likelihoods with its 95 %
        interval, a verdict in words, and the budgets of both models.

    Raises:
        ValueError: If the request is refused, or the two models cannot be compared; before a
            network is built.
        RuntimeError: If a solve fails or memory runs out.
        PeerError: If another process fails.
    """
    if request.plot:
        raise ValueError("--plot: draws the terms of one model; leave it out with --against")
    a = Scoring.of(request, out, given, in_memory)
    b = _for_other(a, request, against, in_memory is not None)
    sources = {f"{a.given.kind} A": a.given.source, f"{b.given.kind} B": b.given.source}
    origin = a.origin(sources, against=b.given.name, plot=None)
    origin = replace(origin, shown=(*origin.shown, "against"))
    names = [
        prefix + name for prefix, t in zip(PREFIXES, (a, b), strict=True) for name in t.batches
    ]
    about = {"request": asdict(request), "against": b.given.name}
    work = SharedWork.open(out, origin, names, share, overwrite, about)
    if work.finished:
        return work.read()
    first = Run(a, work, PREFIXES[0])
    runs = first, Run(b, work, PREFIXES[1], first)
    with work.write(FILES) as output:
        for i, run in enumerate(runs):
            run.make(_half(on_progress, i))
        parts = work.collect()
        if parts is not None:
            found = [run.found(parts) for run in runs]
            both = _same_measured(*(each.budgets for each in found))
            scores = PairedScores((a, b), found[0].method, both)
            seconds = round(sum(each.seconds for each in found), 3)
            summary = scores.summary() | {"seconds": seconds, "versions": versions()}
            scores.write(output.work, summary)
            output.finish(summary)
    return work.read()


def _for_other(
    a: Scoring, request: ScoreRequest, against: str | GivenModel, in_memory: bool
) -> Scoring:
    """The same request for model B, after a check that both models can be compared."""
    if not isinstance(against, GivenModel):
        against = StoredModel.read(against, request.net, request.sde)
    _check_same_data(a.given, against)
    asked = replace(request, checkpoint=against.name)
    found = resolved(asked, against)
    _check_same_definition(a, against, found)
    check_request(found, against)
    data = check_held_out(against, a.data.in_units_of(against.decoded_spec), found.n)
    training = None if a.training is None else a.training.in_units_of(against.decoded_spec)
    if request.split == "held-out" and not in_memory:
        own = load_held_out(against, replace(found, data=request.data))
        if own.in_units_of(a.given.decoded_spec).fingerprint != a.data.fingerprint:
            raise ValueError(
                f"--against: {against.name} was trained on data that {a.given.name} holds out; "
                "give held-out data of both with --data"
            )
    return Scoring(found, against, data, training)


def _check_same_data(a: GivenModel, b: GivenModel) -> None:
    """Refuse models of different data, whose log-likelihoods cannot be subtracted."""
    for what in ("shape", "low", "high", "levels"):
        one, other = (getattr(given.decoded_spec, what) for given in (a, b))
        if one != other:
            raise ValueError(
                f"--against: {b.name} is for data with {what} {other}, and {a.name} for data with "
                f"{what} {one}; only models of the same data can be compared"
            )
    if a.condition != b.condition:
        raise ValueError(
            f"--against: {b.name} takes {_conditions(b)}, and {a.name} takes {_conditions(a)}; "
            "log p(x | y) of different conditions y cannot be compared"
        )


def _check_same_definition(a: Scoring, b: GivenModel, found: ScoreRequest) -> None:
    """Refuse models for which the protocol defines different quantities."""
    if a.request.protocol == "vlb-ddpm" and a.given.sde.levels != b.sde.levels:
        raise ValueError(
            f"--protocol: vlb-ddpm takes each model's own chain, of {_steps(a.given)} for "
            f"{a.given.name} and of {_steps(b)} for {b.name}; give vlb-continuous"
        )
    if a.request.t_min != found.t_min:
        least = max(a.request.t_min, found.t_min)
        raise ValueError(
            f"--t-min: must be given, since {a.given.name} begins at {a.request.t_min:g} and "
            f"{b.name} at {found.t_min:g}; {least:g} is possible for both"
        )


def _conditions(given: GivenModel) -> str:
    return "a condition" if given.condition else "no condition"


def _steps(given: GivenModel) -> str:
    levels = given.sde.levels
    return "freely chosen steps" if levels is None else f"{levels} steps"


def _same_measured(a: Budgets, b: Budgets) -> tuple[Budgets, Budgets]:
    """The budgets without an error that could be measured for one model only."""
    kept = [
        None if one is None or other is None else (one, other)
        for one, other in zip(a, b, strict=True)
    ]
    one, other = ([None if pair is None else pair[i] for pair in kept] for i in (0, 1))
    return Budgets(*one), Budgets(*other)


def _half(on_progress: OnProgress, i: int) -> Callable[[int, int | None, str], None]:
    """The progress of the i-th model as that of one half of the work."""
    return lambda done, total, note: on_progress(i * total + done, 2 * total, f"{'AB'[i]} {note}")
