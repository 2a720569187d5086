"""Draw samples from a checkpoint and write them to a folder, for `scoresde sample`.

- samples.npz: x in the units of the data, "scaled" (the same at the model's scale, if it differs;
  "latents" instead, if the model is one of latents), levels of quantized data, labels of
  conditional models, ts, nfe, seed, spec (the `DataSpec` of x as JSON); `load_dataset` reads this
  file as data
- samples.csv, for tables whose columns have names
- grid.png, a picture of images; for data of other kinds samples.png
- summary.json: the request and its result
"""

from __future__ import annotations

import csv
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._condition import Condition, take_rows
from .._files import atomic_write
from ..fingerprint import fingerprint
from ..ivp import OnStep
from ..names.samplers import sampler_label
from ..noise import SampleNoise
from ..output.files import save_arrays
from ..output.manifest import Origin, Source
from ..output.parts import Part
from ..output.progress import OnProgress, advise_on_memory, check_space, silent
from ..output.result_folder import SUMMARY
from ..output.shared_work import ALONE, Share, SharedWork, batches_of
from ..output.tiles import can_show, in_tiles, save_samples
from ..samplers import Samples, sample
from ..samplers.choice import DEFAULT_NFE
from ..samplers.recommended import Choice
from ..score import ScoreModel
from ..sde import SDE
from .compiling import check_compiles, compile_network
from .conditions import condition_arrays, requested_condition
from .given import GivenModel
from .guided import under_guidance
from .request import StoredModel, versions
from .sample_request import SampleRequest, check_dtype, choose_settings, from_file

__all__ = ["draw_samples"]

SAMPLES_FILE, TABLE_FILE = "samples.npz", "samples.csv"
GRID_FILE, PICTURE_FILE = "grid.png", "samples.png"
GRID_AT_MOST = 256  # images in the picture; the arrays hold all samples


def draw_samples(
    request: SampleRequest,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    share: Share = ALONE,
) -> dict[str, Any]:
    """Draw samples and write them to a folder; earlier results stay until the new are complete.

    A stopped request continues from its finished batches if it is given again.

    Args:
        request: The request.
        out: The folder; existing results of the same request are not computed again.
        overwrite: Replace results of another request.
        on_progress: Called after every step.
        share: The batches that this process draws.

    Returns:
        The summary: counted NFE, computing time of all batches, files and the request.

    Raises:
        ValueError: If the request makes no sense, before any network is built.
        RuntimeError: If sampling fails or memory runs out.
        PeerError: If another process fails.
    """
    stored = StoredModel.read(request.checkpoint, request.net, request.sde)
    stored = under_guidance(stored, request.guidance)
    if request.compiled:
        check_compiles(stored)
    check_dtype(request)
    chosen = choose_settings(request, stored)
    check_space("--n", request.n, stored.decoded_spec.dims, out, files=2)
    drawing = _Drawing(request, stored, chosen, _labels(request, stored))
    origin = _origin(request, stored, chosen.ts, drawing.named)
    batches = batches_of(request.n, request.batch)
    about = {"request": asdict(request)}
    work = SharedWork.open(out, origin, list(batches), share, overwrite, about)
    if work.finished:
        return work.read()
    with work.write((SAMPLES_FILE, TABLE_FILE, GRID_FILE, PICTURE_FILE, SUMMARY)) as output:
        drawing.draw(work, batches, on_progress)
        parts = work.collect()
        if parts is not None:
            output.finish(drawing.write(output.work, list(parts.values())))
    return work.read()


