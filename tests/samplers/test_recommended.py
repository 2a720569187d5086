"""The recommended settings: counted evaluations, exact cases, errors against other settings."""

import pytest
import torch

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.samplers import AngularAdams, Restart
from scoresde.samplers.recommended import recommended

IMAGE = (1, 4, 4)


def normal(sde, std=1.0):
    return GaussianMixture(sde, [1.0], [[0.0, 0.0]], [std**2])


def test_every_number_of_evaluations_is_used_wholly(sde):
    model = scoresde.FunctionScore(sde, lambda x, t: 0 * x)
    for shape in ((3,), IMAGE):
        before = 1.0
        for nfe in (*range(1, 26), 50, 200):
            out = scoresde.sample(model, shape=(2, *shape), nfe=nfe)
            assert out.nfe == nfe
            assert len(out.ts) == max(nfe, 2)
            assert out.denoise == (nfe > 1)
            assert float(out.ts[-1]) >= 1e-4
            if nfe > 1:
                assert float(out.ts[-1]) <= before  # more evaluations end nearer to the data
                before = float(out.ts[-1])


def test_data_of_variance_1_are_exact(sde):
    """For N(0, I) the ODE keeps x/√(α² + σ²), and v = 0."""
    model, (top,) = normal(sde), sde.nodes([1.0])
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for nfe in (2, 5, 15):
        out = scoresde.sample(model, nfe=nfe, x_init=x, dtype=torch.float64)
        exact = x / (top.alpha**2 + top.sigma**2) ** 0.5
        torch.testing.assert_close(out.x, exact, rtol=1e-9, atol=1e-9)  # rounding


def mixture(sde, d=6, k=4):
    draw = torch.Generator().manual_seed(3)
    means = torch.randn(k, d, generator=draw, dtype=torch.float64)
    return GaussianMixture(sde, [1 / k] * k, means, [0.04 + 0.1 * i for i in range(k)])


@pytest.mark.parametrize("sde", [scoresde.VP(), scoresde.VE(0.01, 50.0)], ids=["VP", "VE"])
def test_it_beats_usual_settings_and_converges(sde):
    """RMSE to the ODE's end point (dop853 at 1e-9, then the denoiser at t = 1e-7)."""
    model = mixture(sde)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * sde.prior_std
    last = 1e-7 if float(sde.sigma(torch.zeros(()))) == 0 else 0.0
    solver = scoresde.ProbabilityFlowODE("dop853", rtol=1e-9, atol=1e-9, per_sample=True)
    exact = scoresde.sample(model, solver, [1.0, last], x_init=x, dtype=torch.float64).x

    def error(nfe, sampler=None, grid=None):
        ts = None if grid is None else grid(sde, nfe - 1)
        budget = {"nfe": nfe} if ts is None else {}
        out = scoresde.sample(model, sampler, ts, x_init=x, dtype=torch.float64, **budget)
        assert out.nfe == nfe
        return float((out.x - exact).square().mean().sqrt())

    others = [
        (sampler, grid)
        for sampler in (scoresde.DDIM(), scoresde.DPMSolverMultistep(), scoresde.UniPC(2))
        for grid in (scoresde.grid.log_snr, scoresde.grid.uniform, scoresde.grid.karras)
    ]
    for nfe in (5, 8, 12, 20):
        assert error(nfe) < min(error(nfe, *other) for other in others)
    errors = [error(nfe) for nfe in (5, 10, 20, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * float(exact.std())


def test_its_name_makes_the_same_grid():
    model = normal(scoresde.VP())
    for shape in ((2,), IMAGE):
        for nfe in (5, 30):
            chosen = recommended(model, nfe, shape)
            again = scoresde.names.grids.parse_grid(chosen.grid)(model.sde, nfe - 1)
            assert torch.equal(again, chosen.ts)


def test_the_last_step_is_asked_for_by_denoise():
    model = normal(scoresde.VP(), 0.5)
    noisy = scoresde.sample(model, nfe=5, n=4, denoise=False)
    assert not noisy.denoise
    assert noisy.nfe == 5
    assert noisy.sampler == AngularAdams(2)
    with pytest.raises(ValueError, match="denoise must be True for a sampler that ends at σ = 0"):
        scoresde.sample(model, AngularAdams(to_data=True), n=4, denoise=False)
    with pytest.raises(ValueError, match="inner must end at the grid's last time"):
        Restart(AngularAdams(to_data=True))
