"""The recommended settings: counted evaluations, exact cases, errors against other settings."""

import pytest
import torch

import scoresde
from scoresde.data import DataSpec
from scoresde.exact import GaussianMixture
from scoresde.grid import LadderError
from scoresde.nets import MLP
from scoresde.samplers import AngularAdams, Restart
from scoresde.samplers.recommended import recommended

IMAGE = (1, 4, 4)


def normal(sde, std=1.0):
    return GaussianMixture(sde, [1.0], [[0.0, 0.0]], [std**2])


def zero(sde):
    return scoresde.FunctionScore(sde, lambda x, t: 0 * x)


@pytest.mark.by_default("VE", "Linear")
def test_every_number_of_evaluations_is_used_wholly(sde):
    model = zero(sde)
    for shape in ((3,), IMAGE):
        before = 1.0
        for nfe in (*range(1, 17), 25, 50):
            out = scoresde.sample(model, shape=(2, *shape), nfe=nfe)
            assert out.nfe == nfe
            assert len(out.ts) == max(nfe, 2)
            assert out.denoise == (nfe > 1)
            assert float(out.ts[-1]) >= 1e-4
            if nfe > 1:
                assert float(out.ts[-1]) <= before  # more evaluations end nearer to the data
                before = float(out.ts[-1])


def test_data_of_the_assumed_standard_deviation_are_exact(sde):
    """For N(0, d² I) the ODE keeps x/√(d²α² + σ²), and v = 0."""
    (d,) = {recommended(normal(sde), nfe).sampler.data_std for nfe in (2, 5, 15)}
    model, (top,) = normal(sde, d), sde.nodes([1.0])
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for nfe in (2, 5, 15):
        out = scoresde.sample(model, nfe=nfe, x_init=x, dtype=torch.float64)
        exact = d * x / ((d * top.alpha) ** 2 + top.sigma**2) ** 0.5
        torch.testing.assert_close(out.x, exact, rtol=1e-9, atol=1e-9)  # rounding


def mixture(sde, d=6, k=4):
    draw = torch.Generator().manual_seed(3)
    means = torch.randn(k, d, generator=draw, dtype=torch.float64)
    return GaussianMixture(sde, [1 / k] * k, means, [0.04 + 0.1 * i for i in range(k)])


@pytest.mark.parametrize("sde", [scoresde.VP(), scoresde.VE(0.01, 50.0)], ids=["VP", "VE"])
@pytest.mark.by_default("VP")
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
    assert noisy.sampler == AngularAdams(2, data_std=0.63)
    with pytest.raises(ValueError, match="denoise must be True for a sampler that ends at σ = 0"):
        scoresde.sample(model, AngularAdams(to_data=True), n=4, denoise=False)
    with pytest.raises(ValueError, match="inner must end at the grid's last time"):
        Restart(AngularAdams(to_data=True))


def test_the_last_evaluation_stands_before_a_step_to_the_data():
    """In θ^{1/p}, tan θ = σ/(α d), it is 1.5 steps away, and 2 for images; by plain arithmetic."""
    sde = scoresde.VE(0.001, 50.0)
    settings = {(64,): (4 * 1.5 ** (1 / 3), 2.4, 1.5, 2.0), (1, 8, 64): (12.8, 3.0, 2.0, 1.0)}
    for shape, (d, power, last, own) in settings.items():
        best = recommended(zero(sde), 15, shape)
        angles = torch.atan(sde.sigma(best.ts) / d) ** (1 / power)
        assert (-angles.diff()).tolist() == pytest.approx(
            [float(angles[0]) / (14 + last)] * 14, 0.01
        )
        assert float(angles[-1]) == pytest.approx(last * float(angles[0]) / (14 + last), 0.01)
        assert best.sampler == AngularAdams(4, to_data=True, data_std=own)


def test_half_the_range_of_quantized_data_is_their_unit():
    """Data d x under VE(d a, d b) get the same levels in units of d."""
    best = {}
    for unit in (1, 5):
        model = zero(scoresde.VE(0.01 * unit, 20.0 * unit))
        model.data = DataSpec((8,), low=0, high=2 * unit, levels=256)
        best[unit] = recommended(model, 9)
    torch.testing.assert_close(best[5].ts, best[1].ts, rtol=0.01, atol=0)
    assert best[5].sampler.data_std == 5 * best[1].sampler.data_std == 5.0
    model.data = DataSpec((8,), low=0, high=2 * unit, levels=None)
    assert recommended(model, 9).sampler.data_std == 1.0


def test_a_shape_that_nobody_says_is_that_of_64_numbers():
    assert recommended(zero(scoresde.VP()), 7).sampler.data_std == 2.0
    assert recommended(zero(scoresde.VP()), 7, (27,)).sampler.data_std == 1.5
    assert scoresde.sample(zero(scoresde.VP()), shape=(2, 27), nfe=7).sampler.data_std == 1.5


@pytest.mark.parametrize("levels", [50, 300])
def test_rounded_labels_get_times_of_the_ladder(levels):
    sde = scoresde.TabulatedVP([1e-4 + 20 / levels * i / levels for i in range(levels)])
    model = scoresde.wrap(MLP((2,)), sde, "eps", label="rounded_index")
    for nfe in (1, 2, 5, 12, 50):
        best = recommended(model, nfe, (2,))
        index = best.ts * levels
        torch.testing.assert_close(index, index.round(), rtol=0, atol=1e-9)
        assert scoresde.sample(model, nfe=nfe, shape=(2, 2)).nfe == nfe
    if levels == 50:
        with pytest.raises(LadderError, match="51 times do not fit"):
            recommended(model, 51, (2,))
