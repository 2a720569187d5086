"""Draw samples given a measurement y = A x + noise, for `scoresde restore`.

- restored.npz: samples, their mean and standard deviation, the measurement, the truth if it is
  known, and the mask, all in the values of `Values`
- restored.png, for images: truth, measurement, some samples, mean and standard deviation
- summary.json: the request and its result
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, map_condition
from ..ivp import OnStep
from ..names.samplers import sampler_label
from ..noise import SampleNoise
from ..output.manifest import Source
from ..output.parts import Part
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY
from ..output.shared_work import ALONE, SharedWork, batches_of
from ..samplers import sample
from ..score import ScoreModel, count_nfe
from .conditions import requested_condition
from .given import GivenModel
from .held_out import choose_rows, load_held_out
from .request import StoredModel, data_source, versions
from .restore_input import (
    Readings,
    Values,
    dequantized,
    measured_files,
    read_clean,
    with_noise,
)
from .restore_request import RestoreRequest, Settings, choose_settings
from .restored import ARRAYS, PICTURE, Restored

__all__ = ["restore"]


def restore(
    request: RestoreRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Draw samples given measurements, and write them to a folder.

    Earlier results stay until the new ones are complete. A stopped request continues from its
    finished batches if it is given again.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after every step.

    Returns:
        The summary: errors, residual, coverage of intervals, counted evaluations, files.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
        RuntimeError: If sampling fails or memory runs out.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    settings = choose_settings(request, stored)
    y = _condition(request, stored)
    readings, source = _readings(request, stored, settings)
    rows = len(readings.y) * request.samples
    check_space("--samples", rows, stored.spec.dims, out, arrays=6)
    work = _Restoring(request, stored, settings, readings, y)
    sources = {"checkpoint": stored.source} | source
    origin = request.origin("restore", sources, **work.named)
    batches = batches_of(rows, request.batch)
    shared = SharedWork.open(out, origin, list(batches), ALONE, overwrite, {})
    if shared.finished:
        return shared.read()
    with shared.write((ARRAYS, PICTURE, SUMMARY)) as output:
        work.draw(shared, batches, on_progress)
        output.finish(work.write(output.work, list(shared.collect().values())))
    return shared.read()


def _condition(request: RestoreRequest, stored: GivenModel) -> Condition | None:
    """The condition of all samples, one row; None for an unconditional model."""
    open_class = request.label is None and request.condition is None
    if open_class and stored.condition.classes is not None:
        if not stored.unconditional:
            raise ValueError(f"--label: must be given, {stored.name} takes the class of its data")
        return None
    return requested_condition(stored, 1, request.label, request.condition, request.seed)


def _readings(
    request: RestoreRequest, stored: GivenModel, settings: Settings
) -> tuple[Readings, dict[str, Source]]:
    """The measurements, and where data of a data set come from."""
    spec, operator = stored.spec, settings.operator
    if request.measurements:
        return measured_files(request.measurements, spec, operator), {}
    source = {}
    if request.images:
        data = read_clean(request.images, spec)
    else:
        whole = load_held_out(stored, request)
        source = {"data": data_source(whole)}
        data = whole.taken(torch.from_numpy(choose_rows(whole, request.n, request.seed)))
    truth, point = dequantized(data, request.seed)
    std = request.noise * Values(spec).factor
    return with_noise(truth, point, operator, std, request.seed), source


@dataclass(frozen=True)
class _Restoring:
    """A checked request with its measurements; no network has been built.

    Attributes:
        request: The request.
        stored: The checkpoint.
        settings: Operator, method, sampler and times.
        readings: The measurements.
        y: The condition of all samples, or None.
    """

    request: RestoreRequest
    stored: GivenModel
    settings: Settings
    readings: Readings
    y: Condition | None

    @property
    def named(self) -> dict[str, Any]:
        """What the request leaves open, in words: sampler, grid and last time."""
        chosen = self.settings.chosen
        return {
            "sampler": self.request.sampler or sampler_label(chosen.sampler),
            "grid": chosen.grid,
            "t_min": float(chosen.ts[-1]),
            "n": len(self.readings.y),
        }

    def draw(self, shared: SharedWork, batches: dict[str, range], on_progress: OnProgress) -> None:
        """Draw the batches that are not there yet; without any, build no network."""
        todo, chosen = list(shared.todo()), self.settings.chosen
        model = self._built() if todo else None
        total = None if chosen.sampler.adaptive else (len(chosen.ts) - 1) * len(todo)
        done = itertools.count(1)  # number of steps, over all batches

        def on_step(step: int, t: float, x: Tensor) -> None:
            on_progress(next(done), total, f"t = {t:.3g}")

        for name in todo:
            began = time.monotonic()
            arrays, counts = self._batch(model, batches[name], on_step)
            shared.save(name, arrays, counts | {"seconds": time.monotonic() - began})

    def _built(self) -> ScoreModel:
        """The model that the sampler runs on."""
        request, settings = self.request, self.settings
        model = self.stored.build(request.device, request.dtype)
        if self.y is not None:
            model = model.given(map_condition(lambda leaf: leaf.to(request.device), self.y))
        std = request.noise * Values(self.stored.spec).factor
        return settings.method.of(model, settings.operator, std)

    def _batch(
        self, model: ScoreModel, places: range, on_step: OnStep
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Samples in some places; their place and the seed determine them."""
        request, chosen, shape = self.request, self.settings.chosen, self.stored.spec.shape
        of_datum = torch.tensor(places) // request.samples
        y = self.readings.y[of_datum].to(request.device, request.torch_dtype)
        with (
            advise_on_memory(len(places), shape, "--batch"),
            count_nfe(model) as counted,
        ):
            found = sample(
                model,
                chosen.sampler,
                chosen.ts,
                (len(places), *shape),
                noise=SampleNoise(request.seed, places),
                y=y,
                denoise=chosen.denoise,
                device=request.device,
                dtype=request.torch_dtype,
                on_step=on_step,
            )
        arrays = {"x": found.scaled.cpu().numpy()}
        if found.effective is not None:
            arrays["effective"] = found.effective.numpy()
        return arrays, {"nfe": found.nfe, "derivative": counted.derivative}

    def write(self, out: Path, parts: Sequence[Part]) -> dict[str, Any]:
        """Write arrays and picture, and return the summary."""
        request, spec = self.request, self.stored.spec
        whole = {key: np.concatenate([p.arrays[key] for p in parts]) for key in parts[0].arrays}
        both = (len(self.readings.y), request.samples)
        effective = whole.get("effective")
        restored = Restored(
            spec,
            self.settings.operator,
            self.readings,
            request.noise,
            torch.from_numpy(whole["x"]).double().reshape(*both, *spec.shape),
            None if effective is None else torch.from_numpy(effective).reshape(both),
        )
        about = {"checkpoint": request.checkpoint, "operator": request.operator}
        about |= {"method": _in_words(self.settings), **self.named}
        about |= {"seed": request.seed, "samples": request.samples}
        return {
            **about,
            "steps": None if self.named["grid"] is None else len(self.settings.chosen.ts) - 1,
            "nfe": max(part.about["nfe"] for part in parts),
            "nfe_derivative": max(part.about["derivative"] for part in parts),
            **restored.summary(),
            "seconds": round(sum(part.about["seconds"] for part in parts), 3),
            "versions": versions(),
            "files": restored.write(out, about),
        }


def _in_words(settings: Settings) -> str:
    """The method with all its parameters."""
    method = settings.method
    values = {k: v for k, v in asdict(method).items() if v is not None}
    return ":".join([method.name, *(f"{k}={v:g}" for k, v in values.items())])
