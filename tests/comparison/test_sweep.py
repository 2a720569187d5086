"""A sweep counts evaluations, starts from common noise, and gives the same when resumed."""

import csv
import re
import shutil
from dataclasses import replace

import pytest
import torch

from scoresde.comparison import draw as draw_module
from scoresde.comparison import measure as measure_module
from scoresde.comparison.records import COLUMNS, SPENT, load_array, read_results
from scoresde.comparison.reference import REFERENCE
from scoresde.exact import GaussianMixture
from scoresde.fingerprint import fingerprint
from scoresde.metrics import PCAFeatures, paired_rmse
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import sample
from scoresde.score import FunctionScore
from scoresde.sde import VP

from .conftest import silent


class Stop(Exception):
    """Stops a sweep in the middle, as Ctrl-C does."""


class Untouchable(GaussianMixture):
    """A model whose evaluation is an error."""

    def _expectation(self, *arguments):
        raise AssertionError("the network was run")


@pytest.fixture
def untouchable(mixture_parameters):
    return Untouchable(VP(), *mixture_parameters)


def table(folder):
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(folder):
    return [{k: v for k, v in row.items() if k not in SPENT} for row in table(folder)]


def test_every_cell_is_within_its_budget_and_counted(finished):
    _, _, results = finished
    done = [r for r in results if r.status == "done"]
    assert {r.sampler for r in done} == {"ddim", "dpmpp-2m", "ancestral", "dopri5"}
    for result in done:
        if result.nfe_asked is not None:
            # these samplers take one evaluation per step, and one to denoise
            assert result.nfe == result.steps + 1 == result.nfe_asked
    adaptive = {r.tolerance: r.nfe for r in done if r.tolerance is not None}
    assert 0 < adaptive[1e-2] < adaptive[1e-4]
    skipped = [r for r in results if r.status == "skipped"]
    assert [(r.sampler, r.nfe_asked) for r in skipped] == [
        ("annealed-langevin", 4),
        ("annealed-langevin", 8),
    ]
    assert all("201 evaluations" in r.reason for r in skipped)


def test_the_count_is_the_models_own(sweep, run, mixture_parameters, tmp_path, monkeypatch):
    calls = []

    class Counting(GaussianMixture):
        def _expectation(self, x, *rest):
            calls.append(len(x))
            return super()._expectation(x, *rest)

    model = Counting(VP(), *mixture_parameters)
    one = sweep(model, samplers=("heun",), budgets=(10,), tolerance=None, batch=24)
    (result,) = run(one, tmp_path)
    bare = 6 + 1  # passes timed for the overhead, and one whose operations are counted
    assert len(calls) - bare == result.nfe == 9


def test_cells_are_what_sample_gives_from_the_same_noise(finished):
    swept, folder, results = finished
    assert len({r.x_init_sha256 for r in results if r.status == "done"}) == 1
    start = load_array(folder / "start.npz", "x_init")
    for cell in swept.cells[:3]:
        out = sample(swept.model, cell.sampler, cell.ts, (24, 2), seed=5, batch=16)
        assert torch.equal(out.x_init, start)
        assert torch.equal(out.x, load_array(folder / "cells" / f"{swept.key(cell)}.npz", "x"))


def test_only_deterministic_samplers_have_a_paired_error_and_it_falls(finished):
    swept, folder, results = finished
    paired = [r for r in results if "paired_rmse" in r.metrics]
    errors = {r.key.rpartition("--")[0]: r.metrics["paired_rmse"].value for r in paired}
    assert {key.split("--")[0] for key in errors} == {"ddim", "dpmpp-2m", "dopri5"}
    assert errors["ddim--log_snr--nfe8"] < errors["ddim--log_snr--nfe4"]
    assert errors["dpmpp-2m--log_snr--nfe8"] < errors["dpmpp-2m--log_snr--nfe4"]
    # 20 times the tolerance bounds dopri5's global error on this mixture
    assert errors["dopri5--tol0.0001"] < 20e-4
    about = swept.solver.find([folder]).about
    assert about["error"]["value"] < 20e-5  # of the solution at ten times the tolerance, 1e-5
    assert about["method"] == "dopri8"


def test_a_finished_sweep_is_not_run_again(finished, sweep, run, untouchable, tmp_path):
    shutil.copytree(finished[1], tmp_path / "again")
    (tmp_path / "again" / "results.csv").unlink()
    run(sweep(untouchable), tmp_path / "again")
    for name in ("results.csv", "results.json"):
        assert (tmp_path / "again" / name).read_bytes() == (finished[1] / name).read_bytes()


