"""`scoresde likelihood`: likelihoods of data under a checkpoint, in a folder.

- per_image.csv and per_image.npz: one row per datum
- budget.txt and budget.png: the mean with all known errors
- terms.csv and terms.png: the terms of the bound vlb-ddpm, if they are asked for
- extremes.png: the most and the least likely data, for images and points in the plane
- summary.json: request, mean and errors as plain data
- parts/: the finished batches, from which the same command continues
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..._condition import map_condition
from ...data import Dataset, load_dataset
from ...exact import GaussianMixture
from ...fingerprint import fingerprint
from ...likelihood import Budget, LikelihoodMethod, likelihood_budget
from ...likelihood.method import joined
from ...noise import SampleNoise
from ...output.manifest import Origin, Source
from ...output.parts import load_part, save_part
from ...output.progress import OnProgress, advise_on_memory, check_space, silent
from ...output.result_folder import ResultFolder
from ...score import ScoreModel
from ..compiling import compile_network
from ..given import GivenModel
from ..held_out import check_held_out, choose_rows, load_held_out
from ..request import StoredModel, data_source, versions
from .files import FILES, Budgets, Scores
from .method import make_method
from .request import ScoreRequest, check_request, resolved

__all__ = ["Run", "ScoreRequest", "Scoring", "part_names", "score_data"]

# Files that keep the budgets of the first few data.
REFINED, FLOAT64 = "refined.npz", "float64.npz"


def _warn_of_clipping(given: GivenModel) -> None:
    """Warn if the sampler of the library that a checkpoint comes from clips x0."""
    about = given.raw.metadata.get("provenance", {}) if isinstance(given, StoredModel) else {}
    plan = about.get("scheduler", {})
    if plan.get("clip_sample") or plan.get("thresholding"):
        warnings.warn(
            f"{plan['_class_name']} clips x0 while it samples; the likelihood is that of the model "
            "without clipping",
            UserWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class Scoring:
    """A checked request with its model and its data; no network has been built.

    Attributes:
        request: The request, resolved and checked.
        given: The model.
        data: The data set.
        training: Data to which a Gaussian is fitted; None for a variational bound.
    """

    request: ScoreRequest
    given: GivenModel
    data: Dataset
    training: Dataset | None

    @classmethod
    def of(
        cls,
        request: ScoreRequest,
        out: Path,
        given: GivenModel | None = None,
        in_memory: tuple[Dataset, Dataset] | None = None,
    ) -> Scoring:
        """Check a request and load its data; for arguments and errors see `score_data`."""
        given = given or StoredModel.read(request.checkpoint, request.net, request.sde)
        request = resolved(request, given)
        check_request(request, given)
        _warn_of_clipping(given)
        if in_memory is None:
            data = load_held_out(given, request)
            training = _training(request, given, data)
        else:
            data, training = in_memory[0], in_memory[1] if request.of_flow else None
            data = check_held_out(given, data, request.n)
        # Each draw of a batch keeps its terms: about 8 float64 numbers, which take as much memory
        # as 16 float32 numbers.
        terms = 16 * request.draws
        check_space("--draws", min(request.batch, request.n), terms, out, arrays=1)
        return cls(request, given, data, training)

    @cached_property
    def rows(self) -> np.ndarray:
        """Row numbers of the data to be scored, shape (n,)."""
        return choose_rows(self.data, self.request.n, self.request.seed)

    def origin(self, models: dict[str, Source], **changed: Any) -> Origin:
        """The origin of the results.

        Args:
            models: Kind of each model -> its name and content.
            changed: Settings that the request does not have, or that have another value.
        """
        sources = models | {"data": data_source(self.data)}
        if self.training is not None:
            sources["training data"] = data_source(self.training)
        # Results without --compile were made before there was this option, too.
        changed["compiled"] = self.request.compiled or None
        # `force` permits a computation and does not change its result.
        return self.request.origin("likelihood", sources, shown=("force",), **changed)

    def built(self) -> ScoreModel:
        """The model on its device, after a check that it can be evaluated."""
        request, y = self.request, self.data.labels
        model = self.given.build(request.device, request.dtype)
        self.given.check_evaluates(model, y, request.device)
        if request.compiled:
            rows, shape = min(request.batch, request.n), self.given.spec.shape
            compile_network(model, rows, shape, request.torch_dtype, y, request.of_flow)
        return model


def score_data(
    request: ScoreRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    given: GivenModel | None = None,
    in_memory: tuple[Dataset, Dataset] | None = None,
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

    Returns:
        The summary: mean, budget, protocol, counted evaluations, seconds.

    Raises:
        ValueError: If the request is refused (`check_request`), before a network is built.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
        RuntimeError: If a solve fails or memory runs out.
    """
    task = Scoring.of(request, out, given, in_memory)
    request, given, data = task.request, task.given, task.data
    # Results without a plot were made before there was this option, too.
    origin = task.origin({given.kind: given.source}, plot=request.plot or None)
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    model = task.built()
    with results.write(FILES, part_names(request)) as output:
        began = time.monotonic()
        method, control = make_method(request, given.spec, model, task.training)
        run = Run(task, control, output.work, origin.fingerprint)
        budgets = run.budgets(model, method, on_progress)
        scores = Scores(request, given.spec, data, task.rows, method, budgets)
        summary = scores.summary() | {
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
        }
        scores.write(output.work, summary)
        if request.plot:
            scores.write_terms(output.work, method.diffusion(model))
        output.finish(summary)
    return summary


