"""`scoresde plot`: pictures of a training run, in a folder.

- curves.png: loss, error by noise level, gradient norm, learning rate, validation
- samples.png: the grids of samples of the run, over its steps
- denoising.png: x_0, x_t and the predicted x_0 at eight noise levels
- sampling.png: an animated PNG of sampling
- ema-1.png, …: results of `scoresde ema` that are in a subfolder of the run, or given
- plots.html: a page with all of them
- scoresde.tfevents.*: all of it for TensorBoard, if it is asked for
- summary.json: the numbers of the last line, and the irreducible loss
"""

from __future__ import annotations

import html
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._files import atomic_write
from .._text import printable
from ..data import Dataset, load_dataset
from ..data.catalog import has_test_split
from ..fingerprint import file_fingerprint, fingerprint
from ..output.manifest import Origin, Source
from ..output.pictures import side_by_side
from ..output.progress import OnProgress, silent
from ..output.result_folder import SUMMARY, Output, ResultFolder
from ..output.tensorboard import EVENTS, EventFile, check_tensorboard
from ..output.tiles import can_show, in_tiles
from ..output.training_curves import LeastLoss, save_curves
from .model_pictures import draw_denoising, draw_sampling
from .request import Request, StoredModel, data_source, versions
from .sweeps import Sweep, find_sweeps
from .train.events import add_run
from .train.files import CHECKPOINT, LOG, sample_grids
from .train.history import Log, is_log
from .train.irreducible import exact_model, least_loss

__all__ = ["PlotRequest", "plot_run"]

# Every picture with the text below it on the page.
PICTURES = {
    "curves.png": "Loss and error by noise level, gradient norm and learning rate, validation",
    "samples.png": "Samples of the averaged weights during the training, from the same noise",
    "denoising.png": "Data, noisy data and the prediction of the network",
    "sampling.png": "Sampling from noise to data (animated)",
}
PAGE = "plots.html"
GRIDS = 6  # grids of samples in one picture


