"""A comparison of samplers for `scoresde bench`: any number of models, seeds and label shares.

`prepare_bench` reads and checks everything and plans the cells of all cases. `Bench.run` then
measures the cells that the folder does not hold yet, and writes tables and reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..distributed import Ranks
from ..fingerprint import fingerprint
from ..output.manifest import MANIFEST
from ..output.progress import Tell
from ..output.shared_work import settings_of
from ..tasks.given import GivenModel
from ..tasks.guided import under_guidance
from ..tasks.request import StoredModel, versions
from .case import Case, NothingDoneError, prepare_case
from .data import OwnData, Shared, check_spec
from .findings import Findings
from .index import Index
from .limit import TimeLimit
from .origin import LIKELIHOOD
from .request import BenchRequest
from .shards import share_out

__all__ = ["Bench", "BenchModel", "Portion", "prepare_bench"]


class BenchModel(NamedTuple):
    """A model of a comparison.

    Attributes:
        given: The model as it was given.
        own: Data and conditions that replace those of the model.
        changes: Fields of the request that are others for this model, by name.
    """

    given: GivenModel
    own: OwnData = OwnData()
    changes: Mapping[str, Any] = {}

    def asked(self, request: BenchRequest) -> BenchRequest:
        """The request for this model.

        Samples of a model whose data are not known are compared with the exact solution only.
        """
        known = self.own.train is not None or self.given.data_source is not None
        return replace(request, **{"quality": request.quality and known, **self.changes})


@dataclass(frozen=True)
class Portion:
    """What one call does of a comparison; the default is all that is missing.

    Attributes:
        shard: (i, n) for the i-th of n shares of the cells, i = 1 … n; None for all.
        seconds: Time limit in seconds; None for none.
        reuse: Folders of other comparisons; cells with the same fingerprint are copied.
        ranks: The processes that run the command together.

    Raises:
        ValueError: If a number is out of range, or a folder holds no results.
    """

    shard: tuple[int, int] | None = None
    seconds: float | None = None
    reuse: Sequence[Path] = ()
    ranks: Ranks = Ranks()

    def __post_init__(self) -> None:
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(
                f"shard must be i/n with i from 1 to n, got {self.shard[0]}/{self.shard[1]}"
            )
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"time_limit must be greater than 0 seconds, got {self.seconds}")
        for folder in self.reuse:
            if not (folder / MANIFEST).is_file():
                raise ValueError(f"reuse: {folder} holds no results of scoresde")

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders to copy from, with the folders of their cases."""
        below = (case.parent for folder in self.reuse for case in folder.glob(f"*/{MANIFEST}"))
        return (*self.reuse, *below)


def prepare_bench(
    request: BenchRequest,
    folder: Path,
    models: Mapping[str, BenchModel] | None = None,
    *,
    overwrite: bool = False,
    portion: Portion | None = None,
) -> Bench:
    """Read checkpoints and data, check everything and plan all cells; write nothing.

    Args:
        request: The request.
        folder: Folder for the results; each of several cases has a subfolder.
        models: The models by the names in the request; None for the checkpoints it names.
        overwrite: Replace results of other settings in the folder.
        portion: What to do in this call; None for all.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        CheckpointError: If a checkpoint cannot be read.
        FileNotFoundError: If data are absent; the message says how to get them.
        ValueError: If an argument is wrong, no cell can run, the share has no cell, the folder
            holds results of other settings, or the processes were started differently.
        PeerError: If another process fails.
    """
    portion, shared, cases = portion or Portion(), Shared(), {}
    limit = TimeLimit.of(portion.seconds)
    if models is None:
        named = request.checkpoint.items()
        models = {name: BenchModel(StoredModel.read(model)) for name, model in named}
    for model in models.values():  # before the metrics of other models are made
        if model.own.train is not None:
            check_spec(model.given, model.own.train, in_memory=True)
    guided = {
        (name, text): model._replace(given=under_guidance(model.given, text))
        for name, model in models.items()
        for text in request.guidance or (None,)
    }
    for name, asked in request.cases.items():
        model = guided[asked.model[0], asked.guide]
        place = folder / name if name else folder
        asked, with_own = model.asked(asked), (model.given, model.own)
        case = prepare_case(asked, place, *with_own, overwrite=overwrite, shared=shared)
        sweep = replace(case.sweep, processes=portion.ranks.size)
        changes = {"sweep": sweep, "reused": portion.places, "limit": limit}
        cases[name] = replace(case, **changes, ranks=portion.ranks)
    index = None if "" in cases else Index.open(folder, request, cases, overwrite)
    if portion.shard is not None:
        shares = share_out(cases, *portion.shard)
        cases = {name: cases[name].only(share) for name, share in shares.items()}
    portion.ranks.agree(_settings(cases, portion, overwrite))
    return Bench(folder, cases, index, portion.ranks)