@dataclass(frozen=True)
class _Drawing:
    """A checked request with its model, sampler and conditions; no network has been built.

    Attributes:
        request: The request.
        stored: The checkpoint, perhaps under guidance.
        chosen: Sampler and times.
        y: The condition of each sample; None for an unconditional model.
    """

    request: SampleRequest
    stored: GivenModel
    chosen: Choice
    y: Condition | None

    @property
    def named(self) -> dict[str, Any]:
        """Sampler, grid and budget in words, as the request gives them or as they were chosen."""
        return _named(self.request, self.chosen)

    def draw(self, work: SharedWork, batches: dict[str, range], on_progress: OnProgress) -> None:
        """Draw the batches of this process that are not there yet; without any, build no network.

        Args:
            work: Where the batches are written.
            batches: The samples of each batch, by the name of its file.
            on_progress: Called after every step.
        """
        todo, adaptive = list(work.todo()), self.chosen.sampler.adaptive
        model = self._built() if todo else None
        total = None if adaptive else (len(self.chosen.ts) - 1) * len(todo)
        done = itertools.count(1)  # number of steps, over all batches
        for name in todo:
            began = time.monotonic()
            found = self._batch(
                model,
                batches[name],
                lambda step, t, x: on_progress(next(done), total, f"t = {t:.3g}"),
            )
            arrays = {"x": found.x.cpu().numpy()}
            if found.scaled is not found.x:
                scaled = "latents" if self.stored.of_latents else "scaled"
                arrays[scaled] = found.scaled.cpu().numpy()
            if found.counts is not None:
                arrays |= {f"sample_{key}": v.numpy() for key, v in vars(found.counts).items()}
            work.save(name, arrays, {"nfe": found.nfe, "seconds": time.monotonic() - began})

    def write(self, out: Path, parts: Sequence[Part]) -> dict[str, Any]:
        """Write the arrays, and a picture of images.

        Args:
            out: The folder.
            parts: All batches in order.

        Returns:
            The summary.
        """
        request, chosen, named = self.request, self.chosen, self.named
        arrays = {key: np.concatenate([p.arrays[key] for p in parts]) for key in parts[0].arrays}
        nfe = max(part.about["nfe"] for part in parts)
        files = _write(out, arrays, nfe, self)
        return {
            "checkpoint": request.checkpoint,
            "sampler": named["sampler"],
            "grid": named["grid"],
            "recommended": [] if chosen.sampler.adaptive else _left_open(request),
            "steps": None if chosen.sampler.adaptive else len(chosen.ts) - 1,
            "snapped": self.stored.snapped,
            **_start(self.stored.sde, chosen.ts),
            "t_min": float(chosen.ts[-1]),
            "denoise": chosen.denoise,
            "guidance": request.guidance,
            **{key: getattr(request, key) for key in ("n", "seed")},
            "nfe": nfe,
            "transform": self.stored.decoded_spec.to_dict().get("transform"),
            **_decoding(self.stored),
            "nfe_per_sample": _spread(arrays.get("sample_evaluations")),
            "seconds": round(sum(part.about["seconds"] for part in parts), 3),
            "versions": versions(),
            "files": files,
        }

    def _built(self) -> ScoreModel:
        """The model on its device."""
        request, spec = self.request, self.stored.spec
        model = self.stored.build(request.device, request.dtype)
        if request.compiled:
            rows = min(request.batch, request.n)
            compile_network(model, rows, spec.shape, request.torch_dtype, self.y)
        return model

    def _batch(self, model: ScoreModel, places: range, on_step: OnStep) -> Samples:
        """Draw one batch; sample i depends on the seed and on i alone."""
        request, chosen = self.request, self.chosen
        with advise_on_memory(len(places), self.stored.spec.shape, "--batch"):
            return sample(
                model,
                chosen.sampler,
                chosen.ts,
                (len(places), *self.stored.spec.shape),
                noise=SampleNoise(request.seed, places),
                y=None if self.y is None else take_rows(self.y, slice(places.start, places.stop)),
                denoise=chosen.denoise,
                device=request.device,
                dtype=request.torch_dtype,
                on_step=on_step,
            )


