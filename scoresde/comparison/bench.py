"""A comparison of samplers on a checkpoint: what `scoresde bench` calls.

`prepare_bench` reads and checks everything and plans the cells. `Bench.run` then measures what the
folder does not hold yet, and writes the report.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_number
from ..data import Dataset, has_test_split, load_dataset
from ..fingerprint import fingerprint
from ..metrics import PCAFeatures
from ..output.files import write_json
from ..output.manifest import Origin, Source
from ..output.progress import Tell, check_space
from ..output.result_folder import ResultFolder, remove_results
from ..tasks.class_labels import labels_in_turn, labels_of
from ..tasks.likelihood.request import check_request, resolved
from ..tasks.likelihood.scoring import ScoreRequest, score_data
from ..tasks.request import StoredModel, data_source, versions
from .draw import DrawSettings
from .plan import Cell
from .quality import Quality
from .records import write_tables
from .report import REPORT, build_report
from .request import BenchRequest
from .sweep import Sweep

__all__ = ["STRIPS", "Bench", "prepare_bench"]

LIKELIHOOD, STRIPS = "likelihood", "strips"  # subfolders
LIKELIHOOD_BATCH = 64
COMMON = ("n", "seed", "t_min", "batch", "device")  # settings of all draws
MEASURES = ("reference_tolerance", "quality", "likelihood")
TABLES = ("machine.json", "results.csv", "results.json")
SHOWN = (  # settings that may differ: their contents are compared instead, or cells may be added
    *("checkpoint", "sha256", "data", "sde"),
    *("samplers", "grids", "nfe", "tolerances", "versions"),
)


def prepare_bench(
    request: BenchRequest, folder: Path, *, overwrite: bool = False, command: str = "bench"
) -> Bench:
    """Read the checkpoint and the data, check everything and plan the cells; write nothing.

    Args:
        request: What to compare.
        folder: Folder for the results.
        overwrite: Replace results of other settings in the folder.
        command: Name of the user's command, for the report.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        CheckpointError: If the checkpoint cannot be read.
        FileNotFoundError: If the data are not there; says how to get them.
        ValueError: If an argument is wrong, no cell can run, or the folder holds results of
            other settings.
    """
    stored = StoredModel.read(request.checkpoint)
    check_space("--n", request.n, stored.spec.dims, folder)
    request = request.resolved(stored)
    cells = request.plan(stored)
    train, test = _data(request, stored)
    likelihood = _likelihood(request, stored, test)
    y = _labels(request, stored, train)
    quality = Quality.build(train, test, request.n) if request.quality else None
    settings = _settings(request, stored, cells, y, labelled_by_data=train is not None)
    sources = _sources(stored, train, test, quality)
    contents = {cell.name: cell.fingerprint for cell in cells}
    origin = Origin(command, settings, sources, contents, SHOWN)
    results = ResultFolder.open(folder, origin, overwrite)
    common = {name: getattr(request, name) for name in COMMON}
    sweep = Sweep(
        stored.build(request.device),
        stored.source.sha256,
        stored.spec,
        cells,
        DrawSettings(stored.spec.shape, **common, y=y),
        quality,
        request.reference_tolerance,
    )
    return Bench(results, stored, sweep, likelihood)


@dataclass(frozen=True)
class Bench:
    """A comparison that has been checked and can run.

    Attributes:
        results: Folder for the results.
        stored: The checkpoint.
        sweep: The cells to measure.
        likelihood: The likelihood to measure as well; None = none.
        strips: Comparisons of a few samples of other checkpoints, shown in the same report.
    """

    results: ResultFolder
    stored: StoredModel
    sweep: Sweep
    likelihood: ScoreRequest | None = None
    strips: tuple[Bench, ...] = ()

    @property
    def folder(self) -> Path:
        """Path of the folder for the results."""
        return self.results.path

    def run(self, tell: Tell) -> Path:
        """Measure what the folder does not hold yet, and write the report.

        Args:
            tell: Called with (stage, done, total, note) as the work goes on.

        Returns:
            The path of report.html.
        """
        path = self.folder / REPORT
        if path.is_file() and all(bench.results.finished for bench in (self, *self.strips)):
            return path
        self.measure(tell)
        for strip in self.strips:
            strip.measure(_renamed(tell, strip.sweep.spec.name))
        tell("report", 0, 1, "")
        path = build_report(self.folder)
        tell("report", 1, 1, "")
        return path

    def measure(self, tell: Tell) -> None:
        """Measure what the folder does not hold yet, and write the tables."""
        if self.results.finished:
            return
        sweep, folder, overwrite = self.sweep, self.folder, self.results.overwrite
        with self.results.write([*TABLES, REPORT, *sweep.files], sweep.parts) as output:
            work = output.work
            # Earlier results may hold cells of this comparison, for example if a sampler is added.
            known = () if overwrite else (folder,)
            results = sweep.run(work, tell, known)
            write_json(work / "machine.json", _machine(sweep.settings.device))
            write_tables(work, results, self._about((work, *known), tell))
            there = [name for name in sweep.parts if (folder / name).is_file()]
            output.publish(kept=[] if overwrite else there, later=[REPORT])
            if self.likelihood is None:
                remove_results(folder / LIKELIHOOD, "likelihood")
            for place in {*folder.glob(f"{STRIPS}/*")} - {strip.folder for strip in self.strips}:
                remove_results(place, "demo")

    def _about(self, places: Sequence[Path], tell: Tell) -> dict[str, Any]:
        """The tables of results.json, apart from its cells."""
        solver = self.sweep.solver
        about = {
            "settings": self.results.origin.plain,
            "reference": None if solver is None else solver.find(places).about,
            "strips": [strip.folder.relative_to(self.folder).as_posix() for strip in self.strips],
        }
        if self.sweep.quality is not None:
            about["quality"] = self.sweep.about_quality
        if self.likelihood is not None:
            about["likelihood"] = score_data(
                self.likelihood,
                self.folder / LIKELIHOOD,
                self.results.overwrite,
                partial(tell, "likelihood"),
                self.stored,
            )
            tell("likelihood", self.likelihood.n, self.likelihood.n, "")
        return about


def _data(request: BenchRequest, stored: StoredModel) -> tuple[Dataset | None, Dataset | None]:
    """Train and test split of the checkpoint's data; None if not needed, or if there is none."""
    if not (request.quality or request.likelihood):
        return None, None
    source, spec = stored.config.data.below(request.data_root), stored.spec
    train = load_dataset(source, classes=spec.class_names)
    for name in ("shape", "levels", "low", "high"):
        now, then = getattr(train.spec, name), getattr(spec, name)
        if now != then:
            raise ValueError(f"{train.name} has changed since training: {name} {now}, not {then}")
    if not has_test_split(source):
        return train, None
    return train, load_dataset(source, "test", classes=spec.class_names)


