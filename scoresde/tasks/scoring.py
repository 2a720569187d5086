"""Likelihoods of data under a checkpoint, in a folder: what `scoresde likelihood` calls.

- per_image.csv and per_image.npz: one row per datum
- budget.txt and budget.png: the mean with everything that is known of its errors
- extremes.png: the most and the least likely, of images and of points in the plane
- summary.json: all of the above as plain data
- parts/: what is done so far, from which the same command goes on
"""

from __future__ import annotations

import time
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..exact import GaussianMixture
from ..fingerprint import fingerprint
from ..likelihood import (
    Budget,
    OdeDensity,
    PathDensity,
    PathQuadrature,
    dequantize,
    fit_gaussian,
)
from ..likelihood.trace import TraceRule
from ..noise import SampleNoise
from ..registry import parse_trace
from ..score import ScoreModel
from ..study.parts import load_part, save_part
from ..study.result_folder import ResultFolder
from ..study.running import OnProgress, advise_on_memory, check_space
from .held_out import choose_rows, load_held_out
from .protocols import DEQUANTIZATIONS, Protocol, choose_quadrature
from .request import StoredModel, data_source, versions
from .score_files import FILES, Scores
from .score_request import ScoreRequest, check_request, resolved

__all__ = ["ScoreRequest", "score_data"]

LEAST_DRAWS = 4  # of a variational bound: fewer cannot tell its error
PILOT = 8  # data on which trace rules are compared
FITTED = 10_000  # training data behind the Gaussian reference, at most


def score_data(
    request: ScoreRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    stored: StoredModel | None = None,
) -> dict[str, Any]:
    """Score data and write the results to a folder; goes on where the same request was stopped.

    Args:
        request: What to score.
        out: The folder; results of the same request in it are not computed again.
        overwrite: Replace results of another request.
        on_progress: Told of every batch.
        stored: The checkpoint, if it has been read already.

    Returns:
        The summary: mean, budget, protocol, counted evaluations, seconds.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; says how to get them.
        RuntimeError: If a solve fails or memory runs out.
    """
    stored = stored or StoredModel.read(request.checkpoint)
    request = resolved(request, stored)
    check_request(request, stored)
    data = load_held_out(stored, request)
    # Each draw of a batch keeps its terms: about 8 float64 numbers, as large as 16 of 4 bytes.
    terms = 16 * request.draws
    check_space("--draws", min(request.batch, request.n), terms, out, arrays=1)
    training = _training(request, stored, data)
    sources = {"checkpoint": stored.source, "data": data_source(data)}
    if training is not None:
        sources["training data"] = data_source(training)
    # `force` permits a computation and does not change its result.
    origin = request.origin("likelihood", sources, shown=("force",))
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    scoring = _Scoring(request, stored, data, training, origin.fingerprint)
    with results.write(FILES, scoring.parts) as output:
        began = time.monotonic()
        budget, refined, precise = scoring.run(output.work, on_progress)
        scores = scoring.scores
        mean = scores.mean(budget, refined, precise)
        summary = scores.summary(mean, scoring.protocol) | {
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
        }
        scores.write(output.work, budget, refined, precise, mean, summary)
        output.finish(summary)
    return summary


def _training(request: ScoreRequest, stored: StoredModel, data: Dataset) -> Dataset | None:
    """Data that the protocol is fitted on: the training split, or the scored file; None if none."""
    if request.protocol not in DEQUANTIZATIONS:
        return None
    if request.data is not None:
        return data
    own = stored.config.data
    source = replace(own, root=request.data_root or own.root)
    # of a conditional network only, as of the data that are scored
    return source.load("train", labels=data.labels is not None, classes=stored.spec.class_names)


