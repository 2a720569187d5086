"""A comparison of samplers on a model, for `scoresde bench`.

`prepare_bench` reads and checks everything and plans the cells. `Bench.run` then measures the cells
that the folder does not hold yet, and writes the report.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..fingerprint import fingerprint
from ..output.files import write_json
from ..output.manifest import Origin
from ..output.progress import Tell, check_space
from ..output.result_folder import ResultFolder, remove_results
from ..tasks.given import GivenModel
from ..tasks.likelihood.scoring import ScoreRequest, score_data
from ..tasks.request import StoredModel, versions
from .data import BenchData, OwnData
from .draw import DrawSettings
from .records import write_tables
from .report import REPORT, build_report
from .request import BenchRequest
from .sweep import Sweep

__all__ = ["STRIPS", "Bench", "prepare_bench"]

LIKELIHOOD, STRIPS = "likelihood", "strips"  # subfolders
COMMON = ("n", "seed", "t_min", "batch", "device")  # settings of all draws
MEASURES = ("reference_tolerance", "quality", "likelihood")
TABLES = ("machine.json", "results.csv", "results.json")
SHOWN_SETTINGS = (  # settings that may differ: contents are compared instead, or cells are added
    *("checkpoint", "sha256", "data", "sde"),
    *("samplers", "grids", "nfe", "tolerances", "versions"),
)


def prepare_bench(
    request: BenchRequest,
    folder: Path,
    given: GivenModel | None = None,
    own: OwnData | None = None,
    *,
    overwrite: bool = False,
    command: str = "bench",
) -> Bench:
    """Read the checkpoint and the data, check everything and plan the cells; write nothing.

    Args:
        request: The request.
        folder: Folder for the results.
        given: The model; None for the checkpoint that the request names.
        own: Data and conditions that replace those of the model.
        overwrite: Replace results of other settings in the folder.
        command: Name of the user's command, for the report.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        CheckpointError: If the checkpoint cannot be read.
        FileNotFoundError: If the data are absent; the message says how to get them.
        ValueError: If an argument is wrong, no cell can run, or the folder holds results of
            other settings.
    """
    given = given or StoredModel.read(request.checkpoint)
    check_space("--n", request.n, given.spec.dims, folder)
    request = request.resolved(given)
    likelihood = request.scoring(given)
    model = given.build(request.device)
    cells = request.plan(given, model)
    data = BenchData.load(request, given, own)
    model.labelled(data.y, request.n, request.device)  # refuses a condition that does not fit
    common = {name: getattr(request, name) for name in COMMON}
    sweep = Sweep(
        model,
        given.source.sha256,
        given.spec,
        cells,
        DrawSettings(given.spec.shape, **common, y=data.y),
        data.quality,
        request.reference_tolerance,
    )
    origin = _origin(request, given, sweep, data, command)
    results = ResultFolder.open(folder, origin, overwrite)
    if not results.finished:
        given.check_evaluates(model, data.y, request.device)
    return Bench(results, given, sweep, data, likelihood)


@dataclass(frozen=True)
class Bench:
    """A checked comparison, ready to run.

    Attributes:
        results: Folder for the results.
        given: The model.
        sweep: The cells to measure.
        data: The data of the comparison.
        likelihood: The likelihood to measure as well; None = none.
        strips: Comparisons of a few samples of other checkpoints, shown in the same report.
    """

    results: ResultFolder
    given: GivenModel
    sweep: Sweep
    data: BenchData
    likelihood: ScoreRequest | None = None
    strips: tuple[Bench, ...] = ()

    @property
    def folder(self) -> Path:
        """Path of the folder for the results."""
        return self.results.path

    def run(self, tell: Tell) -> Path:
        """Measure the cells that the folder does not hold yet, and write the report.

        Args:
            tell: Called with (stage, done, total, note) during the work.

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
        """Measure the cells that the folder does not hold yet, and write the tables."""
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
                self.given,
                self.data.scored,
            )
            tell("likelihood", self.likelihood.n, self.likelihood.n, "")
        return about


def _origin(
    request: BenchRequest, given: GivenModel, sweep: Sweep, data: BenchData, command: str
) -> Origin:
    """Everything that determines the results: settings, contents of all files, and the cells."""
    tolerances: dict[str, list[float]] = {}
    for cell in sweep.cells:
        if cell.tolerance is not None:
            tolerances.setdefault(cell.label, []).append(cell.tolerance)
    settings = {
        "checkpoint": given.name,
        "sha256": given.source.sha256,
        "data": given.spec.to_dict(),
        "sde": str(given.sde),
        **{name: list(getattr(request, name)) for name in ("samplers", "grids", "nfe")},
        "tolerances": tolerances,
        **{name: getattr(request, name) for name in COMMON},
        "denoise": True,
        **{name: getattr(request, name) for name in MEASURES},
        "y": None if data.y is None else fingerprint(data.y),
        "versions": versions(),
    }
    optional = {
        "snapped": given.snapped or None,
        "labels": data.how,
        "reference_t": sweep.end if sweep.end < request.t_min else None,
        "in_memory": given.kind == "model" or None,
    }
    settings |= {name: value for name, value in optional.items() if value is not None}
    sources = {given.kind: given.source, **data.sources}
    contents = {cell.name: cell.fingerprint for cell in sweep.cells}
    return Origin(command, settings, sources, contents, SHOWN_SETTINGS)


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