def _training(request: ScoreRequest, given: GivenModel, data: Dataset) -> Dataset | None:
    """The data to which the Gaussian is fitted; None for a variational bound, which needs none.

    This is the training split of the checkpoint's data, or the scored data if --data is given.
    """
    if not request.of_flow:
        return None
    if request.data is not None:
        return data
    source = given.data_source.below(request.data_root)
    # labels only for a conditional network, as for the scored data
    return load_dataset(source, labels=data.labels is not None, classes=given.spec.class_names)


def part_names(request: ScoreRequest) -> list[str]:
    """Names of the files of finished batches."""
    return [*_batches(request), REFINED, FLOAT64]


def _batches(request: ScoreRequest) -> dict[str, range]:
    """The positions of each batch among the chosen rows, by the name of the batch's file."""
    n, size = request.n, request.batch
    return {f"{begin:08d}.npz": range(begin, min(begin + size, n)) for begin in range(0, n, size)}


@dataclass(frozen=True)
class Run:
    """The computation of one request, batch by batch.

    Attributes:
        task: The request with its model and data.
        control: A Gaussian near the data; None for a variational bound.
        folder: Folder for the budgets of finished batches.
        made_from: Fingerprint of everything that determines the results.
        prefix: First letters of the names of their files, if several models are scored.
    """

    task: Scoring
    control: GaussianMixture | None
    folder: Path
    made_from: str
    prefix: str = ""

    def budgets(
        self, model: ScoreModel, method: LikelihoodMethod, on_progress: OnProgress
    ) -> Budgets:
        """Budgets of all data, then of the first few with a finer solver and in float64."""
        request, given = self.task.request, self.task.given
        few = range(min(request.measured, request.n))
        refined = method.refined() if few else None
        single = bool(few) and request.dtype == "float32" and given.doubles
        total = request.n + len(few) * ((refined is not None) + single)
        spec = given.spec
        on_progress(0, total, "")
        parts = []
        for name, places in _batches(request).items():
            parts.append(self._budget(name, model, method, places))
            mean = -float(torch.cat([part.log_prob for part in parts]).mean())
            on_progress(places.stop, total, f"{mean / spec.nats_per_unit:.3f} {spec.unit}")
        finer = precise = None
        if refined is not None:
            finer = self._budget(REFINED, model, refined, few)
            on_progress(total - single * len(few), total, "a finer solver")
        if single:
            model = given.build(request.device, "float64")
            precise = self._budget(FLOAT64, model, replace(method, dtype=torch.float64), few)
            on_progress(total, total, "float64")
        return Budgets(joined(parts), finer, precise)

    def _budget(
        self, name: str, model: ScoreModel, method: LikelihoodMethod, places: range
    ) -> Budget:
        """The budget of some of the rows, read from its file if there is one."""
        name = self.prefix + name
        path, made_from = self.folder / name, fingerprint([self.made_from, name])
        part = load_part(path, made_from)
        if part is not None:
            return Budget(*(torch.from_numpy(part.arrays[f.name]) for f in fields(Budget)))
        task, device = self.task, self.task.request.device
        rows = task.rows[places.start : places.stop]
        x, y = task.data.x[rows].to(device), task.data.labels
        if task.given.spec.levels is None:
            x = x.to(method.dtype)
        if y is not None:
            y = map_condition(lambda leaf: leaf[rows].to(device), y)
        noise = SampleNoise(task.request.seed, places)
        with advise_on_memory(len(rows), task.given.spec.shape, "--batch"):
            found = likelihood_budget(model, x, method, control=self.control, noise=noise, y=y)
        found = Budget(*(getattr(found, f.name).cpu() for f in fields(Budget)))
        save_part(path, made_from, {f.name: getattr(found, f.name).numpy() for f in fields(Budget)})
        return found
