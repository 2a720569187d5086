"""`scoresde.bench`: what the command `scoresde bench` does, for any score model in Python."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._condition import Condition
from .._tensor import available_device, plain_number
from ..output.bars import stage_bars
from ..output.progress import Tell
from ..scaling import scale_warning
from ..tasks.given import GivenModel
from ..tasks.live import device_of, given_model, known_spec, name_of
from ..tasks.own_data import both_splits
from .data import OwnData
from .findings import Findings
from .index import Index
from .prepare import Bench, prepare_bench
from .records import table_row
from .request import BenchRequest
from .summary import sentences, text_table

__all__ = ["Comparison", "bench"]

USUAL_SAMPLERS = ("ddim", "dpmpp-2m", "unipc", "heun", "ancestral", "euler-maruyama")


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder: Folder of all files.
        report: The page to open in a browser: report.html, or for several models index.html.
        rows: One dict per cell, with the columns of results.csv; numbers are numbers, and what was
            not measured is None. For several models "model" comes first.
        summary: The results in sentences.
        models: The comparison of each model, by its name; empty for a single model.
    """

    folder: Path
    report: Path
    rows: list[dict[str, Any]]
    summary: str
    models: dict[str, Comparison] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.models:
            return "\n\n".join(f"{name}\n{each}" for name, each in self.models.items())
        return text_table(Findings.read(self.folder))


def bench(
    model: Any,
    samplers: Any = USUAL_SAMPLERS,
    nfe: int | Sequence[int] = (5, 10, 20, 50),
    *,
    out: str | Path,
    data: Any = None,
    test: Any = None,
    shape: Sequence[int] | None = None,
    y: Condition | None = None,
    grids: Any = ("log_snr",),
    n: int = 256,
    seed: int = 0,
    t_min: float | None = None,
    batch: int = 256,
    device: str | None = None,
    quality: bool = True,
    likelihood: int = 0,
    labels: str = "shares",
    reference_tolerance: float | None = 1e-6,
    overwrite: bool = False,
    progress: bool = True,
) -> Comparison:
    """Compare samplers on one or several models: each on each grid within each budget.

    All samplers start from the same x_T. The folder then holds report.html, results.csv and all
    else that `scoresde bench` writes. The same call finds its results, or continues where it was
    stopped. The recommended settings are always compared as well.

    Args:
        model: A `ScoreModel` (a network becomes one by `scoresde.wrap`), a loaded checkpoint, the
            name or path of a checkpoint, or several of these in a list or in a dict by name.
        samplers: Sampler objects or texts such as "ddim:eta=0.5", in a list or in a dict by name.
        nfe: Budgets, in evaluations per sample, the final denoising included.
        out: Folder for the results; each of several models has a subfolder.
        data: Data with which the samples are compared: a name, path or `Dataset`, or an array or
            tensor of shape (N, *D). None for the training data of a checkpoint; for other models
            the samples are then compared with no data, only with the exact solution.
        test: Data for the values that real data reach, and for the likelihood, as an array or
            `Dataset`; None for the test split of `data` if it has one, and otherwise some of `data`
            that are held out from the comparison.
        shape: Shape of one sample without batch axis, if neither model nor data tell it.
        y: Condition of the samples, n rows or one for all. None draws class labels as `labels`
            says.
        grids: Grids as texts such as "karras:rho=7", functions of (sde, steps, t_min), or tensors
            of times, in a list or in a dict by name.
        n: Samples per cell, at least 4.
        seed: Integer in [0, 2^64) for all noise.
        t_min: Last time of the grids that have none of their own; None for 1e-3, or the time of
            the network's first discrete label.
        batch: Samples at a time.
        device: Where to run: cpu, cuda, cuda:N or auto; None for the device of the model.
        quality: Measure the distance of the samples to the data.
        likelihood: Number of test data whose likelihood to measure: 0, or at least 2.
        labels: "shares" draws class labels as in the data, "uniform" in equal shares.
        reference_tolerance: rtol = atol of the exact solution; None = no paired error.
        overwrite: Replace other results in the folder.
        progress: Show bars, if stderr is a terminal.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        TypeError: If an argument is of another kind.
        ValueError: If an argument is wrong, no cell can run, the data do not fit the model, or the
            folder holds results of other settings.
        RuntimeError: If a solve fails or memory runs out.

    Warns:
        UserWarning: If the content of a model cannot be determined, so that stored results are not
            used again, or if the scale of the given data does not suit the SDE.
    """
    budgets = nfe if isinstance(nfe, Iterable) and not isinstance(nfe, str) else (nfe,)
    settings = {
        **{"samplers": samplers, "nfe": tuple(map(plain_number, budgets))},
        **{"grids": grids, "n": n, "seed": seed, "t_min": t_min, "batch": batch},
        **{"likelihood": likelihood, "labels": labels},
        "reference_tolerance": reference_tolerance,
    }
    out, models = Path(out), _named(model)
    benches = {}
    for name, one in models.items():
        given, own = _with_data(one, name, data, test, shape)
        known = own.train is not None or given.data_source is not None
        place = device_of(one) if device is None else str(available_device(device))
        request = BenchRequest(
            checkpoint=given.name, device=place, quality=quality and known, **settings
        )
        if own.train is not None and (warning := scale_warning(given.sde, own.train)):
            warnings.warn(warning, stacklevel=2)
        folder, own = out / name if name else out, replace(own, y=y)
        benches[name] = prepare_bench(request, folder, given, own, overwrite=overwrite)
    with stage_bars() if progress else nullcontext(_silent) as tell:
        if None in benches:
            return _finished(benches[None], tell)
        index = Index.open(out, benches, overwrite)
        done = index.run(lambda name: _finished(benches[name], _staged(tell, name)))
    rows = [{"model": name} | row for name, each in done.items() for row in each.rows]
    summary = "\n".join(f"{name}: {each.summary}" for name, each in done.items())
    return Comparison(out, index.page, rows, summary, done)


