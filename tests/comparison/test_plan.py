"""The plan of a comparison: which cells there are, and why some cannot run."""

import json
from dataclasses import replace

import pytest
import torch

from scoresde.comparison.plan import Cell, plan_cells
from scoresde.comparison.request import BenchRequest
from scoresde.grid import GRIDS, check_on_ladder
from scoresde.names.grids import read_grid
from scoresde.names.samplers import SAMPLERS, parse_sampler, sampler_label
from scoresde.samplers import DDIM, EDM, AnnealedLangevin
from scoresde.samplers.recommended import recommended
from scoresde.sde import VP, TabulatedVP, cosine_betas
from scoresde.tasks.request import StoredModel

from .conftest import at_tolerances


def test_a_cell_that_cannot_run_says_why():
    samplers = [("annealed-langevin", AnnealedLangevin())]
    (cell,) = plan_cells(VP(), samplers, {"uniform": GRIDS["uniform"]}, [50], 1e-3)
    assert cell.ts is None
    assert cell.reason == "one step takes 201 evaluations with the final denoising"


def test_the_fingerprint_is_that_of_comparisons_stored_before():
    """If it must change, stored comparisons are refused as if their grid were another one."""
    ts = torch.tensor([1.0, 0.5, 1e-3], dtype=torch.float64)
    cell = Cell("ddim", DDIM(), "log_snr", 2, ts=ts, cost=3)
    assert cell.fingerprint.startswith("63b47906c392da9ce7bef13ba6f4eb2f")
    assert replace(cell, reason="other words").fingerprint == cell.fingerprint


def test_adaptive_methods_enter_once_per_tolerance():
    samplers = at_tolerances(["dopri5", "ddim"], 1e-2, 1e-4)
    grids = {name: GRIDS[name] for name in ("uniform", "log_snr")}
    cells = plan_cells(VP(), samplers, grids, [5, 9], 1e-3)
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
    (cell,) = plan_cells(VP(), [(name, sampler)], grids, [9], 1e-3)
    assert cell.deterministic is deterministic


@pytest.mark.parametrize(
    ("name", "deterministic"), [("dopri5", True), ("dop853", True), ("gotta-go-fast", False)]
)
def test_so_it_is_of_adaptive_ones(name, deterministic):
    (cell,) = plan_cells(VP(), at_tolerances([name], 0.1), {"uniform": GRIDS["uniform"]}, [9], 1e-3)
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
    samplers = [("ddim", DDIM()), ("heun", EDM())]
    grids = {"mine.json": listed([1, 0.6, 0.2, 1e-3]), "uniform": GRIDS["uniform"]}
    cells = plan_cells(VP(), samplers, grids, [9, 3, 5], 1e-3)
    mine = [cell for cell in cells if cell.grid == "mine.json"]
    # 3 + 1 evaluations, and 6 + 1
    assert [(cell.label, cell.budget, cell.cost) for cell in mine] == [
        ("ddim", 5, 4),
        ("heun", 9, 7),
    ]
    assert all(cell.ts.tolist() == [1, 0.6, 0.2, 1e-3] for cell in mine)
    assert [cell.budget for cell in cells if cell.grid == "uniform"] == [9, 3, 5] * 2
    (cell,) = plan_cells(VP(), samplers[1:], {"mine.json": grids["mine.json"]}, [5], 1e-3)
    assert cell.ts is None
    assert cell.reason == "its 3 steps take 7 evaluations with the final denoising"


def test_a_grid_from_a_file_must_begin_as_the_others_and_may_end_elsewhere(listed):
    with pytest.raises(ValueError, match=r"grid mine begins at t = 0.9, and all samples .* t = 1"):
        plan_cells(VP(), [("ddim", DDIM())], {"mine": listed([0.9, 0.5, 1e-3])}, [9], 1e-3)
    (cell,) = plan_cells(VP(), [("ddim", DDIM())], {"mine": listed([1, 0.5, 0.01])}, [9], 1e-3)
    assert cell.ts[-1] == 0.01