def _settings(cases: Mapping[str, Case], portion: Portion, overwrite: bool) -> dict[str, Any]:
    """What must be the same in all processes, by the names that messages use."""
    found = {**versions(), "--overwrite": overwrite, "--shard": portion.shard}
    found |= {"--time-limit": portion.seconds, "--reuse": list(map(str, portion.reuse))}
    for name, case in cases.items():
        whole, start = case.whole, f"{name}: " if name else ""
        asked = {key: whole.plain[key] for key in ("samplers", "grids", "nfe")}
        found |= {start + key: value for key, value in {**asked, **settings_of(whole)}.items()}
        found[f"{start}the plan"] = fingerprint(whole.cells)
    return found


@dataclass(frozen=True)
class Bench:
    """A checked comparison, ready to run.

    Attributes:
        folder: Folder for the results.
        cases: The cases by name; the only one of a comparison has the name "".
        index: The folder of several cases; None for one.
        ranks: The processes that run the command together.
    """

    folder: Path
    cases: dict[str, Case]
    index: Index | None = None
    ranks: Ranks = Ranks()

    @property
    def finished(self) -> bool:
        """Whether the folder holds all results of this call already."""
        return all(case.results.finished for case in self.cases.values())

    def run(self, tell: Tell) -> Path:
        """Measure the cells that the folder does not hold yet, and write tables and reports.

        Args:
            tell: Called with (stage, done, total, note) during the work.

        Returns:
            The path of report.html, or for several cases of index.html.

        Raises:
            NothingDoneError: If the time limit allows no cell at all.
            PeerError: If another process fails.
        """
        if not self.ranks.writes:
            for case in self.cases.values():
                case.help()
            return self.cases[""].report if self.index is None else self.index.page
        if self.index is None:
            return self.cases[""].run(tell)
        with self.index.write() as output:
            found = {}
            for name, case in self.cases.items():
                try:
                    report = case.run(_staged(tell, name))
                except NothingDoneError:
                    continue
                found[name] = report, Findings.read(case.folder)
            if not found:
                raise NothingDoneError(
                    "--time-limit: no cell was finished in this time; --plan shows the expected "
                    "times"
                )
            self.index.publish(output, found)
        return self.index.page

    @property
    def findings(self) -> dict[str, Findings]:
        """The results of each case that has some, by name."""
        there = {n: c for n, c in self.cases.items() if (c.folder / MANIFEST).is_file()}
        return {name: Findings.read(case.folder) for name, case in there.items()}

    @property
    def left(self) -> int:
        """Number of cells that this call was to measure and that the folder does not hold."""
        done = {(name, cell) for name, f in self.findings.items() for cell in _cells_of(f)}
        wanted = {(name, cell) for name, case in self.cases.items() for cell in case.wanted}
        return len(wanted - done)


def _cells_of(findings: Findings) -> list[str]:
    """Names of all finished cells."""
    likelihood = [] if findings.likelihood is None else [LIKELIHOOD]
    return [result.name for result in findings.results] + likelihood


def _staged(tell: Tell, name: str) -> Tell:
    """A `tell` whose stages begin with the name of the case."""
    return lambda stage, *told: tell(f"{name}: {stage}", *told)