def test_an_interrupted_sweep_goes_on_where_it_stopped(finished, sweep, run, tmp_path):
    """It is stopped before the first cell, and again after three."""
    whole, broken = finished[1], tmp_path / "broken"

    def written():
        return {path: path.stat().st_mtime_ns for path in broken.glob("cells/*")}

    for after in (0, 3):
        told = []

        def stop(stage, done, total, note, told=told, after=after):
            told.append(stage)
            if told.count("sampling") > after:
                raise Stop

        with pytest.raises(Stop):
            run(sweep(), broken, stop)
        assert not (broken / "results.csv").exists()
        kept = written()
        assert len(kept) == after
    run(sweep(), broken)
    assert without_times(broken) == without_times(whole)
    assert kept.items() < written().items()
    stored = [sorted(p.name for p in (f / "cells").iterdir()) for f in (whole, broken)]
    assert stored[0] == stored[1]
    for name in stored[0]:
        one, other = (load_array(folder / "cells" / name, "x") for folder in (whole, broken))
        assert torch.equal(one, other)


def test_a_cell_that_leaves_the_numbers_is_reported_and_tried_again(sweep, run, tmp_path):
    """The model is NaN below t = 0.1. A sampler that takes no step there is not affected."""
    exact = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [1.0])

    def eps(x, t):
        return exact.eps(x, t) * (float("nan") if 1e-3 < t < 0.1 else 1.0)

    some = {"samplers": ("ddim",), "budgets": (2, 8), "tolerance": None, "quality": False}
    first = run(sweep(FunctionScore(VP(), eps), **some), tmp_path)
    assert [r.status for r in first] == ["done", "failed"]
    # a batch of 16 points in the plane
    assert re.match(r"network output at t=0\.0\d+: 32 non-finite values of 32", first[1].reason)
    again = run(sweep(exact, **some), tmp_path)
    assert [r.status for r in again] == ["done", "done"]
    assert again[0] == first[0]


QUICK = {"samplers": ("ddim",), "budgets": (4,), "quality": False, "tolerance": 1e-3}


@pytest.mark.parametrize("what", ["cells/*", REFERENCE])
@pytest.mark.by_default("cells/*")
def test_what_is_damaged_is_measured_again(sweep, run, tmp_path, what):
    """Both a cell and the reference solution."""
    run(sweep(**QUICK), tmp_path)
    (path,), whole = tmp_path.glob(what), without_times(tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
    for damaged in (flipped, content[:middle], b""):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"{path.name} is damaged; it is made again"):
            run(sweep(**QUICK), tmp_path)
        assert without_times(tmp_path) == whole


def test_measured_cells_are_used_by_a_larger_sweep(finished, sweep, run, untouchable, tmp_path):
    """Cells of another folder are used as well, whatever else it holds."""
    some = sweep(samplers=("ddim", "ancestral"), budgets=(8,))
    (tmp_path / "some").mkdir()
    results = some.run(tmp_path / "some", silent, [finished[1]])
    wanted = {result.key: result for result in finished[2]}
    assert [wanted[result.key] for result in results] == results
    assert not (tmp_path / "some" / "cells").exists()
    same = sweep(untouchable, samplers=("ancestral", "ddim"), budgets=(8,))
    assert same.run(tmp_path / "some", silent, [finished[1]]) == results[::-1]


def test_no_two_different_cells_share_a_key(sweep, mixture_parameters):
    """Everything that a cell's numbers depend on enters its key; its names do not."""
    one = {"samplers": ("ddim",), "budgets": (4,)}
    base = sweep(**one)
    moved = replace(base.quality.real, x=base.quality.real.x + 1)
    others = [
        *(sweep(**one, **{k: v}) for k, v in {"n": 25, "seed": 6, "batch": 8}.items()),
        *(sweep(**one, **{k: v}) for k, v in {"tolerance": 1e-5, "quality": False}.items()),
        sweep(**one, tolerance=None),
        sweep(**one, y=torch.zeros(24, dtype=torch.long)),
        sweep(**one, y=torch.ones(24, dtype=torch.long)),
        replace(base, model_sha256="another"),
        sweep(**one, device="cuda"),
        sweep(**one, t_min=1e-4),
        sweep(**one, data_shape=(2, 1)),
        replace(base, quality=replace(base.quality, real=moved)),
        replace(base, quality=replace(base.quality, metrics=("mmd2",))),
        replace(
            base, quality=replace(base.quality, features=PCAFeatures.fit(base.quality.real.x, 1))
        ),
        replace(base, quality=replace(base.quality, spec=replace(base.spec, high=5.0))),
        sweep(samplers=("ddim:eta=0.5",), budgets=(4,)),
        sweep(samplers=("ddim",), budgets=(5,)),
        replace(base, cells=[replace(base.cells[0], ts=base.cells[0].ts - 1e-12)]),
    ]
    keys = [swept.key(swept.cells[0]) for swept in (base, *others)]
    assert len({key.rpartition("--")[2] for key in keys}) == len(keys)
    assert sweep(**one).key(base.cells[0]) == keys[0]
    renamed = replace(base.cells[0], label="another", grid="name", budget=7)
    assert base.made_from(renamed) == base.made_from(base.cells[0])


