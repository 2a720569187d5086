"""On the shipped digits checkpoint: solvers converge, and SDE and ODE agree in distribution."""

from functools import cache

import pytest

import scoresde
from scoresde.comparison import measure
from scoresde.comparison.draw import DrawSettings
from scoresde.comparison.plan import plan_cells
from scoresde.comparison.quality import Quality, on_levels
from scoresde.comparison.request import ODE_TOLERANCES
from scoresde.comparison.sweep import Sweep
from scoresde.data import load_dataset
from scoresde.grid import GRIDS
from scoresde.metrics import frechet_distance, mmd2
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import sample
from scoresde.samplers.steps import draws_noise
from scoresde.sde import VP
from scoresde.shipped import shipped

from .conftest import at_tolerances

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "digits-vp" not in shipped("checkpoints"),
        reason="digits-vp is not there; train it as the README says",
    ),
]

BUDGETS = (5, 10, 20, 50)


@cache
def deterministic():
    """Names of all samplers whose end point depends only on x_T."""
    names = (*SAMPLERS, "euler-maruyama:eta=0")
    return [name for name in names if not draws_noise(VP(), parse_sampler(name), 1e-3)]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Paired error of every cell of every deterministic sampler, by sampler, cheapest first."""
    checkpoint = scoresde.load("digits-vp")
    named = at_tolerances(deterministic(), *ODE_TOLERANCES)
    grids = {"log_snr": GRIDS["log_snr"]}
    cells = plan_cells(checkpoint.model.sde, named, grids, BUDGETS, 1e-3)
    folder = tmp_path_factory.mktemp("digits")
    sweep = Sweep(
        checkpoint.model,
        checkpoint.sha256,
        checkpoint.data,
        cells,
        DrawSettings(checkpoint.data.shape, n=6, seed=1, t_min=1e-3, batch=6),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "RUNS", 1)
        results = sweep.run(folder, lambda *told: None)
    found = {}
    for result in results:
        found.setdefault(result.sampler, []).append(
            (result.nfe, result.metrics["paired_rmse"].value)
        )
    return found


def test_more_evaluations_are_more_accurate_for_every_deterministic_sampler(errors):
    assert set(errors) == set(deterministic())
    assert len(errors) == 27
    for name, cells in errors.items():
        # dop853 rejects so many of its long steps at 1e-3 that 1e-4 is cheaper
        assert cells == sorted(cells) or name == "dop853", name
        values = [error for _, error in cells]
        assert values == sorted(values, reverse=True), (name, cells)
        assert values[-1] < 0.03, (name, cells)  # of a scale of 2


def test_samples_of_the_sde_and_of_the_ode_have_one_distribution():
    """Independent noise; 200 steps leave a bias of O(1/N) below the error of 192 samples."""
    checkpoint = scoresde.load("digits-vp")
    model, shape = checkpoint.model, (192, 1, 8, 8)
    quality = Quality.build(load_dataset("digits"), load_dataset("digits", "test"), 192)

    def features(name, steps, seed):
        ts = GRIDS["log_snr"](model.sde, steps)
        out = sample(model, parse_sampler(name), ts, shape, seed=seed)
        return quality.features(on_levels(out.x, checkpoint.data))

    ode, other = features("dpmpp-2m", 40, 0), features("dpmpp-2m", 40, 1)
    floor = frechet_distance(ode, other)
    for name in ("ancestral", "euler-maruyama"):
        sde = features(name, 200, 2)
        found = mmd2(sde, ode, quality.real.kernel)
        assert abs(found.value) < 4 * found.std_error, (name, str(found))
        distance = frechet_distance(sde, ode)
        slack = 4 * (distance.std_error**2 + floor.std_error**2) ** 0.5
        assert distance.value < floor.value + slack, (name, str(distance), str(floor))