def _named(model: Any) -> dict[str | None, Any]:
    """Several models by name; a single one has the name None."""
    if not isinstance(model, (Mapping, list, tuple)):
        return {None: model}
    found = dict(model) if isinstance(model, Mapping) else {}
    for one in () if isinstance(model, Mapping) else model:
        name, number = name_of(one), 2
        while name in found:
            name, number = f"{name_of(one)}-{number}", number + 1
        found[name] = one
    if not found:
        raise ValueError("model must be at least one model, got none")
    for name in found:
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.=+-]*", name)):
            raise ValueError(
                "model: the names become folders and must consist of letters, digits and _.=+-, "
                f"got {name!r}"
            )
    return found


def _with_data(
    model: Any, name: str | None, data: Any, test: Any, shape: Sequence[int] | None
) -> tuple[GivenModel, OwnData]:
    """The model with the description of its data, and the data that were given."""
    if isinstance(model, (str, Path)):
        model = given_model(model, name)
    if data is None:
        if test is not None:
            raise ValueError("test needs data: the samples are compared with `data`")
        return given_model(model, name, shape=shape), OwnData()
    train, held_out = both_splits(data, test, known_spec(model))
    given = given_model(model, name, train.spec, shape)
    return given, OwnData(train, held_out)


def _finished(bench: Bench, tell: Tell) -> Comparison:
    """Run a comparison and read its results."""
    report = bench.run(tell)
    findings = Findings.read(bench.folder)
    return Comparison(
        bench.folder,
        report,
        [table_row(result) for result in findings.results],
        " ".join(sentences(findings)),
    )


def _staged(tell: Tell, name: str) -> Tell:
    """A `tell` whose stages begin with the name of the model."""
    return lambda stage, *told: tell(f"{name}: {stage}", *told)


def _silent(stage: str, done: int, total: int | None, note: str) -> None:
    """A `Tell` that shows nothing."""