def test_all_cells_are_compared_with_the_solution_at_the_least_last_time(sweep, run, tmp_path):
    """An early last time is only larger in error; a later one of another cell changes nothing."""
    base = sweep(**QUICK | {"tolerance": 1e-6})
    (cell,) = base.cells
    early = replace(cell, grid="early", ts=cell.ts.clamp(min=0.2).unique().flip(0))
    late = replace(cell, grid="late", ts=torch.cat([cell.ts, torch.tensor([1e-4]).double()]))
    same = replace(base, cells=[cell, early])
    assert same.end == 1e-3
    assert same.made_from(cell) == base.made_from(cell)
    both = replace(base, cells=[cell, late])
    assert both.end == pytest.approx(1e-4)
    assert both.made_from(cell) != base.made_from(cell)
    whole = run(both, tmp_path)[1].metrics["paired_rmse"].value
    exact = torch.from_numpy(both.solver.find([tmp_path]).arrays["x"])
    out = sample(both.model, late.sampler, late.ts, (24, 2), seed=5)
    assert whole == pytest.approx(float(paired_rmse(out.x, exact).value))
    # the solution at 1e-4 and at t = 0 differ by the error of denoising, which is of order σ²
    there = sample(base.model, parse_sampler("dopri8"), [1.0, 1e-5], (24, 2), seed=5)
    assert float((there.x - exact).abs().max()) < 1e-3


@pytest.mark.slow
def test_names_that_are_written_alike_are_two_cells(sweep, run, tmp_path):
    """`g/1.json` and `g-1.json` give equal file names, and each row has its own numbers."""
    base = sweep(**QUICK)
    (cell,) = base.cells
    other = torch.linspace(1, float(cell.ts[-1]), len(cell.ts), dtype=torch.float64)
    cells = [replace(cell, grid="g/1.json"), replace(cell, grid="g-1.json", ts=other)]
    cells.append(replace(cell, grid="g 1.json"))  # of the same times as the first
    together = run(replace(base, cells=cells), tmp_path / "together")
    alone = [run(replace(base, cells=[cell]), tmp_path / str(i))[0] for i, cell in enumerate(cells)]
    assert [r.metrics for r in together] == [r.metrics for r in alone]
    assert together[0].metrics != together[1].metrics
    assert [r.grid for r in together] == ["g/1.json", "g-1.json", "g 1.json"]
    again = run(replace(base, cells=cells), tmp_path / "together")
    assert again == together


def test_a_long_name_makes_no_long_file_name(sweep):
    (cell,) = sweep(samplers=("ddim",), budgets=(4,), quality=False).cells
    assert len(replace(cell, grid="g/" * 200 + "mine.json").slug) < 150


def test_every_sampler_has_a_fingerprint():
    prints = {text: fingerprint(parse_sampler(text)) for text in SAMPLERS}
    assert len(set(prints.values())) == len({repr(parse_sampler(t)) for t in SAMPLERS})


def test_the_csv_has_every_column_and_reads_back(finished):
    _, folder, results = finished
    rows = table(folder)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(results) == 10
    for row, result in zip(rows, results, strict=True):
        if result.status != "done":
            assert row["nfe"] == row["mmd2"] == ""
            continue
        assert float(row["mmd2"]) == result.metrics["mmd2"].value
        assert float(row["mmd2_se"]) == result.metrics["mmd2"].std_error
        ends = float(row["mmd2_low"]), float(row["mmd2_high"])
        assert ends == result.metrics["mmd2"].interval()
        assert int(row["nfe"]) == result.nfe
        assert row["features"].startswith("layout_pairs@")
        assert int(row["n"]) == 24
        assert float(row["seconds"]) > 0
    assert read_results(folder)[0] == results


def test_two_seeds_differ(sweep, run, tmp_path):
    small = {"samplers": ("ddim",), "budgets": (4,), "tolerance": None}
    first = run(sweep(**small), tmp_path / "a")
    second = run(sweep(seed=6, **small), tmp_path / "b")
    assert first[0].x_init_sha256 != second[0].x_init_sha256
    assert first[0].metrics["mmd2"] != second[0].metrics["mmd2"]


@pytest.mark.usefixtures("rng_untouched")
def test_no_global_generator_is_used(sweep, run, tmp_path):
    run(sweep(samplers=("ancestral",), budgets=(4,), tolerance=1e-3), tmp_path)


def test_every_cell_and_the_reference_get_the_labels(sweep, run, tmp_path, monkeypatch):
    seen = []

    def recorded(*arguments, **options):
        seen.append(options.pop("y"))  # the exact model has no classes
        return sample(*arguments, **options)

    monkeypatch.setattr(draw_module, "sample", recorded)
    y = torch.arange(24) % 3
    run(sweep(**QUICK | {"samplers": ("ddim", "dopri5")}, y=y), tmp_path / "out")
    assert len(seen) == 5  # ddim, two tolerances, and the reference with its check
    assert all(torch.equal(found, y[: len(found)]) for found in seen)


def test_the_first_bare_pass_does_not_count(sweep, monkeypatch):
    """The first pass allocates memory and takes several times as long."""
    clock, passes = [0.0], []

    def bare(*arguments):
        passes.append(1)
        clock[0] += 100.0 if len(passes) == 1 else 2.0
        return 1

    monkeypatch.setattr(measure_module, "_bare_pass", bare)
    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: clock[0])
    assert sweep(samplers=("ddim",), quality=False, batch=24).cost.evaluation_seconds == 2.0
