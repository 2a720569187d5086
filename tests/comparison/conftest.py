"""A sweep of an exact model, which is cheap and whose end points are known."""

import io
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image

from scoresde.comparison import measure, noise_levels, report, trajectory
from scoresde.comparison.draw import DrawSettings
from scoresde.comparison.plan import plan_cells
from scoresde.comparison.plots import Drawn
from scoresde.comparison.quality import Quality
from scoresde.comparison.records import write_tables
from scoresde.comparison.sweep import Sweep
from scoresde.data import Dataset, DataSpec
from scoresde.exact import GaussianMixture
from scoresde.grid import GRIDS
from scoresde.names.samplers import parse_sampler
from scoresde.sde import VP

SPEC = DataSpec((2,), -4.0, 4.0, name="mixture")
SAMPLERS = ("ddim", "dpmpp-2m", "ancestral", "annealed-langevin", "dopri5")
N = 24
METRICS = ("mmd2", "copying")  # with and without a direction; the others have own tests


def silent(stage, done, total, note):
    """A `tell` that ignores its arguments."""


def planar_data(model, split, n):
    """Points of the mixture as a data set."""
    x = model.sample(n, seed=len(split)).float()
    return Dataset("mixture", x, None, SPEC, split=split)


def at_tolerances(texts, *tolerances):
    """Label and sampler of each text; an adaptive method once with each tolerance."""
    samplers = [(text, parse_sampler(text)) for text in texts]
    return [
        (text, replace(sampler, rtol=tol, atol=tol) if sampler.adaptive else sampler)
        for text, sampler in samplers
        for tol in (tolerances if sampler.adaptive else [None])
    ]


def make_sweep(mixture, model=None, samplers=SAMPLERS, budgets=(4, 8), quality=True, **changes):
    """Samplers on the exact mixture, or on another model of the same SDE."""
    named = at_tolerances(samplers, 1e-2, 1e-4)
    cells = plan_cells(VP(), named, {"log_snr": GRIDS["log_snr"]}, budgets, 1e-3)
    measures = None
    if quality:
        train, test = planar_data(mixture, "train", 200), planar_data(mixture, "test", 50)
        measures = Quality.build(train, test, N, METRICS)
    tolerance = changes.pop("tolerance", 1e-6)
    settings = DrawSettings(SPEC.shape, n=N, seed=5, t_min=1e-3, batch=16)
    model = mixture if model is None else model
    return Sweep(model, "exact", SPEC, cells, replace(settings, **changes), measures, tolerance)


@pytest.fixture
def sweep(mixture):
    """sweep(model=…, …): see `make_sweep`."""
    return partial(make_sweep, mixture(VP()))


def run_sweep(sweep, folder, tell=silent):
    """Run a sweep and write its tables, as `scoresde bench` does."""
    folder.mkdir(exist_ok=True)
    results = sweep.run(folder, tell)
    write_tables(folder, results, {"strips": []})
    return results


@pytest.fixture(autouse=True)
def each_once(monkeypatch):
    """Short work runs once, not several times for the spread of its seconds."""
    monkeypatch.setattr(measure, "RUNS", 1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(sweep, folder, results) of a sweep that was not interrupted; tests must not change them."""
    weights, means = [0.5, 0.3, 0.2], [[-1.0, 0.5], [0.8, -0.6], [0.3, 1.2]]
    covs = [[[0.2, 0.05], [0.05, 0.1]], [[0.08, -0.03], [-0.03, 0.15]], [[0.05, 0], [0, 0.05]]]
    sweep = make_sweep(GaussianMixture(VP(), weights, means, covs))
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "RUNS", 1)
        return sweep, folder, run_sweep(sweep, folder)


@pytest.fixture
def run():
    """run(sweep, folder, tell): see `run_sweep`."""
    return run_sweep


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of the time, and other tests look at them, as at the trajectories."""
    picture, drawn = io.BytesIO(), Drawn(b"<svg ></svg>", b"")
    Image.new("L", (1, 1)).save(picture, "PNG")
    monkeypatch.setattr(report, "scatter", lambda *_: picture.getvalue())
    monkeypatch.setattr(report, "curves", lambda *_: drawn)
    for measured in (report.Trajectories, report.NoiseLevels):
        monkeypatch.setattr(measured, "figure", drawn)
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)
    monkeypatch.setattr(measure, "PASSES", 1)
    for name, value in (("COUNT", 2), ("LEAST", 8), ("NUMBERS", 64)):
        monkeypatch.setattr(noise_levels, name, value)
    monkeypatch.setattr(trajectory, "TOLERANCE", 1e-2)
