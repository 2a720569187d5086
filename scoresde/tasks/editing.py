"""Edit data with a checkpoint and write the results to a folder, for `scoresde edit`.

- edits.npz: the data and the results, in the values of `Values`, and the strengths
- edits.png, for images: the data, and below them the results of each strength
- summary.json: the request, and how far each strength moves the data
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, bound_rows, map_condition, take_rows
from ..data import Dataset
from ..editing import edit
from ..names.samplers import sampler_label
from ..output.figures import to_unit
from ..output.files import save_arrays
from ..output.manifest import Source
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.restored import Tiles, save_restoration
from ..output.result_folder import SUMMARY, ResultFolder
from ..samplers import Samples
from ..samplers.recommended import Choice
from ..score import ScoreModel
from ..score.units import in_model_scale
from .conditions import requested_condition
from .editing_request import EditRequest, choices
from .given import GivenModel
from .guided import under_guidance
from .held_out import choose_rows, load_held_out
from .request import StoredModel, data_source, versions
from .restore_input import Values, dequantized, read_clean

__all__ = ["edit_data"]

ARRAYS, PICTURE = "edits.npz", "edits.png"
MOST_ROWS = 3  # results of a datum that are drawn for each strength


class _Input(NamedTuple):
    """What is edited.

    Attributes:
        values: The data as values, shape (n, *D).
        points: The data at the model's scale, dequantized.
        y: The condition of the results, one row or n rows, or None.
    """

    values: Tensor
    points: Tensor
    y: Condition | None


def edit_data(
    request: EditRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> dict[str, Any]:
    """Edit data with every strength, and write the results to a folder.

    The results of all strengths have the same noise. Earlier results in the folder stay until the
    new ones are complete.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called before every strength and at the end.

    Returns:
        The summary: start, evaluations and change of every strength, files.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        FileNotFoundError: If the data are not on this machine; the message says how to get them.
        RuntimeError: If sampling fails or memory runs out.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    stored = under_guidance(stored, request.guidance)
    chosen = choices(request, stored)
    what, source = _input(request, stored)
    rows = len(what.points) * request.samples * len(request.strengths)
    check_space("--samples", rows, stored.spec.dims, out, arrays=2)
    sources = {"checkpoint": stored.source} | source
    origin = request.origin("edit", sources, n=len(what.points))
    results = ResultFolder.open(out, origin, overwrite)
    if results.finished:
        return results.read()
    with results.write((ARRAYS, PICTURE, SUMMARY)) as output:
        began = time.monotonic()
        found = _edited(request, stored, what, on_progress)
        summary = {
            "checkpoint": request.checkpoint,
            "n": len(what.points),
            "samples": request.samples,
            "sampler": request.sampler or _name(chosen),
            "guidance": request.guidance,
            "label": request.label,
            "seed": request.seed,
            **_results(request, stored, what, found),
            "seconds": round(time.monotonic() - began, 3),
            "versions": versions(),
            "files": _write(output.work, request, stored, what, found),
        }
        output.finish(summary)
    return summary


def _name(chosen: list[Choice | None]) -> str | None:
    """The recommended sampler."""
    return next((sampler_label(choice.sampler) for choice in chosen if choice is not None), None)


def _input(request: EditRequest, stored: GivenModel) -> tuple[_Input, dict[str, Source]]:
    """The data, and where those of a data set come from."""
    source, y = {}, None
    if request.label is not None or request.condition is not None:
        y = requested_condition(stored, 1, request.label, request.condition, request.seed)
    if request.images:
        data = read_clean(request.images, stored.spec)
    else:
        whole = load_held_out(stored, request)
        source = {"data": data_source(whole)}
        data = whole.taken(torch.from_numpy(choose_rows(whole, request.n, request.seed)))
    y = _own_condition(data, stored) if y is None else y
    return _Input(*dequantized(data, request.seed), y), source


def _own_condition(data: Dataset, stored: GivenModel) -> Condition | None:
    """The conditions of the data; of files they are not known."""
    if data.labels is not None or not stored.condition:
        return data.labels
    if not stored.unconditional:
        option = "label" if stored.condition.classes is not None else "condition"
        raise ValueError(f"--{option}: must be given, {stored.name} takes {stored.condition}")
    return None


def _edited(
    request: EditRequest, stored: GivenModel, what: _Input, on_progress: OnProgress
) -> list[Samples]:
    """The results of every strength at the model's scale, n · samples rows each."""
    model: ScoreModel = in_model_scale(stored.build(request.device, request.dtype))
    repeated = torch.arange(len(what.points)).repeat_interleave(request.samples)
    x = what.points[repeated].to(request.device, request.torch_dtype)
    y = what.y
    if y is not None:
        y = take_rows(bound_rows(y, len(what.points), "cpu"), repeated)
        y = map_condition(lambda leaf: leaf.to(request.device), y)
    found, total = [], len(request.strengths)
    for i, strength in enumerate(request.strengths):
        on_progress(i, total, f"strength {strength:g}")
        choice = choices(request, stored)[i]
        with advise_on_memory(request.batch, stored.spec.shape, "--batch"):
            found.append(
                edit(
                    model,
                    x,
                    strength,
                    None if choice is None or request.sampler is None else choice.sampler,
                    nfe=request.nfe,
                    seed=request.seed,
                    y=y,
                    batch=request.batch,
                )
            )
    on_progress(total, total, "")
    return found


def _results(
    request: EditRequest, stored: GivenModel, what: _Input, found: list[Samples]
) -> dict[str, Any]:
    """Start, cost and change of every strength, and the unit of the change."""
    values, rows = Values(stored.spec), []
    for strength, samples in zip(request.strengths, found, strict=True):
        node = stored.sde.nodes([float(samples.ts[0])])[0] if strength > 0 else None
        moved = values.of(samples.scaled.double().cpu()).reshape(len(what.values), -1)
        start = values.of(what.points).reshape(len(what.values), 1, -1)
        change = moved.reshape(*start.shape[:1], request.samples, -1) - start
        rows.append(
            {
                "strength": strength,
                "alpha": 1.0 if node is None else node.alpha,
                "sigma": 0.0 if node is None else node.sigma,
                "nfe": samples.nfe,
                "change": float(change.square().mean().sqrt()),
            }
        )
    return {"unit": values.unit, "strengths": rows}


def _write(
    out: Path, request: EditRequest, stored: GivenModel, what: _Input, found: list[Samples]
) -> list[str]:
    """Write the arrays, and a picture of images; return the names of the files."""
    spec, values = stored.spec, Values(stored.spec)
    both = (len(what.values), request.samples)
    x = torch.stack(
        [samples.scaled.double().cpu().reshape(*both, *spec.shape) for samples in found]
    )
    arrays = {"x": what.values.numpy(), "strengths": np.array(request.strengths)}
    edited = values.of(x.flatten(0, 2)).reshape(x.shape).transpose(0, 1)
    save_arrays(out / ARRAYS, **arrays, edited=edited.numpy())
    if not spec.is_image:
        return [ARRAYS]
    rows = [Tiles("data", to_unit(what.points, spec))]
    for strength, of_strength in zip(request.strengths, x, strict=True):
        for j in range(min(MOST_ROWS, request.samples)):
            name = f"{strength:g}" if j == 0 else ""
            rows.append(Tiles(name, to_unit(of_strength[:, j], spec)))
    save_restoration(out / PICTURE, rows, "data, and below the results of each strength")
    return [ARRAYS, PICTURE]
