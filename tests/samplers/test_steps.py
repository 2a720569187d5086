"""The most steps that a counted budget allows, for every sampler."""

import pytest

from scoresde.exact import GaussianMixture
from scoresde.grid import GRIDS
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import AnnealedLangevin, sample
from scoresde.samplers.steps import largest_steps
from scoresde.sde import VE, VP

GRID_SAMPLERS = [name for name in SAMPLERS if not parse_sampler(name).adaptive]


class Counting(GaussianMixture):
    """The exact score of N(0, 1), which counts its calls by itself."""

    calls = 0

    def _expectation(self, x, *rest):
        type(self).calls += 1
        return super()._expectation(x, *rest)


def calls(sde, sampler, ts):
    Counting.calls = 0
    model = Counting(sde, [1.0], [[0.0]], [1.0])
    sample(model, sampler, ts, (2, 1), seed=3)
    return Counting.calls


@pytest.mark.parametrize("name", GRID_SAMPLERS)
@pytest.mark.parametrize("budget", [5, 14])
@pytest.mark.by_default("14")
def test_the_budget_is_kept_and_used_up(name, budget):
    """N steps cost at most the budget, and N + 1 would cost more: counted by the model itself."""
    sde, grid = VP(), GRIDS["log_snr"]
    sampler = AnnealedLangevin(2) if name == "annealed-langevin" else parse_sampler(name)
    steps = largest_steps(sde, sampler, grid, budget, 1e-3)
    assert steps == 0 or calls(sde, sampler, grid(sde, steps, 1e-3)) <= budget
    assert calls(sde, sampler, grid(sde, steps + 1, 1e-3)) > budget


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("ddim", 19),  # N + 1 evaluations
        ("heun", 9),  # 2N + 1
        ("pc", 9),  # 2N + 1
        ("rk4", 4),  # 4N + 1
        ("annealed-langevin:steps=3", 5),  # 3 (N + 1) + 1
    ],
)
def test_steps_of_a_budget_of_20_by_hand(name, steps):
    assert largest_steps(VE(), parse_sampler(name), GRIDS["uniform"], 20, 1e-3) == steps
