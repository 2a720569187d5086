"""One case of a comparison: samplers on one model, from one noise, in a folder of its own.

`prepare_case` reads and checks everything and plans the cells. `Case.run` then measures the cells
that the folder does not hold yet, and writes the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..distributed import Ranks
from ..fingerprint import file_fingerprint
from ..output.files import write_json
from ..output.manifest import MANIFEST, Origin
from ..output.progress import Tell, check_space
from ..output.result_folder import PARTS, Output, ResultFolder, remove_results
from ..output.shared_work import Share, check_disk
from ..tasks.given import GivenModel
from ..tasks.likelihood.scoring import ScoreRequest, score_data
from ..tasks.request import StoredModel
from .data import BenchData, OwnData, Shared
from .draw import DrawSettings
from .feature_choice import check_suits
from .insights import Insights
from .limit import NO_LIMIT, OutOfTimeError, TimeLimit
from .measure import machine
from .origin import COMMON, LIKELIHOOD, origin_of, part_of
from .plan import Cell
from .records import CellResult, write_tables
from .report import REPORT, build_report, report_files
from .request import BenchRequest
from .reuse import copy_known
from .sweep import Sweep
from .together import Together

__all__ = [
    "STRIPS",
    "TABLES",
    "Case",
    "NothingDoneError",
    "prepare_case",
]

STRIPS = "strips"  # subfolder
TABLES = ("machine.json", "results.csv", "results.json")


class NothingDoneError(RuntimeError):
    """The time limit allowed no cell."""


def prepare_case(
    request: BenchRequest,
    folder: Path,
    given: GivenModel | None = None,
    own: OwnData | None = None,
    *,
    overwrite: bool = False,
    command: str = "bench",
    shared: Shared | None = None,
) -> Case:
    """Read the checkpoint and the data, check everything and plan the cells; write nothing.

    Args:
        request: The request of one case.
        folder: Folder for the results.
        given: The model; None for the checkpoint that the request names.
        own: Data and conditions that replace those of the model.
        overwrite: Replace results of other settings in the folder.
        command: Name of the user's command, for the report.
        shared: Networks, data and metrics of other cases of the same comparison.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        CheckpointError: If the checkpoint cannot be read.
        FileNotFoundError: If the data are absent; the message says how to get them.
        ValueError: If an argument is wrong, no cell can run, or the folder holds results of
            other settings.
    """
    given, shared = given or StoredModel.read(request.model[1]), shared or Shared()
    if request.quality:
        check_suits(request.features, given.decoded_spec)
    check_space("--n", request.n, given.decoded_spec.dims, folder)
    request = request.resolved(given)
    likelihood = request.scoring(given)
    model = shared.network(given, request.device, request.compiled)
    cells = request.plan(given, model)
    data = BenchData.load(request, given, own, shared)
    model.labelled(data.y, request.n, request.device)  # refuses a condition that does not fit
    least = min(request.t_min)
    common = {name: getattr(request, name) for name in COMMON} | {"t_min": least}
    sweep = Sweep(
        model,
        given.source.sha256,
        given.decoded_spec.in_model_scale,
        cells,
        DrawSettings(given.spec.shape, **common, y=data.y, compiled=request.compiled),
        data.quality,
        request.reference_tolerance,
    )
    origin = origin_of(request, given, sweep, data, command)
    results = ResultFolder.open(folder, origin, overwrite)
    if not results.finished:
        given.check_evaluates(model, data.y, request.device)
    return Case(results, given, sweep, data, origin, likelihood)


@dataclass(frozen=True)
class Case:
    """A checked case, ready to run.

    Attributes:
        results: Folder for the results.
        given: The model.
        sweep: The cells to measure.
        data: The data of the comparison.
        whole: Everything that determines the results of the whole plan.
        likelihood: The likelihood to measure as well; None = none.
        strips: Comparisons of a few samples of other checkpoints, shown in the same report.
        share: Names of the cells to measure now; None = all.
        limit: The time at which the work ends.
        reused: Folders of other comparisons, whose cells are used if they are those of this one.
        ranks: The processes that run the command together; rank 0 writes the results.
    """

    results: ResultFolder
    given: GivenModel
    sweep: Sweep
    data: BenchData
    whole: Origin
    likelihood: ScoreRequest | None = None
    strips: tuple[Case, ...] = ()
    share: frozenset[str] | None = None
    limit: TimeLimit = NO_LIMIT
    reused: tuple[Path, ...] = ()
    ranks: Ranks = Ranks()

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
        self.ranks.gather(self.results.finished)
        if path.is_file() and all(case.results.finished for case in (self, *self.strips)):
            return path
        self.measure(tell)
        for strip in self.strips:
            strip.measure(_renamed(tell, strip.sweep.spec.name))
        tell("report", 0, 1, "")
        path = build_report(self.folder)
        tell("report", 1, 1, "")
        return path

    @property
    def report(self) -> Path:
        """Path of the page of this case."""
        return self.folder / REPORT

    @property
    def names(self) -> list[str]:
        """Names of all cells of the plan, the likelihood of test data included."""
        return list(self.whole.cells)

    @property
    def wanted(self) -> list[str]:
        """Names of the cells to measure now, and of those that cannot run."""
        likelihood = [LIKELIHOOD] if self.likelihood is not None and self.wants(LIKELIHOOD) else []
        return [cell.name for cell in self.cells] + likelihood

    def only(self, share: frozenset[str]) -> Case:
        """This case with a share of its cells; cells that cannot run belong to every share.

        Raises:
            ValueError: If the folder holds results of other settings or of another share.
        """
        idle = {cell.name for cell in self.sweep.cells if cell.ts is None}
        origin = part_of(self.whole, share | idle)
        results = ResultFolder.open(self.folder, origin, self.results.overwrite)
        return replace(self, share=share, results=results)

    @property
    def cells(self) -> list[Cell]:
        """The sampler cells to measure now, and those that cannot run, in the order of the plan."""
        return [c for c in self.sweep.cells if c.ts is None or self.wants(c.name)]

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders that may hold finished cells of this case."""
        own = () if self.results.overwrite else (self.folder,)
        return (*own, self.folder / PARTS, *self.reused)

    @cached_property
    def missing(self) -> list[Cell]:
        """Cells of the share that no folder holds yet."""
        cells = [] if self.results.finished else self.cells
        return [cell for cell in cells if self.sweep.stored(cell, self.places) is None]

    @cached_property
    def insights(self) -> Insights:
        """What is measured beside the cells."""
        return Insights(self.sweep, self.given, self.data)

    def wants(self, name: str) -> bool:
        """Whether a cell is to be measured now."""
        return self.share is None or name in self.share

    def measure(self, tell: Tell) -> None:
        """Measure the cells that the folder does not hold yet, and write the tables.

        Raises:
            NothingDoneError: If the time limit allows no cell at all.
        """
        if self.results.finished:
            return
        sweep, folder, overwrite = self.sweep, self.folder, self.results.overwrite
        insights = self.insights
        files, parts = [*sweep.files, *insights.wanted], [*sweep.parts, *insights.wanted]
        with self.results.write([*TABLES, *report_files(), *files], parts) as output:
            # Earlier results may hold cells of this comparison, for example if a sampler is added.
            known = () if overwrite else (folder,)
            copy_known(sweep, self.cells, self.reused, output)
            with self.ranks.stopping_together():
                failed = self._measure_together(tell)
            sweep.compile()
            results = sweep.run(output.work, tell, known, self.cells, self.limit, failed)
            insights.measure(output.work, (output.work, *known), self.limit)
            likelihood = self._likelihood(tell)
            output = self._output(output, results, likelihood)
            about = self._about((output.work, *known), output.origin, likelihood)
            write_json(output.work / "machine.json", machine(sweep.settings.device))
            write_tables(output.work, results, about)
            there = [name for name in parts if (folder / name).is_file()]
            later = report_files({name for result in results for name in result.metrics})
            output.publish(kept=[] if overwrite else there, later=later)
            if self.likelihood is None:
                remove_results(folder / LIKELIHOOD, "likelihood")
            for place in {*folder.glob(f"{STRIPS}/*")} - {strip.folder for strip in self.strips}:
                remove_results(place, "demo")

    def help(self) -> None:
        """Measure some of the cells for rank 0, which calls `run` meanwhile.

        Raises:
            ValueError: If this process does not see the folder of rank 0.
            PeerError: If another process fails.
        """
        if self.ranks.gather()[0]:
            return
        self._measure_together(_silent)
        self._likelihood(_silent)

    def _measure_together(self, tell: Tell) -> dict[str, CellResult]:
        """Measure what is missing on all processes, if there are several.

        Returns:
            The cells that failed, by name.
        """
        ranks, manifest = self.ranks, self.folder / MANIFEST
        if ranks.size == 1:
            return {}
        names = [cell.name for cell in self.missing] if ranks.writes else []
        sha256 = file_fingerprint(manifest) if ranks.writes else ""
        names, sha256 = ranks.gather([names, sha256])[0]
        check_disk(ranks, manifest, sha256)
        if names:
            self.sweep.compile()
        work = self.folder / PARTS
        return Together(self.sweep, work, self.places, ranks, tell, self.limit).measure(names)

    def _likelihood(self, tell: Tell) -> dict[str, Any] | None:
        """The likelihood of test data, if it is asked for now and there is time."""
        if self.likelihood is None or not self.wants(LIKELIHOOD):
            return None
        # Not all processes would see the end of the time in the same batch.
        if self.limit.finite and not self.ranks.writes:
            return None

        def on_progress(*told: Any) -> None:
            self.limit.check()
            tell(LIKELIHOOD, *told)

        try:
            self.limit.check()
            found = score_data(
                self.likelihood,
                self.folder / LIKELIHOOD,
                self.results.overwrite,
                on_progress,
                self.given,
                self.data.scored,
                Share() if self.limit.finite else Share(self.ranks),
            )
        except OutOfTimeError:
            return None
        tell(LIKELIHOOD, self.likelihood.n, self.likelihood.n, "")
        return found

    def _output(
        self, output: Output, results: Sequence[CellResult], likelihood: dict[str, Any] | None
    ) -> Output:
        """The output with the origin of the finished cells, which may be a part of the plan."""
        done = {result.name for result in results} | ({LIKELIHOOD} if likelihood else set())
        if not any(result.status != "skipped" for result in results) and not likelihood:
            raise NothingDoneError(
                "--time-limit: no cell was finished in this time; --plan shows the expected times"
            )
        return replace(output, origin=part_of(self.whole, done))

    def _about(
        self, places: Sequence[Path], origin: Origin, likelihood: dict[str, Any] | None
    ) -> dict[str, Any]:
        """The tables of results.json, apart from its cells."""
        solver = self.sweep.solver
        solution = None if solver is None else solver.find(places)
        about = {
            "settings": origin.plain,
            "reference": None if solution is None else solution.about,
            "strips": [strip.folder.relative_to(self.folder).as_posix() for strip in self.strips],
        }
        if self.sweep.quality is not None:
            about["quality"] = self.sweep.about_quality
        if likelihood is not None:
            about["likelihood"] = likelihood
        return about


def _silent(*_: object) -> None:
    """A `tell` that shows nothing."""


def _renamed(tell: Tell, stage: str) -> Tell:
    """A `tell` that gives every stage the same name."""
    return lambda _, *told: tell(stage, *told)
