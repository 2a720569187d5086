"""From a checkpoint's name to a comparison of samplers: what `scoresde bench` calls."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._tensor import check_number
from ..data import Dataset, has_test_split, load_dataset
from ..fingerprint import fingerprint
from ..grid import snapped, uniform
from ..metrics import PCAFeatures
from ..noise import check_seed
from ..plain import ConfigError, check_unique
from ..registry import parse_grid, parse_sampler
from ..samplers import AdaptiveSDE
from ..study.files import read_json, write_json
from ..study.manifest import Origin, Source
from ..study.plan import Entry, plan_cells
from ..study.quality import Quality
from ..study.records import write_tables
from ..study.report import REPORT, build_report
from ..study.result_folder import ResultFolder, remove_results
from ..study.running import Tell, check_space
from ..study.sweep import QUALITY, Sweep
from .class_labels import LABELS, labels_like, labels_of
from .request import StoredModel, data_source, versions
from .sampling import DEFAULT_T_MIN
from .score_request import check_request, resolved
from .scoring import ScoreRequest, score_data

__all__ = ["TOLERANCES", "Bench", "prepare_bench"]

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)  # cells of an adaptive ODE method
# of the adaptive SDE, whose evaluations grow as tolerance^(−2/3): 1e-5 would take 50,000
SDE_TOLERANCES = (0.2, 0.1, 0.05, 0.02)
LIKELIHOOD, STRIPS = "likelihood", "strips"  # subfolders
LIKELIHOOD_BATCH = 64
TABLES = ("machine.json", "results.csv", "results.json")
SHOWN = (  # settings that are not compared: their contents are, or cells may be added
    *("checkpoint", "sha256", "data", "sde"),
    *("samplers", "grids", "nfe", "tolerances", "versions"),
)


@dataclass(frozen=True)
class Bench:
    """A comparison, checked and ready to run.

    Attributes:
        results: Where results go.
        sweep: The cells to measure.
        likelihood: Which likelihood to measure beside; None = none.
        strips: Comparisons of a few samples of other checkpoints, shown in the same report.
    """

    results: ResultFolder
    sweep: Sweep
    likelihood: ScoreRequest | None = None
    strips: tuple[Bench, ...] = ()

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.results.path

    def run(self, tell: Tell) -> Path:
        """Measure what is not there yet and write the report.

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
        """Measure what is not there yet; write the tables."""
        if self.results.finished:
            return
        sweep, folder, overwrite = self.sweep, self.folder, self.results.overwrite
        with self.results.write([*TABLES, REPORT, *sweep.files], sweep.parts) as output:
            work = output.work
            # Earlier results may hold cells of this comparison, for instance if a sampler is added.
            known = () if overwrite else (folder,)
            results = sweep.run(work, tell, known)
            write_json(work / "machine.json", _machine(sweep.device))
            write_tables(work, results, self._about(work, known, tell))
            output.publish(kept=[] if overwrite else _there(folder, sweep.parts), later=[REPORT])
            if self.likelihood is None:
                remove_results(folder / LIKELIHOOD, "likelihood")
            for place in {*folder.glob(f"{STRIPS}/*")} - {strip.folder for strip in self.strips}:
                remove_results(place, "demo")

    def _about(self, work: Path, known: Sequence[Path], tell: Tell) -> dict[str, Any]:
        """What results.json holds beside the cells."""
        solver = self.sweep.solver
        about = {
            "settings": self.results.origin.plain,
            "reference": None if solver is None else solver.find((work, *known)).about,
            "strips": [strip.folder.relative_to(self.folder).as_posix() for strip in self.strips],
        }
        if self.sweep.quality is not None:
            about["quality"] = read_json(work / QUALITY)
        if self.likelihood is not None:
            about["likelihood"] = score_data(
                self.likelihood,
                self.folder / LIKELIHOOD,
                self.results.overwrite,
                partial(tell, "likelihood"),
            )
            tell("likelihood", self.likelihood.n, self.likelihood.n, "")
        return about


