"""`scoresde.bench`: what the command `scoresde bench` does, for any score model in Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._condition import Condition
from .._tensor import available_device
from ..output.bars import stage_bars
from ..scaling import scale_warning
from ..tasks.given import GivenModel
from ..tasks.live import device_of, given_model, known_spec
from ..tasks.own_data import both_splits
from .data import OwnData
from .feature_choice import AUTO
from .findings import Findings
from .index import rows_of
from .measures import DEFAULT_METRICS
from .prepare import Bench, BenchModel, Portion, prepare_bench
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
        report: The page to open in a browser: report.html, or for several cases index.html.
        rows: One dict per cell, with the columns of results.csv; numbers are numbers, and what was
            not measured is None. The columns "model", "seed", "labels" and "guidance" come first
            where there are several.
        summary: The results in sentences.
        cases: The comparison of each case, by its name; empty for a single case.
        left: Number of cells that the time limit left out.
    """

    folder: Path
    report: Path
    rows: list[dict[str, Any]]
    summary: str
    cases: dict[str, Comparison] = field(default_factory=dict)
    left: int = 0

    def __str__(self) -> str:
        if self.cases:
            return "\n\n".join(f"{name}\n{each}" for name, each in self.cases.items())
        return text_table(Findings.read(self.folder))

    @classmethod
    def of(cls, bench: Bench, report: Path) -> Comparison:
        """The results of a comparison that has run."""
        found = bench.findings
        each = {
            name: cls(
                findings.folder,
                bench.cases[name].report,
                [table_row(result) for result in findings.results],
                " ".join(sentences(findings)),
            )
            for name, findings in found.items()
        }
        if bench.index is None:
            return replace(each[""], left=bench.left)
        rows = list(rows_of(found, bench.index.cases))
        summary = "\n".join(f"{name}: {one.summary}" for name, one in each.items())
        return cls(bench.folder, report, rows, summary, each, bench.left)


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
    seeds: int | Sequence[int] = 0,
    t_min: float | Sequence[float] | None = None,
    batch: int = 256,
    device: str | None = None,
    quality: bool = True,
    likelihood: int = 0,
    labels: str | Sequence[str] = "shares",
    features: str = AUTO,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    reference_tolerance: float | None = 1e-6,
    compiled: bool = False,
    guidance: str | float | Sequence[str | float] | None = None,
    shard: tuple[int, int] | None = None,
    time_limit: float | None = None,
    reuse: Sequence[str | Path] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> Comparison:
    """Compare samplers on one or several models: each on each grid within each budget.

    All samplers of a case start from the same x_T. Each model, seed, kind of label shares and
    guidance is a case of its own. The folder then holds report.html, results.csv and all else that
    `scoresde bench` writes. The same call finds its results, or continues where it was stopped.
    The recommended settings are always compared as well. Cases that differ by the seed only are
    joined in index.html and seeds.csv: the means over the seeds have narrower intervals.

    Within one budget stochastic samplers on one grid use the same normals: the k-th increment of
    sample i depends on the seed, i and k only. Across budgets they do not share a Brownian path.

    Args:
        model: A `ScoreModel` (a network becomes one by `scoresde.wrap`), a loaded checkpoint, the
            name or path of a checkpoint, or several of these in a list or in a dict by name.
        samplers: Sampler objects or texts such as "ddim:eta=0.5", in a list or in a dict by name.
        nfe: Budgets, in evaluations per sample, the final denoising included.
        out: Folder for the results; each of several cases has a subfolder.
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
        seeds: Integer in [0, 2^64) for all noise, or several.
        t_min: Last time of the grids that have none of their own, or several; None for 1e-3, or
            the time of the network's first discrete label.
        batch: Samples at a time.
        device: Where to run: cpu, cuda, cuda:N or auto; None for the device of the model.
        quality: Measure the distance of the samples to the data.
        likelihood: Number of test data whose likelihood to measure: 0, or at least 2.
        labels: "shares" draws class labels as in the data, "uniform" in equal shares; or both.
        features: Features in which samples and data are compared: "auto" takes what suits the data,
            "cnn" is the classifier for digits or Fashion-MNIST alone, "efficientnet_lite0" needs
            the extra `features`, and "inception:PATH", "inception-clean:PATH" or "dinov2:PATH"
            read your file of the weights for FID or FD-DINOv2. ":statistics=FILE:n=50000" at the
            end compares Fréchet distances with published statistics of 50,000 images.
        metrics: Metrics of the samples beside real data, some of `QUALITY_METRICS`.
        reference_tolerance: rtol = atol of the exact solution; None = no paired error.
        compiled: Compile a copy of each network, which must be a `NetworkScore` or be inside a
            guided model, before anything is timed. The bare network, to which times are compared,
            is the compiled one then.
        guidance: Guidance of conditional models, such as 2, "2:rescale=0.7", "apg:scale=3" or
            "auto:scale=2:weak=PATH", or several; each is a case of its own.
        shard: (i, n) measures the i-th of n shares of the cells only; `scoresde merge` joins the
            folders of all shares.
        time_limit: Seconds after which the work ends, with a report of what is done; the same call
            goes on with the rest.
        reuse: Folders of other comparisons, whose cells and reference solutions are used if
            everything that determines them is the same.
        overwrite: Replace other results in the folder.
        progress: Show bars, if stderr is a terminal.

    Raises:
        ConfigError: If a sampler or grid is unknown, or its parameters are wrong.
        FileNotFoundError: If data or weights of features are absent.
        TypeError: If an argument is of another kind.
        ValueError: If an argument is wrong, no cell can run, the data do not fit the model, or the
            folder holds results of other settings.
        RuntimeError: If a solve fails or memory runs out.

    Warns:
        UserWarning: If the content of a model cannot be determined, so that stored results are not
            used again, or if the scale of the given data does not suit the SDE.
    """
    settings = {
        **{"samplers": samplers, "nfe": nfe, "grids": grids, "n": n, "seeds": seeds},
        **{"t_min": t_min, "batch": batch, "likelihood": likelihood, "labels": labels},
        **{"reference_tolerance": reference_tolerance, "quality": quality},
        **{"features": features, "metrics": metrics, "compiled": compiled},
        "guidance": guidance,
    }
    request = BenchRequest(checkpoint=model, **settings)
    portion = Portion(shard, time_limit, tuple(map(Path, reuse)))
    several, models = len(request.checkpoint) > 1, {}
    for name, one in request.checkpoint.items():
        given, own = _with_data(one, name if several else None, data, test, shape)
        place = device_of(one) if device is None else str(available_device(device))
        if own.train is not None and (warning := scale_warning(given.sde, own.train)):
            warnings.warn(warning, stacklevel=2)
        models[name] = BenchModel(given, replace(own, y=y), {"device": place})
    made = prepare_bench(request, Path(out), models, overwrite=overwrite, portion=portion)
    with stage_bars() if progress else nullcontext(_silent) as tell:
        report = made.run(tell)
    return Comparison.of(made, report)


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


def _silent(stage: str, done: int, total: int | None, note: str) -> None:
    """A `Tell` that shows nothing."""
