"""Langevin correctors and predictor–corrector sampling."""

import pytest
import torch

from scoresde import grid
from scoresde.noise import SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    Ancestral,
    AnnealedLangevin,
    DPMSolverMultistep,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseDiffusion,
)
from scoresde.score import FunctionScore
from scoresde.sde import VE, VP, TabulatedVP


class _Given(SampleNoise):
    """Draws given as a list."""

    def __init__(self, draws):
        super().__init__(0, [0])
        self.draws = list(draws)

    def _draw(self, shape, purpose, dtype, device):
        assert purpose == "fresh"
        return self.draws.pop(0).double()


def _column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_one_step_by_hand_under_ve():
    """σ_s = 0.5, snr 0.2: ε = 2 · 0.04 · 0.25 = 0.02; v = 0.25 + 0.25, so x shrinks by 0.96."""
    sde = VE(0.25, 1.0)  # σ(1/2) = 0.5
    model = FunctionScore(sde, lambda x, t: 0.5 * (x - 0.3) / 0.5)  # ε = σ (x − 0.3)/v
    t, s = sde.nodes(torch.tensor([1.0, 0.5]))
    x = Langevin(snr=0.2).correct(model, _column(1.3, 0.3), t, s, _Given([_column(0.0, 1.0)]))
    assert torch.allclose(x, _column(0.3 + 0.96, 0.3 + 0.2), rtol=0, atol=1e-12)


def test_the_step_carries_ddpm_s_alpha_of_the_interval():
    """On a ladder a = 1 − β of the interval just crossed; here 0.6, so ε = 1.2 snr² σ_s²."""
    sde = TabulatedVP((0.1, 0.2, 0.4))
    t, s = sde.nodes(sde.ladder(3))[:2]
    variance = 1 - 0.9 * 0.8
    model = FunctionScore(sde, lambda x, t: torch.ones_like(x))
    x = Langevin(snr=0.5).correct(model, _column(0.0), t, s, _Given([_column(0.0)]))
    # −ε/σ_s = −1.2 · 0.25 · σ_s
    assert float(x) == pytest.approx(-0.3 * variance**0.5, abs=1e-12)
    x = Langevin(snr=0.5).correct(model, _column(0.0), t, s, _Given([_column(1.0)]))
    expected = -0.3 * variance**0.5 + (2 * 1.2 * 0.25 * variance) ** 0.5
    assert float(x) == pytest.approx(expected, abs=1e-12)