def _there(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def prepare_bench(
    checkpoint: str | Path,
    samplers: Sequence[str],
    grids: Sequence[str],
    budgets: Sequence[int],
    folder: Path,
    *,
    n: int = 256,
    seed: int = 0,
    t_min: float | None = None,
    batch: int = 256,
    device: str = "cpu",
    data_root: str | Path | None = None,
    reference_tolerance: float | None = 1e-6,
    quality: bool = True,
    likelihood: int = 0,
    labels: str = "shares",
    overwrite: bool = False,
    command: str = "bench",
) -> Bench:
    """Check everything, load checkpoint and data, and plan; nothing is written.

    Args:
        checkpoint: A shipped checkpoint's name, or a file.
        samplers: Samplers as `parse_sampler` reads them. An adaptive ODE method runs at each of
            `TOLERANCES`, the adaptive SDE at each of `SDE_TOLERANCES`, all others at each grid
            and budget.
        grids: Grids as `parse_grid` reads them. For a checkpoint with rounded labels they are
            moved to its discrete times, and there is no reference solution.
        budgets: Evaluations per sample, the final denoising included.
        folder: Where results go.
        n: Samples per cell, at least 4.
        seed: Seed of all noise.
        t_min: Last time of the grids; None for 1e-3, or the time of the network's first discrete
            label if that is later.
        batch: Samples at a time.
        device: Where to run.
        data_root: Folder of the data set.
        reference_tolerance: rtol = atol of the reference solution; None = no paired error.
        quality: Measure the distance of the samples to real data.
        likelihood: Number of test data whose likelihood to measure.
        labels: Labels of the samples of a conditional model: "shares" gives the classes the shares
            that they have in the training data, "uniform" gives the same share to every class that
            has training data. Without quality and likelihood no data are loaded, and every class
            has the same share.
        overwrite: Replace results of other settings in the folder.
        command: The command that was given, for the report.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        CheckpointError: If the checkpoint cannot be read.
        FileNotFoundError: If the data are not there; says how to get them.
        ValueError: On a bad argument, if no cell can run, or if the folder holds results of
            other settings.
    """
    for name, value, least in (("n", n, 4), ("batch", batch, 1), ("likelihood", likelihood, 0)):
        check_number(name, value, at_least=least)
    check_seed(seed)
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}, got {labels!r}")
    entries = [_entry(text) for text in samplers]
    check_unique("grid", grids)
    functions = {name: parse_grid(name) for name in grids}
    stored = StoredModel.read(checkpoint)
    config, spec = stored.config, stored.spec
    check_space("--n", n, stored.dims, folder)
    snap, t_min = stored.snapped, _last_time(stored, t_min)
    if snap:
        reference_tolerance = None  # there is no ODE between the ladder's times
    cells = plan_cells(config.sde, entries, functions, budgets, t_min, snap)
    if all(cell.ts is None for cell in cells):
        raise ValueError(f"no cell can run: {cells[0].label}: {cells[0].reason}")
    train, test = _data(stored, data_root) if quality or likelihood else (None, None)
    request = None
    if likelihood:
        _check_test(likelihood, test)
        request = ScoreRequest(
            stored.name,
            data_root=None if data_root is None else str(data_root),
            n=likelihood,
            batch=min(batch, LIKELIHOOD_BATCH),
            seed=seed,
            device=device,
        )
        check_request(resolved(request, stored), stored)
    y = _labels(stored, train, n, labels)
    measures = Quality.build(train, test, n) if quality else None
    common = {"n": n, "seed": seed, "t_min": t_min, "batch": batch, "device": device}
    settings = {
        "checkpoint": stored.name,
        "sha256": stored.source.sha256,
        "data": spec.to_dict(),
        "sde": str(config.sde),
        "samplers": list(samplers),
        "grids": list(grids),
        "nfe": list(budgets),
        "tolerances": {e.label: list(e.tolerances) for e in entries if e.tolerances},
        **common,
        "denoise": True,
        "reference_tolerance": reference_tolerance,
        "quality": quality,
        "likelihood": likelihood,
        "y": None if y is None else fingerprint(y),
        "versions": versions(),
    }
    if snap:
        settings["snapped"] = True
    if y is not None:
        settings["labels"] = "uniform" if train is None else labels
    sources = _sources(stored.source, train, test, measures)
    contents = {cell.name: cell.fingerprint for cell in cells}
    origin = Origin(command, settings, sources, contents, SHOWN)
    results = ResultFolder.open(folder, origin, overwrite)
    model = stored.build(device)
    asked = {"quality": measures, "tolerance": reference_tolerance, "y": y}
    sweep = Sweep(model, stored.source.sha256, spec, cells, **common, **asked)
    return Bench(results, sweep, request)


