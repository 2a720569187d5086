"""`scoresde plot`: pictures of a training run, in a folder.

- curves.png: loss, error by noise level, gradient norm, learning rate, validation
- samples.png: the grids of samples of the run, over its steps
- denoising.png: x_0, x_t and the predicted x_0 at eight noise levels
- sampling.png: an animated PNG of sampling
- plots.html: a page with all of them
- summary.json: the numbers of the last line, and the irreducible loss
"""

from __future__ import annotations

import html
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .._condition import map_condition, take_rows
from .._files import atomic_write
from .._tensor import float64
from .._text import printable
from ..data import Dataset, load_dataset
from ..data.catalog import has_test_split
from ..evaluation import evaluating
from ..fingerprint import file_fingerprint, fingerprint
from ..noise import SampleNoise
from ..output.animation import save_animation
from ..output.manifest import Source
from ..output.pictures import can_show, denoising_strip, side_by_side
from ..output.progress import OnProgress, silent
from ..output.result_folder import SUMMARY, Output, ResultFolder
from ..output.training_curves import LeastLoss, save_curves
from ..samplers import sample
from ..score import FIRST_TIME, ScoreModel
from ..sde import Node
from .conditions import conditions_like
from .held_out import choose_rows, to_points
from .request import Request, StoredModel, data_source, versions
from .train.files import CHECKPOINT, LOG
from .train.history import Log, is_log
from .train.irreducible import exact_model, least_loss

__all__ = ["PlotRequest", "plot_run"]

# Every picture with the text below it on the page.
PICTURES = {
    "curves.png": "Loss, error by noise level, gradient norm and learning rate",
    "samples.png": "Samples of the averaged weights during the training, from the same noise",
    "denoising.png": "Data, noisy data and the prediction of the network",
    "sampling.png": "Sampling from noise to data (animated)",
}
PAGE = "plots.html"
GRIDS = 6  # grids of samples in one picture
STRIP = 3  # images that are denoised
NOISE_LEVELS = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0)  # σ/α
POINTS, IMAGES = 1000, 25  # points or images in the animation


@dataclass(frozen=True)
class PlotRequest(Request):
    """The run and how its pictures are drawn.

    Args:
        run: Folder of the run; `checkpoint` is the file in it.
        nfe: Evaluations of the animated sampling.
        data_root: Folder of the data set, instead of that in the config.
    """

    run: Path = Path()
    nfe: int = 32
    data_root: str | None = None

    places: ClassVar[tuple[str, ...]] = (*Request.places, "run", "data_root")