def _likelihood(
    request: BenchRequest, stored: StoredModel, test: Dataset | None
) -> ScoreRequest | None:
    """The request of the likelihood that is measured as well; None if none is asked for."""
    n = request.likelihood
    if not n:
        return None
    if test is None:
        raise ValueError(f"--likelihood: {n}, but these data have no test split; use 0")
    check_number("likelihood", n, at_least=2, at_most=len(test))
    asked = ScoreRequest(
        stored.name,
        data_root=None if request.data_root is None else str(request.data_root),
        n=n,
        batch=min(request.batch, LIKELIHOOD_BATCH),
        seed=request.seed,
        device=request.device,
    )
    check_request(resolved(asked, stored), stored)
    return asked


def _labels(request: BenchRequest, stored: StoredModel, train: Dataset | None) -> Tensor | None:
    """Labels for a conditional model; without training data all classes have the same share."""
    classes = stored.classes
    if classes is None:
        return None
    if train is None:
        return labels_in_turn(classes, request.n)
    if train.labels is None:
        raise ValueError(f"{train.name} has no labels, the checkpoint needs them")
    return labels_of(train.labels, classes, request.n, request.labels)


def _settings(
    request: BenchRequest,
    stored: StoredModel,
    cells: Sequence[Cell],
    y: Tensor | None,
    labelled_by_data: bool,
) -> dict[str, Any]:
    """The settings that define the results, as the folder's manifest stores them."""
    tolerances: dict[str, list[float]] = {}
    for cell in cells:
        if cell.tolerance is not None:
            tolerances.setdefault(cell.label, []).append(cell.tolerance)
    settings = {
        "checkpoint": stored.name,
        "sha256": stored.source.sha256,
        "data": stored.spec.to_dict(),
        "sde": str(stored.config.sde),
        **{name: list(getattr(request, name)) for name in ("samplers", "grids", "nfe")},
        "tolerances": tolerances,
        **{name: getattr(request, name) for name in COMMON},
        "denoise": True,
        **{name: getattr(request, name) for name in MEASURES},
        "y": None if y is None else fingerprint(y),
        "versions": versions(),
    }
    if stored.snapped:
        settings["snapped"] = True
    if y is not None:
        settings["labels"] = request.labels if labelled_by_data else "uniform"
    return settings


def _sources(
    stored: StoredModel, train: Dataset | None, test: Dataset | None, quality: Quality | None
) -> dict[str, Source]:
    """Name and content of everything that the numbers are computed from."""
    sources = {"checkpoint": stored.source}
    for what, data in (("training data", train), ("test data", test)):
        if data is not None:
            sources[what] = data_source(data)
    # PCA features are computed from the training data, and need no source of their own.
    if quality is not None and not isinstance(quality.features, PCAFeatures):
        sources["features"] = Source(quality.features.name, quality.features.fingerprint)
    return sources


def _machine(device: str) -> dict[str, Any]:
    """The machine and Python, on which times depend."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _renamed(tell: Tell, stage: str) -> Tell:
    """A `tell` that gives every stage the same name."""
    return lambda _, *told: tell(stage, *told)
