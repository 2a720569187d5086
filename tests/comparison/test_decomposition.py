"""The parts of an error, for a Gaussian whose every stage is known."""

from functools import partial

import pytest
import torch

from scoresde.comparison import stages as stages_module
from scoresde.comparison.decomposition import (
    SOLUTION,
    TRUE_START,
    decompose,
    read_solution,
    save_solution,
)
from scoresde.comparison.stages import noised_data
from scoresde.exact import GaussianMixture
from scoresde.grid import uniform
from scoresde.metrics import Estimate, GaussianKernel, mmd2
from scoresde.samplers import DDIM, ProbabilityFlowODE, sample
from scoresde.sde import VP

from .conftest import silent


@pytest.fixture(scope="module")
def stages():
    """MMD² of four steps, the solution, and the solution from noised data, of an exact model.

    The data have the mean 4, which the schedule leaves in x_T: α(1) is 0.2, not 0. The prior
    N(0, 1) lacks it.
    """
    sde, n = VP(beta_min=0.1, beta_max=6.0), 400
    model = GaussianMixture(sde, [1.0], [[4.0, 0.0]], [[[0.5, 0.0], [0.0, 0.5]]])
    data, real = (model.sample(m, seed=seed) for m, seed in ((1500, 1), (n, 2)))
    measure = partial(mmd2, reference=data, kernel=GaussianKernel(1.0))
    exact, ts = ProbabilityFlowODE("dopri5", 1e-6, 1e-6), uniform(sde, 1, 1e-4)
    draw = partial(sample, model, n=n, seed=0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    eps = torch.randn(real.shape, generator=generator, dtype=torch.float64)
    start = sde.perturb(real, 1.0, eps)
    return {
        "total": measure(draw(DDIM(), uniform(sde, 4, 1e-2)).x),
        "solution": measure(draw(exact, uniform(sde, 1, 1e-2)).x),
        "to_zero": measure(draw(exact, ts).x),
        "true_start": measure(draw(exact, ts, x_init=start).x),
    }


def test_the_parts_add_up_and_an_exact_network_has_none(stages):
    found = decompose(**stages)
    parts = dict(found.rows)
    total = parts.pop("total")
    assert sum(part.value for part in parts.values()) == pytest.approx(total.value, abs=1e-12)
    assert abs(found.network.value) < 3 * found.network.std_error
    # what is missing in the prior, and what four steps miss, is seen
    assert found.initial.value > 4 * found.initial.std_error
    assert found.steps.interval()[0] > 0 or found.steps.interval()[1] < 0


def test_what_is_not_measured_belongs_to_the_network(stages):
    found = decompose(stages["total"], stages["solution"])
    assert found.network == stages["solution"]
    assert [name for name, _ in found.rows] == ["steps", "network", "total"]
    assert found.gain == max(found.steps.interval()[1], 0)
    good, fair, bad = (Estimate(value, 0.01, (400,), "m") for value in (1.0, 1.2, 3.0))
    assert decompose(fair, good).network_is_larger  # 1 of the network, 0.2 of the steps
    assert not decompose(bad, good).network_is_larger


def test_the_solution_from_noised_data_is_measured_if_it_takes_a_small_share(
    sweep, run, tmp_path, monkeypatch
):
    made = sweep(samplers=("ddim",), budgets=(4,), tolerance=1e-2)
    assert TRUE_START not in made.files
    monkeypatch.setattr(stages_module, "LARGEST_SHARE", 1.0)
    run(made, tmp_path)
    assert TRUE_START in made.files
    real, sde = made.quality.real.fresh, made.model.sde  # 24 rows, as many as samples
    x = float(sde.alpha(1.0)) * real + float(sde.sigma(1.0)) * made.start
    torch.testing.assert_close(noised_data(made), x, rtol=1e-5, atol=1e-6)
    findings = [read_solution(tmp_path, name) for name in (SOLUTION, TRUE_START)]
    solution, start = (each["mmd2"] for each in findings)
    found = decompose(solution, solution, true_start=start)
    # both solutions share ε, and differ by α(1) = 0.007 of the data
    assert 0 < found.initial.std_error < 0.1 * found.network.std_error
    monkeypatch.setattr(stages_module, "sample", None)  # it is not solved again
    (tmp_path / "other").mkdir()
    made.run(tmp_path / "other", silent, known=[tmp_path])
    assert read_solution(tmp_path / "other", TRUE_START) == findings[1]


def test_the_solution_is_stored_with_its_influences(stages, tmp_path):
    save_solution(tmp_path, "made from", {"mmd2": stages["solution"]})
    read = read_solution(tmp_path)["mmd2"]
    assert read == stages["solution"]
    for stored, own in zip(read.influence, stages["solution"].influence, strict=True):
        torch.testing.assert_close(stored, own, rtol=1e-6, atol=1e-9)
    assert read_solution(tmp_path / "nothing") == {}
    assert decompose(Estimate(1.0, 0.1, read.n, read.name), read).steps.value == 1.0 - read.value