def _last_time(stored: StoredModel, t_min: float | None) -> float:
    """The time at which all grids end; for rounded labels it is one of the ladder."""
    t_min, sde = stored.last_time(t_min, DEFAULT_T_MIN), stored.config.sde
    if stored.snapped:
        return float(snapped(sde, uniform(sde, 1, t_min))[-1])
    stored.check_first_time(t_min)
    return t_min


def _sources(
    checkpoint: Source, train: Dataset | None, test: Dataset | None, measures: Quality | None
) -> dict[str, Source]:
    """What the numbers are made from."""
    sources = {"checkpoint": checkpoint}
    for what, data in (("training data", train), ("test data", test)):
        if data is not None:
            sources[what] = data_source(data)
    # PCA features follow from the training data.
    if measures is not None and not isinstance(measures.features, PCAFeatures):
        sources["features"] = Source(measures.features.name, measures.features.fingerprint)
    return sources


def _entry(text: str) -> Entry:
    sampler, text = parse_sampler(text), text.strip()
    if not sampler.adaptive:
        return Entry(text, sampler)
    tolerances = SDE_TOLERANCES if isinstance(sampler, AdaptiveSDE) else TOLERANCES
    if "tol=" in text:
        raise ConfigError(
            f"sampler {text!r}: the benchmark runs an adaptive method at rtol = atol = "
            f"{', '.join(f'{tol:g}' for tol in tolerances)}; leave rtol and atol out"
        )
    return Entry(text, sampler, tolerances)


def _data(stored: StoredModel, root: str | Path | None) -> tuple[Dataset, Dataset | None]:
    """Train and test split of the checkpoint's data; no test split where there is none."""
    config, spec = stored.config, stored.spec
    source = replace(config.data, root=config.data.root if root is None else str(root))
    train = load_dataset(source, classes=spec.class_names)
    for name in ("shape", "levels", "low", "high"):
        now, then = getattr(train.spec, name), getattr(spec, name)
        if now != then:
            raise ValueError(f"{train.name} has changed since training: {name} {now}, not {then}")
    if not has_test_split(source):
        return train, None
    return train, load_dataset(source, "test", classes=spec.class_names)


def _check_test(likelihood: int, test: Dataset | None) -> None:
    if test is None:
        raise ValueError(f"--likelihood: {likelihood}, but these data have no test split; use 0")
    check_number("likelihood", likelihood, at_least=2, at_most=len(test))


def _labels(stored: StoredModel, train: Dataset | None, n: int, how: str) -> Tensor | None:
    """Labels for a conditional model; without training data all classes count the same."""
    classes = stored.classes
    if classes is None:
        return None
    if train is None:
        return labels_like(torch.ones(classes), n)
    if train.labels is None:
        raise ValueError(f"{train.name} has no labels, the checkpoint needs them")
    return labels_of(train.labels, classes, n, how)


def _machine(device: str) -> dict[str, Any]:
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def _renamed(tell: Tell, stage: str) -> Tell:
    def renamed(_: str, done: int, total: int | None, note: str) -> None:
        tell(stage, done, total, note)

    return renamed