def plot_run(
    run: Path,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Draw the pictures of a training run.

    If the data are not on this machine, a warning says so, and what needs them is left out.

    Args:
        run: Folder of `scoresde train`.
        out: Folder for the pictures; those of the same state of the run are not drawn again.
        overwrite: Replace other results in the folder.
        on_progress: Called after every picture.
        options: Further fields of `PlotRequest`: seed, nfe, device, data_root, net, sde.

    Returns:
        The summary.

    Raises:
        ValueError: If the folder is not that of a run, its log is empty, or `out` holds other
            results.
        CheckpointError: If the checkpoint is missing or cannot be read.
    """
    request = PlotRequest(str(run / CHECKPOINT), run=run, **options)
    if not is_log(run / LOG):
        raise ValueError(f"RUN {run}: holds no {LOG} of `scoresde train`; name the folder of a run")
    given = StoredModel.read(request.checkpoint, request.net, request.sde)
    rows = Log(run / LOG, given.raw.metadata["steps_done"], 1).rows
    if not any(row["loss"] is not None for row in rows):
        raise ValueError(f"RUN {run}: {LOG} has no line with a loss up to the checkpoint")
    data = _data(given, request)
    sources = {"checkpoint": given.source, "log": _log_source(run)}
    if data is not None:
        sources["data"] = data_source(data)
    settings = {"run": str(run), "data_root": request.data_root}
    results = ResultFolder.open(out, request.origin("plot", sources, **settings), overwrite)
    if results.finished:
        return results.read()
    with results.write([*PICTURES, PAGE, SUMMARY]) as output:
        return _Plot(request, given, data, rows, output).draw(on_progress)


def _data(given: StoredModel, request: PlotRequest) -> Dataset | None:
    """Training data with the conditions that the network takes; None if they are not here."""
    source = given.data_source.below(request.data_root)
    try:
        return load_dataset(source, labels=bool(given.condition), classes=given.spec.class_names)
    except FileNotFoundError as error:
        said = "the pictures that need the data are left out"
        warnings.warn(f"{printable(str(error))}; {said}", stacklevel=3)
        return None


def _log_source(run: Path) -> Source:
    """The log and the grids of samples."""
    files = [run / LOG, *(path for _, path in _grids(run))]
    return Source(LOG, fingerprint([file_fingerprint(path) for path in files]))


def _grids(run: Path) -> list[tuple[int, Path]]:
    """Step and file of each grid of samples."""
    found = ((re.fullmatch(r"samples-(\d{7,})", p.stem), p) for p in run.glob("samples-*.png"))
    return sorted((int(match[1]), path) for match, path in found if match)


@dataclass(frozen=True)
class _Plot:
    """The pictures of one run, which are written to the folder of `output`."""

    request: PlotRequest
    given: StoredModel
    data: Dataset | None
    rows: list[dict[str, Any]]
    output: Output

    def draw(self, on_progress: OnProgress) -> dict[str, Any]:
        """Draw everything and publish it."""
        on_progress(0, 4, "the irreducible loss")
        least = self.least()
        clip = self.given.config.train.clip
        save_curves(self.output.work / "curves.png", self.rows, clip, least)
        on_progress(1, 4, "samples")
        self.samples()
        on_progress(2, 4, "denoising")
        model = self.given.build(self.request.device)
        if self.data is not None and self.given.spec.is_image:
            self.denoising(model)
        on_progress(3, 4, "sampling")
        if can_show(self.given.spec) and (self.data is not None or not self.given.condition):
            self.sampling(model)
        summary = self.summary(least)
        self.page(summary)
        self.output.finish(summary)
        on_progress(4, 4, "")
        return summary

    def least(self) -> LeastLoss | None:
        """The irreducible loss; None where it is not known."""
        found = None if self.data is None else exact_model(self.data, self.given.sde)
        if found is None:
            return None
        objective, t_least = self.given.config.objective, self.given.t_least
        return least_loss(*found, self.data, objective, t_least, self.request.seed)

    def samples(self) -> None:
        """Draw some of the run's grids of samples, the first and the last among them."""
        grids = [grid for grid in _grids(self.request.run) if grid[0] <= self.rows[-1]["step"]]
        if grids:
            chosen = np.unique(np.linspace(0, len(grids) - 1, GRIDS).round().astype(int))
            named = [(f"step {grids[i][0]}", grids[i][1]) for i in chosen]
            side_by_side(self.output.work / "samples.png", named)

    def denoising(self, model: ScoreModel) -> None:
        """Draw images, their noisy versions and the predicted images."""
        data, seed = self.held_out(), self.request.seed
        rows = choose_rows(data, min(STRIP, len(data)), seed)
        noise, device = SampleNoise(seed, range(len(rows))), self.request.device
        x0 = to_points(data.x[rows], data.spec, noise, torch.float32).to(device)
        y = None if data.labels is None else take_rows(data.labels, torch.from_numpy(rows))
        bound = model.labelled(y, len(rows), device)
        eps, noisy, predicted = noise.fresh(x0), [], []
        levels = self.levels()
        with evaluating(bound):
            for node in levels:
                x_t = node.alpha * x0 + node.sigma * eps
                predicted.append(bound.x0(x_t, node))
                noisy.append(x_t / np.hypot(node.alpha, node.sigma))
        ratios = [node.sigma / node.alpha for node in levels]
        pictures = (x.cpu() for x in (x0, torch.stack(noisy), torch.stack(predicted)))
        denoising_strip(self.output.work / "denoising.png", *pictures, ratios, data.spec)

    def held_out(self) -> Dataset:
        """The test split if the data have one, else the training data."""
        source = self.given.data_source.below(self.request.data_root)
        if not has_test_split(source):
            return self.data
        labels, names = bool(self.given.condition), self.given.spec.class_names
        return load_dataset(source, "test", labels=labels, classes=names)

    def levels(self) -> list[Node]:
        """The SDE at the noise levels of the strip that it has and that the network knows."""
        sde = self.given.sde
        times = sde.t_of_lam(-float64(NOISE_LEVELS).log())
        least = max(self.given.t_least, FIRST_TIME)
        times = times[times.isfinite()].clamp(least, 1.0).unique()
        return sde.nodes(times)

    def sampling(self, model: ScoreModel) -> None:
        """Animate sampling by the recommended sampler."""
        spec, request = self.given.spec, self.request
        n = IMAGES if spec.is_image else POINTS
        y = None
        if self.given.condition:
            y = conditions_like(self.data.labels, self.data.spec, n)
            y = map_condition(lambda leaf: leaf.to(request.device), y)
        states: list[tuple[float, Tensor]] = []
        found = sample(
            model,
            shape=(n, *spec.shape),
            nfe=request.nfe,
            seed=request.seed,
            y=y,
            on_step=lambda _, t, x: states.append((t, x.cpu().clone())),
        )
        noisy = [(t, x) for t, x in states if t > 0]  # the last step may end at t = 0
        shown = [(float(found.ts[0]), found.x_init), *noisy, (noisy[-1][0], found.x)]
        nodes = self.given.sde.nodes([t for t, _ in shown])
        frames = [(node, x) for node, (_, x) in zip(nodes, shown, strict=True)]
        save_animation(self.output.work / "sampling.png", frames, spec)

    def summary(self, least: LeastLoss | None) -> dict[str, Any]:
        """The numbers of the last line, and the irreducible loss, as plain data."""
        losses = [row["loss"] for row in self.rows if row["loss"] is not None]
        late = losses[-max(1, len(losses) // 10) :]
        return {
            "run": str(self.request.run),
            "steps": self.rows[-1]["step"],
            "seconds": self.rows[-1]["seconds"],
            "loss": sum(late) / len(late),
            "loss_lines": len(late),
            "irreducible": None
            if least is None
            else {"of": least.of, "loss": least.loss, "std_error": least.std_error},
            "validation": next(
                (row["validation"] for row in reversed(self.rows) if row.get("validation")), None
            ),
            "files": [name for name in PICTURES if (self.output.work / name).exists()],
            "versions": versions(),
        }

    def page(self, summary: dict[str, Any]) -> None:
        """Write the page with all pictures."""
        title = html.escape(printable(f"{self.request.run}: {summary['steps']} steps"))
        parts = [
            f'<figure><img src="{name}" alt=""><figcaption>{PICTURES[name]}</figcaption></figure>'
            for name in summary["files"]
        ]
        with atomic_write(self.output.work / PAGE, "w") as file:
            file.write(TEMPLATE.format(title=title, figures="\n".join(parts)))


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px sans-serif; max-width: 1320px; margin: 2em auto; padding: 0 1em }}
figure {{ margin: 2em 0 }} img {{ max-width: 100% }} figcaption {{ color: #555 }}</style></head>
<body><h1>{title}</h1>
{figures}
</body></html>
"""
