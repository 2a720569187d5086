"""`scoresde likelihood`: likelihoods of data under a checkpoint, in a folder.

- per_image.csv and per_image.npz: one row per datum
- budget.txt and budget.png: the mean with all known errors
- terms.csv and terms.png: the terms of the bound vlb-ddpm, if they are asked for
- extremes.png: the most and the least likely data, for images and points in the plane
- summary.json: request, mean and errors as plain data
- parts/: the finished batches, from which the same command continues
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

import torch
from torch import Tensor

from ..._condition import map_condition
from ...data import Dataset
from ...exact import GaussianMixture
from ...likelihood import Budget, LikelihoodMethod, likelihood_budget
from ...likelihood.method import GUIDED, joined
from ...noise import SampleNoise
from ...output.parts import Part
from ...output.progress import OnProgress, advise_on_memory, silent
from ...output.shared_work import ALONE, Share, SharedWork
from ...score import ScoreModel
from ..given import GivenModel
from ..request import versions
from .files import FILES, Budgets, Scores
from .method import described, make_method, method_for
from .request import ScoreRequest
from .task import FLOAT64, NOTES, REFINED, Scoring

__all__ = ["Run", "ScoreRequest", "score_data"]


def score_data(
    request: ScoreRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    given: GivenModel | None = None,
    in_memory: tuple[Dataset, Dataset] | None = None,
    share: Share = ALONE,
) -> dict[str, Any]:
    """Score data and write the results to a folder.

    A stopped request continues where it was if it is given again.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after every batch.
        given: The model; None for the checkpoint that the request names.
        in_memory: The data, and data like them to which a Gaussian is fitted; None for the data
            that the request names.
        share: The batches that this process computes.

    Returns:
        The summary: mean, budget, protocol, counted evaluations, computing time of all batches.

    Raises:
        ValueError: If the request is refused (`check_request`), before a network is built.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
        RuntimeError: If a solve fails or memory runs out.
        PeerError: If another process fails.
    """
    task = Scoring.of(request, out, given, in_memory)
    given = task.given
    # Results without a plot were made before there was this option, too.
    origin = task.origin({given.kind: given.source}, plot=task.request.plot or None)
    about = {"request": asdict(request)}
    work = SharedWork.open(out, origin, list(task.batches), share, overwrite, about)
    if work.finished:
        return work.read()
    run = Run(task, work)
    with work.write(FILES) as output:
        run.make(on_progress)
        parts = work.collect()
        if parts is not None:
            found = run.found(parts)
            scores = Scores(task.request, given.decoded_spec, task.data, task.rows, *found[:2])
            summary = scores.summary() | {
                "label": GUIDED if given.guided else None,
                "seconds": found.seconds,
                "versions": versions(),
            }
            scores.write(output.work, summary)
            if task.request.plot:
                scores.write_terms(output.work, task.chain())
            output.finish(summary)
    return work.read()


class Found(NamedTuple):
    """The batches of one model as one.

    Attributes:
        method: The method in words, its trace rule and number of draws.
        budgets: The likelihoods with their errors.
        seconds: Computing time of all batches.
    """

    method: dict[str, Any]
    budgets: Budgets
    seconds: float


@dataclass(frozen=True)
class Run:
    """The batches of one model.

    Attributes:
        task: The request with its model and data.
        work: Where the batches are written.
        prefix: First letters of the names of their files, if several models are scored.
        first: The run of the model whose trace rule and nodes this one takes, too.
    """

    task: Scoring
    work: SharedWork
    prefix: str = ""
    first: Run | None = None

    @cached_property
    def model(self) -> ScoreModel:
        """The model, built when the first batch needs it."""
        return self.task.built()

    @cached_property
    def method(self) -> tuple[LikelihoodMethod, GaussianMixture | None]:
        """The method, and a Gaussian near the data; None for a variational bound."""
        request, training = self.task.request, self.task.training
        spec = self.task.given.decoded_spec
        if self.first is None:
            return make_method(request, spec, self.model, training)
        return method_for(self.first.method[0], request, spec, self.model, training)

    @property
    def words(self) -> dict[str, Any]:
        """The method in words, its trace rule and number of draws."""
        return {**described(self.method[0]), "draws": self.method[0].draws}

    def make(self, on_progress: OnProgress) -> None:
        """Compute the batches of this process that are not there yet.

        The mean that `on_progress` is told is that of the batches of this process.

        Args:
            on_progress: Called after every batch with the number of data.
        """
        batches, spec = self.task.batches, self.task.given.decoded_spec
        mine = [name for name in map(self._own, self.work.mine) if name in batches]
        done, total = 0, sum(len(batches[name]) for name in mine)
        means: list[Tensor] = []
        on_progress(0, total, "")
        for name in mine:
            part = self.work.load(self.prefix + name) or self._compute(name)
            if name in NOTES:
                note = NOTES[name]
            else:
                means.append(torch.from_numpy(part.arrays["log_prob"]))
                mean = float(torch.cat(means).mean()) / spec.nats_per_unit
                note = f"{-mean:.3f} {spec.unit}"
                if spec.levels is None:
                    note = f"log p {mean:.3f} {spec.unit}"
            done += len(batches[name])
            on_progress(done, total, note)

    def found(self, parts: Mapping[str, Part]) -> Found:
        """The budgets of all batches, and of the first few data with a finer solver and in float64.

        Args:
            parts: The batches by the names of their files.

        Raises:
            RuntimeError: If batches were computed by different methods, because another machine
                chose another trace rule.
        """
        own = {name: parts[self.prefix + name] for name in self.task.batches}
        budgets = {name: _budget(part) for name, part in own.items()}
        # Batches of earlier versions do not hold their method.
        methods = [part.about["method"] for part in own.values() if part.about is not None]
        if not methods:
            methods = [self.words]
        if any(method != methods[0] for method in methods):
            different = next(method for method in methods if method != methods[0])
            raise RuntimeError(
                f"batches were computed by different methods, {methods[0]} and {different}; give "
                "--trace and --nodes, and --overwrite"
            )
        every = joined([budget for name, budget in budgets.items() if name not in NOTES])
        seconds = sum(part.about["seconds"] for part in own.values() if part.about is not None)
        few = budgets.get(REFINED), budgets.get(FLOAT64)
        return Found(methods[0], Budgets(every, *few), round(seconds, 3))

    def _own(self, name: str) -> str | None:
        """The name of a batch without the prefix; None if it belongs to another model."""
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) else None

    def _compute(self, name: str) -> Part:
        """Compute one batch and write it."""
        model, (method, control) = self.model, self.method
        began = time.monotonic()
        if name == REFINED:
            method = method.refined()
        if name == FLOAT64:
            model = self.task.given.build(self.task.request.device, "float64")
            method = replace(method, dtype=torch.float64)
        task, device, places = self.task, self.task.request.device, self.task.batches[name]
        rows = task.rows[places.start : places.stop]
        x, y = task.data.x[rows].to(device), task.data.labels
        if task.given.decoded_spec.levels is None:
            x = x.to(method.dtype)
        if y is not None:
            y = map_condition(lambda leaf: leaf[rows].to(device), y)
        noise = SampleNoise(task.request.seed, places)
        with advise_on_memory(len(rows), task.given.spec.shape, "--batch"), catch_warnings():
            filterwarnings("ignore", re.escape(GUIDED))  # it is the label of the results
            found = likelihood_budget(model, x, method, control=control, noise=noise, y=y)
        arrays = {f.name: getattr(found, f.name).cpu().numpy() for f in fields(Budget)}
        about = {"method": self.words, "seconds": time.monotonic() - began}
        return self.work.save(self.prefix + name, arrays, about)


def _budget(part: Part) -> Budget:
    """The budget in a part."""
    return Budget(*(torch.from_numpy(part.arrays[f.name]) for f in fields(Budget)))