def _named(request: SampleRequest, chosen: Choice) -> dict[str, Any]:
    """Sampler, grid and budget in words, as the request gives them or as they were chosen."""
    adaptive = chosen.sampler.adaptive
    fixed = adaptive or request.steps is not None or from_file(request)
    return {
        "sampler": request.sampler or sampler_label(chosen.sampler),
        "grid": None if adaptive else request.grid or chosen.grid,
        "nfe": DEFAULT_NFE if request.nfe is None and not fixed else request.nfe,
    }


def _start(sde: SDE, ts: Tensor) -> dict[str, float]:
    """Where the samples started, if α(1) = 0: not every sampler and network can start at t = 1."""
    first = float(ts[0])
    return {"t_start": first, "start_std": sde.start_std(first)} if sde.ends_in_noise else {}


def _decoding(stored: GivenModel) -> dict[str, Any]:
    """The shape of the latents that are decoded, for a model of latents."""
    return {"latent_shape": list(stored.spec.shape)} if stored.of_latents else {}


def _left_open(request: SampleRequest) -> list[str]:
    """Which of sampler and grid the request leaves to the recommendation."""
    return [key for key in ("sampler", "grid") if getattr(request, key) is None]


def _origin(
    request: SampleRequest, stored: GivenModel, ts: Tensor, named: dict[str, Any]
) -> Origin:
    """Everything that determines the samples; for a grid file its times count, not its name."""
    sources, settings = {"checkpoint": stored.source}, named | {"t_min": float(ts[-1])}
    if stored.decoded_spec.transform is not None:
        settings["transform"] = stored.decoded_spec.to_dict()["transform"]
    if not from_file(request):
        return request.origin("sample", sources, **settings)
    sources["grid"] = Source(request.grid, fingerprint(ts))
    return request.origin("sample", sources, shown=("grid",), **settings)


def _labels(request: SampleRequest, stored: GivenModel) -> Condition | None:
    """The condition of each sample; None for an unconditional model."""
    return requested_condition(stored, request.n, request.label, request.condition, request.seed)


def _spread(evaluations: np.ndarray | None) -> list[int] | None:
    """Least and largest NFE per sample if they differ, otherwise None."""
    if evaluations is None:
        return None
    least, most = int(evaluations.min()), int(evaluations.max())
    return None if least == most else [least, most]


def _write(out: Path, found: Mapping[str, np.ndarray], nfe: int, drawing: _Drawing) -> list[str]:
    """Write the arrays, and a picture of images.

    Returns:
        The names of the files.
    """
    spec, x = drawing.stored.decoded_spec, torch.from_numpy(found["x"])
    arrays = {
        "x": found["x"],
        "ts": drawing.chosen.ts.numpy(),
        "nfe": np.array(nfe),
        "seed": np.array(drawing.request.seed, dtype=np.uint64),
        "spec": np.array(json.dumps(spec.to_dict())),  # so that the file can be used as data
    }
    if spec.levels is not None:
        arrays["levels"] = spec.to_levels(x).numpy()
    arrays |= condition_arrays(drawing.y, drawing.stored.condition)
    save_arrays(out / SAMPLES_FILE, **arrays, **_counts(found))
    files = [SAMPLES_FILE]
    if spec.feature_names is not None and spec.kind == "vector":
        _write_table(out / TABLE_FILE, spec.feature_names, found["x"])
        files.append(TABLE_FILE)
    if can_show(spec):
        files.append(GRID_FILE if spec.is_image else PICTURE_FILE)
        if in_tiles(spec):
            scaled = torch.from_numpy(found["scaled"]) if "scaled" in found else spec.to_model(x)
            x = scaled[:GRID_AT_MOST]
        save_samples(out / files[-1], x, spec)
    return files


def _write_table(path: Path, names: Sequence[str], x: np.ndarray) -> None:
    """Write samples of a table in units, one row each, below the names of the columns."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(x.tolist())


def _counts(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each sample took, from an adaptive sampler."""
    return {name: values for name, values in found.items() if name != "x"}
