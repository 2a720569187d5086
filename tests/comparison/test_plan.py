"""The plan of a comparison: which cells there are, and why some cannot run."""

import json
from dataclasses import replace

import pytest
import torch

from scoresde.comparison.plan import Cell, Entry, plan_cells
from scoresde.grid import GRIDS, check_on_ladder
from scoresde.names.grids import read_grid
from scoresde.names.samplers import parse_sampler
from scoresde.samplers import DDIM, EDM, AnnealedLangevin, ProbabilityFlowODE
from scoresde.sde import VP, TabulatedVP, cosine_betas


def test_a_cell_that_cannot_run_says_why():
    entries = [Entry("annealed-langevin", AnnealedLangevin())]
    (cell,) = plan_cells(VP(), entries, {"uniform": GRIDS["uniform"]}, [50], 1e-3)
    assert cell.ts is None
    assert cell.reason == "one step takes 201 evaluations with the final denoising"


def test_the_fingerprint_is_that_of_comparisons_stored_before():
    """If it must change, stored comparisons are refused as if their grid were another one."""
    ts = torch.tensor([1.0, 0.5, 1e-3], dtype=torch.float64)
    cell = Cell("ddim", DDIM(), "log_snr", 2, ts=ts, cost=3)
    assert cell.fingerprint.startswith("63b47906c392da9ce7bef13ba6f4eb2f")
    assert replace(cell, reason="other words").fingerprint == cell.fingerprint


def test_adaptive_methods_enter_once_per_tolerance():
    entries = [Entry("dopri5", ProbabilityFlowODE(), (1e-2, 1e-4)), Entry("ddim", DDIM())]
    grids = {name: GRIDS[name] for name in ("uniform", "log_snr")}
    cells = plan_cells(VP(), entries, grids, [5, 9], 1e-3)
    assert [c.tolerance for c in cells] == [1e-2, 1e-4, None, None, None, None]
    assert [(c.grid, c.budget) for c in cells[2:]] == [
        *(("uniform", 5), ("uniform", 9)),
        *(("log_snr", 5), ("log_snr", 9)),
    ]
    assert [c.sampler.rtol for c in cells[:2]] == [c.sampler.atol for c in cells[:2]]
    assert len({c.name for c in cells}) == len({c.slug for c in cells}) == 6


@pytest.mark.parametrize(
    ("name", "deterministic"),
    [
        *(("ddim", True), ("ddim:eta=0.5", False), ("dpmpp-2m", True), ("heun", True)),
        *(("edm", False), ("ancestral", False), ("euler-maruyama", False)),
        *(("euler-maruyama:eta=0", True), ("pc", False), ("midpoint", True)),
    ],
)
def test_whether_a_sampler_draws_noise_is_found_out(name, deterministic):
    sampler = parse_sampler(name)
    grids = {"uniform": GRIDS["uniform"]}
    (cell,) = plan_cells(VP(), [Entry(name, sampler)], grids, [9], 1e-3)
    assert cell.deterministic is deterministic


@pytest.mark.parametrize(
    ("name", "deterministic"), [("dopri5", True), ("dop853", True), ("gotta-go-fast", False)]
)
def test_so_it_is_of_adaptive_ones(name, deterministic):
    entry = Entry(name, parse_sampler(name), (0.1,))
    (cell,) = plan_cells(VP(), [entry], {"uniform": GRIDS["uniform"]}, [9], 1e-3)
    assert cell.deterministic is deterministic


@pytest.fixture
def listed(tmp_path):
    """listed([1, 0.5]): those times as a grid from a file."""

    def make(values):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(values))
        return read_grid(str(path))

    return make


def test_a_grid_from_a_file_is_one_cell_at_the_least_budget_that_allows_it(listed):
    entries = [Entry("ddim", DDIM()), Entry("heun", EDM())]
    grids = {"mine.json": listed([1, 0.6, 0.2, 1e-3]), "uniform": GRIDS["uniform"]}
    cells = plan_cells(VP(), entries, grids, [9, 3, 5], 1e-3)
    mine = [cell for cell in cells if cell.grid == "mine.json"]
    # 3 + 1 evaluations, and 6 + 1
    assert [(cell.label, cell.budget, cell.cost) for cell in mine] == [
        ("ddim", 5, 4),
        ("heun", 9, 7),
    ]
    assert all(cell.ts.tolist() == [1, 0.6, 0.2, 1e-3] for cell in mine)
    assert [cell.budget for cell in cells if cell.grid == "uniform"] == [9, 3, 5] * 2
    (cell,) = plan_cells(VP(), entries[1:], {"mine.json": grids["mine.json"]}, [5], 1e-3)
    assert cell.ts is None
    assert cell.reason == "its 3 steps take 7 evaluations with the final denoising"


@pytest.mark.parametrize("values", [[1, 0.5, 0.01], [0.9, 0.5, 1e-3]])
def test_a_grid_from_a_file_must_have_the_ends_of_the_others(listed, values):
    message = r"grid mine runs from t = .* and a comparison from 1 to t_min = 0.001"
    with pytest.raises(ValueError, match=message):
        plan_cells(VP(), [Entry("ddim", DDIM())], {"mine": listed(values)}, [9], 1e-3)


def test_for_rounded_labels_all_grids_are_on_the_ladder(listed):
    sde = TabulatedVP(cosine_betas(20))
    entries = [
        Entry("ddim", DDIM()),
        Entry("edm", EDM(churn=5.0)),
        Entry("dopri5", ProbabilityFlowODE(), (1e-2,)),
    ]
    grids = {"log_snr": GRIDS["log_snr"], "mine": listed([1, 0.52, 0.05])}
    cells = plan_cells(sde, entries, grids, [6, 100], 0.05, snap=True)
    run = [cell for cell in cells if cell.ts is not None]
    assert {cell.label for cell in run} == {"ddim"}
    # 20 levels are 19 steps, whatever the budget
    assert [(cell.grid, cell.steps) for cell in run] == [
        ("log_snr", 5),
        ("log_snr", 19),
        ("mine", 2),
    ]
    for cell in run:
        check_on_ladder(sde, cell.ts)
    reasons = {cell.reason for cell in cells if cell.ts is None}
    assert len(cells) - len(run) == 4
    assert len(reasons) == 1
    assert "between the times of the grid" in reasons.pop()


def test_grids_end_where_they_should():
    (cell,) = plan_cells(VP(), [Entry("ddim", DDIM())], {"karras": GRIDS["karras"]}, [7], 1e-2)
    assert cell.ts[0] == 1
    assert cell.ts[-1] == 1e-2
    assert cell.steps == 6
    assert torch.equal(cell.ts, GRIDS["karras"](VP(), 6, 1e-2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entries": [Entry("ddim", DDIM())] * 2}, "sampler ddim is given twice"),
        ({"budgets": [5, 5]}, "nfe 5 is given twice"),
        ({"budgets": [0]}, "nfe must be at least 1, got 0"),
        ({"t_min": 0.0}, "t_min must be greater than 0"),
        ({"t_min": float("nan")}, "t_min must be finite"),
    ],
)
def test_bad_plans_are_refused(change, message):
    plan = {"entries": [Entry("ddim", DDIM())], "budgets": [5], "t_min": 1e-3} | change
    with pytest.raises(ValueError, match=message):
        plan_cells(VP(), grids={"uniform": GRIDS["uniform"]}, **plan)