class _Scoring:
    """One request on its way: batches that are done are kept in files."""

    def __init__(
        self,
        request: ScoreRequest,
        stored: StoredModel,
        data: Dataset,
        training: Dataset | None,
        made_from: str,
    ) -> None:
        self.request, self.stored, self.spec = request, stored, stored.spec
        self.data, self.training, self.made_from = data, training, made_from
        self.scores = Scores(request, stored.spec, data, choose_rows(data, request.n, request.seed))

    @property
    def batches(self) -> list[range]:
        """Places in `scores.rows` of what is computed at a time."""
        n, batch = len(self.scores.rows), self.request.batch
        return [range(begin, min(begin + batch, n)) for begin in range(0, n, batch)]

    @property
    def parts(self) -> list[str]:
        """Names of the files of all that may be kept."""
        return [*map(_part_name, (*(rows.start for rows in self.batches), "refined", "float64"))]

    def run(
        self, folder: Path, on_progress: OnProgress | None
    ) -> tuple[Budget, Budget | None, Budget | None]:
        """All data, then the first few again with a finer solver and in float64."""
        n, few = len(self.scores.rows), min(self.request.measured, len(self.scores.rows))
        refined = self.protocol.refined() if few else None
        total = n + few * ((refined is not None) + (self.request.dtype == "float32"))
        parts, done = [], 0

        def tell(note: str = "") -> None:
            if on_progress is not None:
                on_progress(done, total, note)

        tell()
        for rows in self.batches:
            path = folder / _part_name(rows.start)
            parts.append(self._batch(path, self.protocol, self.model, rows))
            done += len(rows)
            mean = -float(torch.cat([part.log_prob for part in parts]).mean()) / self.scores.per_dim
            tell(f"{mean:.3f} {self.scores.unit}")
        budget, finer, precise = Budget.cat(parts), None, None
        if refined is not None:
            finer = self._batch(folder / _part_name("refined"), refined, self.model, range(few))
            done += few
            tell("a finer solver")
        if few and self.request.dtype == "float32":
            protocol = replace(self.protocol, dtype=torch.float64)
            model = self.stored.build(self.request.device, "float64")
            precise = self._batch(folder / _part_name("float64"), protocol, model, range(few))
            done += few
            tell("float64")
        return budget, finer, precise

    @cached_property
    def model(self) -> ScoreModel:
        """The checkpoint's model in the dtype asked for."""
        return self.stored.build(self.request.device, self.request.dtype)

    @cached_property
    def protocol(self) -> Protocol:
        """What is computed, with what is found out by measurement."""
        request = self.request
        common = {
            "name": request.protocol,
            "spec": self.spec,
            "t_min": request.t_min,
            "draws": request.draws,
            "dtype": request.torch_dtype,
        }
        if request.protocol not in DEQUANTIZATIONS:
            common["draws"] = max(request.draws, LEAST_DRAWS)
            if request.steps is not None:
                common["steps"] = request.steps
            if request.nodes is not None:
                common["strata"] = request.nodes
            return Protocol(variance=request.variance, **common)
        density = self._path() if request.method == "path" else self._ode()
        return Protocol(density=density, control=self.control, **common)

    @cached_property
    def control(self) -> GaussianMixture:
        """The Gaussian of the training data, or of the scored file where there are none."""
        return fit_gaussian(self.model.sde, self._training_points(FITTED)).to(self.request.device)

    def _path(self) -> PathDensity:
        """The path method; trace and nodes by measurement if not given."""
        request, nodes = self.request, self.request.nodes
        rule: TraceRule | None = None
        if request.trace != "auto":
            rule = parse_trace(request.trace)
        else:
            rule, wanted = self._measured()
            nodes = nodes or wanted
        given = {"steps": request.steps, "nodes": nodes, "trace": rule}
        quadrature = PathQuadrature(**{k: v for k, v in given.items() if v is not None})
        return PathDensity(quadrature, request.t_min, self.control)

    def _measured(self) -> tuple[TraceRule, int]:
        x = self._training_points(PILOT).to(self.request.torch_dtype)
        model, error = self.model, self.request.image_error * self.scores.per_dim
        if self.data.labels is not None:  # the network needs them
            model = model.given(self.training.labels[: len(x)].to(self.request.device))
        seed = self.request.seed
        return choose_quadrature(model, x, self.request.t_min, self.control, error, seed)

    def _ode(self) -> OdeDensity:
        request = self.request
        per_sample = request.per_sample or request.method == "dop853"
        return OdeDensity(
            t_min=request.t_min,
            rtol=request.rtol,
            atol=request.atol,
            method=request.method,
            per_sample=per_sample,
            trace="auto" if request.trace == "auto" else parse_trace(request.trace),
            force=request.force,
        )

    def _training_points(self, n: int) -> Tensor:
        """The first n of them at the model's scale, dequantized, float64."""
        x = self.training.x[:n].to(self.request.device)
        if self.spec.levels is None:
            return x.double()
        # a stream of its own, far from those of the data that are scored
        noise = SampleNoise(self.request.seed, range(2**63, 2**63 + len(x)))
        return dequantize(x, self.spec, noise, torch.float64)

    def _batch(self, path: Path, protocol: Protocol, model: ScoreModel, rows: range) -> Budget:
        """The budget of some of the rows; from its file if there is one."""
        made_from = fingerprint([self.made_from, path.name])
        part = load_part(path, made_from)
        if part is not None:
            return Budget(*(torch.from_numpy(part.arrays[f.name]) for f in fields(Budget)))
        chosen = self.scores.rows[rows.start : rows.stop]
        x = self.data.x[chosen].to(self.request.device)
        labels = self.data.labels
        y = None if labels is None else labels[chosen].to(self.request.device)
        with advise_on_memory(len(rows), self.spec.shape, "--batch"):
            found = protocol.score(model, x, y, SampleNoise(self.request.seed, rows))
        found = Budget(*(getattr(found, f.name).cpu() for f in fields(Budget)))
        save_part(path, made_from, {f.name: getattr(found, f.name).numpy() for f in fields(Budget)})
        return found


def _part_name(what: int | str) -> str:
    """Name of the file of a batch, by its first place, or of a comparison."""
    return f"{what:08d}.npz" if isinstance(what, int) else f"{what}.npz"