@dataclass(frozen=True)
class PlotRequest(Request):
    """The run and how its pictures are drawn.

    Args:
        run: Folder of the run; `checkpoint` is the file in it.
        nfe: Evaluations of the animated sampling.
        data_root: Folder of the data set, instead of that in the config.
        ema: Folders with results of `scoresde ema`, besides those in subfolders of the run.
        tensorboard: Write an event file for TensorBoard as well.
    """

    run: Path = Path()
    nfe: int = 32
    data_root: str | None = None
    ema: tuple[Path, ...] = ()
    tensorboard: bool = False

    places: ClassVar[tuple[str, ...]] = (*Request.places, "run", "data_root", "ema")


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
        options: Further fields of `PlotRequest`: seed, nfe, device, data_root, ema, tensorboard,
            net, sde.

    Returns:
        The summary.

    Raises:
        ValueError: If the folder is not that of a run, its log is empty, `out` holds other results,
            a folder of `ema` holds no results for this run, or TensorBoard is not installed.
        CheckpointError: If the checkpoint is missing or cannot be read.
    """
    request = PlotRequest(str(run / CHECKPOINT), run=run, **options)
    if request.tensorboard:
        check_tensorboard()
    if not is_log(run / LOG):
        raise ValueError(f"RUN {run}: holds no {LOG} of `scoresde train`; name the folder of a run")
    given = StoredModel.read(request.checkpoint, request.net, request.sde)
    rows = Log(run / LOG, given.raw.metadata["steps_done"], 1).rows
    if not any(row["loss"] is not None for row in rows):
        raise ValueError(f"RUN {run}: {LOG} has no line with a loss up to the checkpoint")
    sweeps = find_sweeps(run, request.ema, given.source.sha256)
    data = _data(given, request)
    sources = {"checkpoint": given.source, "log": _log_source(run)}
    if data is not None:
        sources["data"] = data_source(data)
    if sweeps:
        digests = [file_fingerprint(sweep.picture) for sweep in sweeps]
        sources["results of ema"] = Source("ema", fingerprint(digests))
    results = ResultFolder.open(out, _origin(request, sources), overwrite)
    if results.finished:
        return results.read()
    plot = _Plot(request, given, data, rows, sweeps)
    with results.write([*plot.captions, plot.events, PAGE, SUMMARY]) as output:
        return plot.draw(output, on_progress)


def _origin(request: PlotRequest, sources: dict[str, Source]) -> Origin:
    """The origin; results from before an option existed stay those of a request without it."""
    places = {"run": str(request.run), "ema": [str(path) for path in request.ema] or None}
    return request.origin("plot", sources, **places, tensorboard=request.tensorboard or None)


def _data(given: StoredModel, request: PlotRequest) -> Dataset | None:
    """Training data with the conditions that the network takes; None if they are not here."""
    source = given.data_source.below(request.data_root)
    try:
        labels, spec = bool(given.condition), given.decoded_spec
        return load_dataset(source, labels=labels, classes=spec.class_names).in_units_of(spec)
    except FileNotFoundError as error:
        said = "the pictures that need the data are left out"
        warnings.warn(f"{printable(str(error))}; {said}", stacklevel=3)
        return None


def _log_source(run: Path) -> Source:
    """The log and the grids of samples."""
    files = [run / LOG, *(path for _, path in sample_grids(run))]
    return Source(LOG, fingerprint([file_fingerprint(path) for path in files]))


@dataclass(frozen=True)
class _Plot:
    """The pictures of one run."""

    request: PlotRequest
    given: StoredModel
    data: Dataset | None
    rows: list[dict[str, Any]]
    sweeps: list[Sweep]

    @property
    def captions(self) -> dict[str, str]:
        """Every picture with the text below it on the page."""
        found = {f"ema-{i}.png": sweep.caption for i, sweep in enumerate(self.sweeps, 1)}
        return PICTURES | found

    @property
    def log(self) -> Path:
        """The log of the run."""
        return self.request.run / LOG

    @property
    def events(self) -> str:
        """Name of the event file: a later log has a later name."""
        return f"{EVENTS}{self.log.stat().st_mtime_ns // 1_000_000}"

    def draw(self, output: Output, on_progress: OnProgress) -> dict[str, Any]:
        """Draw everything and publish it."""
        folder, request, given = output.work, self.request, self.given
        on_progress(0, 4, "the irreducible loss")
        least = self.least()
        save_curves(folder / "curves.png", self.rows, given.config.train.clip, least)
        for i, sweep in enumerate(self.sweeps, 1):
            shutil.copyfile(sweep.picture, folder / f"ema-{i}.png")
        on_progress(1, 4, "samples")
        self.samples(folder / "samples.png")
        on_progress(2, 4, "denoising")
        model, rest = given.build(request.device), (request.seed, request.device)
        of_data = not given.of_latents  # noise on latents has no picture
        if self.data is not None and in_tiles(given.spec) and of_data:
            path = folder / "denoising.png"
            draw_denoising(path, model, self.held_out(), given.t_least, *rest)
        on_progress(3, 4, "sampling")
        known = self.data is not None or not given.condition
        if can_show(given.spec) and known and of_data:
            path = folder / "sampling.png"
            draw_sampling(path, model, given, self.data, request.nfe, *rest)
        summary = self.summary(folder, least)
        self.page(folder / PAGE, summary)
        if request.tensorboard:
            self.write_events(folder, summary)
        output.finish(summary)
        on_progress(4, 4, "")
        return summary

    def least(self) -> LeastLoss | None:
        """The irreducible loss; None where it is not known."""
        given = self.given
        if self.data is None or given.of_latents or given.distilled is not None:
            return None  # latents are not the data; a student has another loss
        found = exact_model(self.data, given.sde)
        if found is None:
            return None
        objective, t_least = self.given.config.objective, self.given.t_least
        rest = self.request.seed, self.given.t_most
        return least_loss(*found, self.data, objective, t_least, *rest)

    def samples(self, path: Path) -> None:
        """Draw some of the run's grids of samples, the first and the last among them."""
        grids = [
            grid for grid in sample_grids(self.request.run) if grid[0] <= self.rows[-1]["step"]
        ]
        if grids:
            chosen = np.unique(np.linspace(0, len(grids) - 1, GRIDS).round().astype(int))
            named = [(f"step {grids[i][0]}", grids[i][1]) for i in chosen]
            side_by_side(path, named)

    def held_out(self) -> Dataset:
        """The test split if the data have one, else the training data."""
        source = self.given.data_source.below(self.request.data_root)
        if not has_test_split(source):
            return self.data
        labels, names = bool(self.given.condition), self.given.spec.class_names
        found = load_dataset(source, "test", labels=labels, classes=names)
        return found.in_units_of(self.given.spec)

    def summary(self, folder: Path, least: LeastLoss | None) -> dict[str, Any]:
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
            "best": self.best(),
            "files": [name for name in self.captions if (folder / name).exists()],
            "versions": versions(),
        }

    def best(self) -> dict[str, Any] | None:
        """Step and value of the smallest held-out loss; None without one."""
        checked = [
            row for row in self.rows if (row.get("validation") or {}).get("loss") is not None
        ]
        if not checked:
            return None
        row = min(checked, key=lambda row: row["validation"]["loss"])
        return {"step": row["step"], "loss": row["validation"]["loss"]}

    def write_events(self, folder: Path, summary: dict[str, Any]) -> None:
        """Write the log, the irreducible loss and all pictures as an event file."""
        whole = Log(self.log, sys.maxsize, 1).rows
        began = self.log.stat().st_mtime - whole[-1]["seconds"]
        first, last = self.rows[0], self.rows[-1]
        with EventFile(folder / self.events) as events:
            add_run(events, self.request.run, self.rows, began)
            if summary["irreducible"] is not None:
                for row in (first, last):
                    value = {"loss/irreducible": summary["irreducible"]["loss"]}
                    events.numbers(row["step"], began + row["seconds"], value)
            for name in summary["files"]:
                if name not in ("curves.png", "samples.png"):  # they are there in parts
                    tag, at = f"pictures/{name.removesuffix('.png')}", began + last["seconds"]
                    events.picture(last["step"], at, tag, folder / name)

    def page(self, path: Path, summary: dict[str, Any]) -> None:
        """Write the page with all pictures."""
        title = html.escape(printable(f"{self.request.run}: {summary['steps']} steps"))
        captions = {name: html.escape(text) for name, text in self.captions.items()}
        parts = [
            f'<figure><img src="{name}" alt=""><figcaption>{captions[name]}</figcaption></figure>'
            for name in summary["files"]
        ]
        with atomic_write(path, "w") as file:
            file.write(TEMPLATE.format(title=title, figures="\n".join(parts)))


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 16px sans-serif; max-width: 1320px; margin: 2em auto; padding: 0 1em }}
figure {{ margin: 2em 0 }} img {{ max-width: 100% }} figcaption {{ color: #555 }}</style></head>
<body><h1>{title}</h1>
{figures}
</body></html>
"""