def test_batch_norm_by_hand():
    """‖z‖ = 3, 5 and ‖score‖ = ‖ε‖/σ = 2/σ: ε = 2a (snr · 4 σ/2)²."""
    sde = VE(0.25, 1.0)
    t, s = sde.nodes(torch.tensor([1.0, 0.5]))
    model = FunctionScore(sde, lambda x, t: torch.tensor([[0.0, 2.0], [2.0, 0.0]]).double())
    z = torch.tensor([[0.0, 3.0], [3.0, 4.0]], dtype=torch.float64)
    x = torch.zeros(2, 2, dtype=torch.float64)
    out = Langevin(snr=0.1, norm="batch").correct(model, x, t, s, _Given([z]))
    step = 2 * (0.1 * 4 * 0.5 / 2) ** 2  # 0.02
    eps = torch.tensor([[0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    expected = -step / 0.5 * eps + (2 * step) ** 0.5 * z
    assert torch.allclose(out, expected, rtol=0, atol=1e-12)


def test_both_norms_agree_in_high_dimension(elementwise):
    """For x ~ p_s with α small ‖score‖ is √d/σ: norms over d = 40,000 concentrate to 1 %."""
    model, d = elementwise(VP()), 40_000
    t, s = VP().nodes(torch.tensor([0.96, 0.95]))
    noise = SampleNoise(5, [0, 1])
    x = noise.prior((2, d))
    out = [
        Langevin(norm=norm).correct(model, x, t, s, SampleNoise(6, [0, 1])) - x
        for norm in ("exact", "batch")
    ]
    assert torch.allclose(*out, rtol=0, atol=0.02 * float(out[0].std()))


def test_correctors_hold_the_marginal(gaussian, sde):
    """The fixed point of many small steps has the mean and variance of p_s, to O(snr²)."""
    t, s = sde.nodes(torch.tensor([0.31, 0.3]))
    model = gaussian(sde)
    x = torch.zeros(3, 1, dtype=torch.float64)
    x[1] = 1.0
    zero = torch.zeros_like(x)
    pulse = zero.clone()
    pulse[2] = 1.0
    out = Langevin(snr=0.1).correct(model, x, t, s, _Given([pulse]))
    offset, shrink, kick = float(out[0]), float(out[1] - out[0]), float(out[2] - out[0])
    assert 0 < shrink < 1
    assert offset / (1 - shrink) == pytest.approx(0.3 * s.alpha, rel=1e-9)
    variance = 0.25 * s.alpha**2 + s.sigma**2
    assert kick**2 / (1 - shrink**2) == pytest.approx(variance, rel=0.011)  # ε/(2v) ≤ snr²


def test_predictor_first_then_corrector_at_the_new_time(gaussian):
    sde, calls = VP(), []

    class Recorded(type(gaussian(sde))):
        def eps(self, x, t):
            calls.append(t.t)
            return super().eps(x, t)

    model = Recorded(sde, [1.0], [[0.3]], [0.25])
    ts = grid.uniform(sde, 3)
    sampler = PredictorCorrector(ReverseDiffusion(), Langevin(steps=2))
    with torch.no_grad():
        sampler.run(model, torch.zeros(1, 1, dtype=torch.float64), ts, SampleNoise(0, [0]))
    a, b, c, d = ts.tolist()
    assert calls == [a, b, b, b, c, c, c, d, d]


def test_annealed_langevin_runs_the_last_level_and_rescales(gaussian):
    sde = VP()
    model = FunctionScore(sde, lambda x, t: torch.zeros_like(x))
    ts = grid.uniform(sde, 4)
    x = torch.ones(1, 1, dtype=torch.float64)
    out = AnnealedLangevin(steps=1).run(model, x, ts, _Given([torch.zeros(1, 1)] * 5)).state
    assert model.nfe.forward == 5
    assert float(out) == pytest.approx(float(sde.alpha(ts[-1]) / sde.alpha(ts[0])), rel=1e-12)


# σ_1, levels L, Langevin steps T and ε of the published NCSNv2 models; σ_L = 0.01.
NCSNV2 = {
    "CIFAR-10": (50, 232, 3 * 32**2, 5, 6.2e-6),
    "CelebA": (90, 500, 3 * 64**2, 5, 3.3e-6),
    "LSUN 128": (190, 1086, 3 * 128**2, 3, 1.8e-6),
    "FFHQ": (348, 2311, 3 * 256**2, 3, 0.9e-6),
}


@pytest.mark.parametrize("name", NCSNV2)
def test_ladder_and_step_are_those_of_the_published_models(name):
    sigma_max, levels, dims, steps, eps = NCSNV2[name]
    sde = VE(0.01, sigma_max)
    assert sde.overlap(levels, dims) == pytest.approx(0.567, abs=1e-3)  # the same for all
    sampler = AnnealedLangevin.for_ratio(sde.ratio(levels), steps)
    assert sampler.steps == steps
    assert sampler.step_size == pytest.approx(2 * eps / 0.01**2, rel=0.02)  # two digits


def test_the_step_of_a_ratio_leaves_the_least_variance():
    """By a run on data at one point: x ~ N(0, γ² σ²) becomes N(0, s²) at σ, with s least."""
    sde = VE(0.5, 2.0)
    model = FunctionScore(sde, lambda x, t: x / sde.sigma(t).to(x))
    one = AnnealedLangevin.for_ratio(sde.ratio(2), steps=3)

    def variance(step_size):
        moved, kicked = 2.0, 0.0  # of the part from the start, and of the part from the steps
        sampler = AnnealedLangevin(1, step_size)
        at, zero = sde.nodes([0.0])[0], torch.zeros(1, 1, dtype=torch.float64)
        for _ in range(3):
            moved = float(sampler.finish(model, zero + moved, at, _Given([zero])))
            shrink = float(sampler.finish(model, zero + 1, at, _Given([zero])))
            kick = float(sampler.finish(model, zero, at, _Given([zero + 1])))
            kicked = shrink**2 * kicked + kick**2
        return moved**2 + kicked

    best = variance(one.step_size)
    assert best > 0.25  # σ²
    assert best < min(variance(c) for c in (0.5 * one.step_size, 0.95 * one.step_size))
    assert best < min(variance(c) for c in (1.05 * one.step_size, 1.9))


def test_a_predictor_s_last_level_is_done(elementwise):
    sampler = PredictorCorrector(AnnealedLangevin(steps=3), Langevin())
    model = elementwise(VP())
    x = torch.zeros(1, 1, dtype=torch.float64)
    sampler.run(model, x, grid.uniform(VP(), 4), SampleNoise(0, [0]))
    assert model.nfe.forward == 4 * (3 + 1) + 3


def test_multistep_predictors_are_refused():
    with pytest.raises(ValueError, match="one-step method.*DPMSolverMultistep"):
        PredictorCorrector(DPMSolverMultistep(), Langevin())
    for predictor in (DDIM(), EDM(churn=3.0), Ancestral(), AnnealedLangevin()):
        PredictorCorrector(predictor, Langevin())


def test_parts_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="predictor must be a GridSampler"):
        PredictorCorrector(ProbabilityFlowODE(), Langevin())
    with pytest.raises(TypeError, match="corrector must be a Corrector"):
        PredictorCorrector(DDIM(), DDIM())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Langevin(snr=0), ValueError, "snr must be greater than 0, got 0"),
        (lambda: Langevin(snr=float("nan")), ValueError, "snr must be finite"),
        (lambda: Langevin(steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: Langevin(steps=-1), ValueError, "steps must be at least 1, got -1"),
        (lambda: Langevin(steps=1.5), TypeError, "steps must be an integer, got 1.5"),
        (lambda: Langevin(norm="mean"), ValueError, "norm must be one of exact, batch"),
        (lambda: AnnealedLangevin(steps=0), ValueError, "steps must be at least 1"),
        (lambda: AnnealedLangevin(step_size=4.0), ValueError, "step_size must be less than 4"),
        (lambda: AnnealedLangevin.for_ratio(1.0), ValueError, "ratio must be greater than 1"),
        (lambda: AnnealedLangevin(step_size=0.0), ValueError, "step_size must be greater than 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