def test_for_rounded_labels_all_grids_are_on_the_ladder(listed):
    sde = TabulatedVP(cosine_betas(20))
    samplers = at_tolerances(["ddim", "edm:churn=5", "dopri5"], 1e-2)
    grids = {"log_snr": GRIDS["log_snr"], "mine": listed([1, 0.52, 0.05])}
    cells = plan_cells(sde, samplers, grids, [6, 100], 0.05, snap=True)
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
    (cell,) = plan_cells(VP(), [("ddim", DDIM())], {"karras": GRIDS["karras"]}, [7], 1e-2)
    assert cell.ts[0] == 1
    assert cell.ts[-1] == 1e-2
    assert cell.steps == 6
    assert torch.equal(cell.ts, GRIDS["karras"](VP(), 6, 1e-2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samplers": ["ddim", " ddim"]}, "sampler ddim is given twice"),
        ({"grids": ["karras", "karras"]}, "grid karras is given twice"),
        ({"nfe": [5, 5]}, "nfe 5 is given twice"),
        ({"nfe": [0]}, "nfe must be at least 1, got 0"),
        ({"t_min": 0.0}, "t_min must be greater than 0"),
        ({"t_min": float("nan")}, "t_min must be finite"),
        ({"t_min": [0.1, 0.1]}, "t_min 0.1 is given twice"),
        ({"seeds": []}, "seeds must have at least one value"),
        ({"seeds": [1, 1]}, "seeds 1 is given twice"),
        ({"labels": ["all"]}, "labels must be one of shares, uniform, got 'all'"),
        ({"reference_tolerance": 0.1}, "reference_tolerance must be less than 0.1"),
        ({"checkpoint": {"a b": "x"}}, "consist of letters"),
    ],
)
def test_bad_requests_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        BenchRequest(**{"checkpoint": "digits-vp", "samplers": ["ddim"], "nfe": [5]} | change)


@pytest.mark.parametrize("missing", ["samplers", "grids", "nfe"])
def test_a_request_of_no_cell_is_refused(missing):
    stored = StoredModel.read("digits-vp")
    asked = {"checkpoint": "digits-vp", "samplers": ["ddim"], "nfe": [5], missing: []}
    with pytest.raises(ValueError, match="no cell can run: no sampler, grid or budget"):
        BenchRequest(**asked).resolved(stored).plan(stored, stored.build())


def test_methods_without_budgets_need_none():
    stored = StoredModel.read("digits-vp")
    request = BenchRequest(checkpoint="digits-vp", samplers=["dopri5"], nfe=[]).resolved(stored)
    cells = request.plan(stored, stored.build())
    assert [cell.tolerance for cell in cells] == [1e-2, 1e-3, 1e-4, 1e-5]


def test_the_recommended_settings_are_always_planned_once():
    """One cell for each budget, whatever place their name has among the samplers."""
    stored = StoredModel.read("digits-vp")
    model = stored.build()
    for samplers in (["ddim"], ["recommended", "ddim"], {"mine": DDIM(), "recommended": None}):
        request = BenchRequest(checkpoint="digits-vp", samplers=samplers, nfe=[5, 9])
        cells = request.resolved(stored).plan(stored, model)
        chosen = [cell for cell in cells if cell.label == "recommended"]
        assert [cell.budget for cell in chosen] == [5, 9]
        for cell in chosen:
            wanted = recommended(model, cell.budget)
            assert torch.equal(cell.ts, wanted.ts)
            assert (cell.sampler, cell.grid) == (wanted.sampler, wanted.grid)
            assert cell.cost <= cell.budget


def test_objects_and_texts_of_one_sampler_have_one_name():
    given = [DDIM(), EDM(churn=20.0), "dpmpp-2m"]
    request = BenchRequest(checkpoint="any", samplers=given, nfe=[5])
    assert list(request.samplers) == ["ddim", "edm:churn=20.0", "dpmpp-2m", "recommended"]
    with pytest.raises(ValueError, match="sampler ddim is given twice"):
        BenchRequest(checkpoint="any", samplers=[DDIM(), "ddim"], nfe=[5])
    with pytest.raises(TypeError, match="sampler must be of type Sampler, got int"):
        BenchRequest(checkpoint="any", samplers={"mine": 3}, nfe=[5])


@pytest.mark.parametrize("text", SAMPLERS)
def test_the_label_of_a_sampler_makes_an_equal_one(text):
    assert parse_sampler(sampler_label(parse_sampler(text))) == parse_sampler(text)
