"""Networks of discrete labels are evaluated at their own times only, as in DDPM's DDIM."""

import math

import pytest
import torch
from torch import nn

from scoresde import grid
from scoresde.likelihood import Ode, log_likelihood
from scoresde.noise import SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    Ancestral,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    sample,
)
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, wrap
from scoresde.sde import TabulatedVP, cosine_betas

N = 40
SDE = TabulatedVP(cosine_betas(N))


class Discrete(nn.Module):
    """ε̂ = (1 + c_i) x/2 with a table of c, which has no entry between two integers."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.rand(N, generator=generator, dtype=torch.float64))
        self.seen = []

    def forward(self, x, label, y):
        self.seen += label.tolist()
        return 0.5 * (1 + self.table[label.round().long()])[:, None] * x


@pytest.fixture
def snapped():
    """A snapped model of unscaled input."""
    return NetworkScore(Discrete(), SDE, Preconditioning("eps", "rounded_index", scale_input=False))


def test_off_grid_says_whether_a_model_is_evaluated_between_the_times(any_sampler):
    """`off_grid` is True for samplers that evaluate between the grid's times, and only for them."""
    seen = set()

    def eps(x, t):
        seen.update(torch.atleast_1d(t).tolist())
        return 0.5 * x

    ts = grid.snapped(SDE, grid.uniform(SDE, 6))
    with torch.no_grad():
        start = torch.ones(2, 1, dtype=torch.float64)
        any_sampler.sampler.run(FunctionScore(SDE, eps), start, ts, SampleNoise(0, range(2)))
    off = any(min(abs(t - s) for s in ts.tolist()) > 1e-9 for t in seen)
    assert any_sampler.sampler.off_grid is off


def test_a_snapped_network_gets_integers_or_the_sampler_is_refused(any_sampler, snapped):
    ts = grid.snapped(SDE, grid.log_snr(SDE, 6))

    def run():
        return sample(snapped, any_sampler.sampler, ts, (3, 2), seed=0)

    if any_sampler.sampler.off_grid:
        with pytest.raises(
            ValueError, match="cannot run: it evaluates the model between the times"
        ):
            run()
        assert snapped.net.seen == []
        return
    assert bool(torch.isfinite(run().x).all())
    wanted = {round(N * t - 1) for t in ts.tolist()}
    assert set(snapped.net.seen) <= wanted


@pytest.mark.parametrize(
    ("sampler", "off"),
    [
        (DDIM(0.3), False),
        (EDM(), False),
        (EDM(churn=1.0), True),
        (PredictorCorrector(EDM(), Langevin()), False),
        (PredictorCorrector(EDM(churn=1.0), Langevin()), True),
        (EulerMaruyama(), False),
        (ProbabilityFlowODE("dopri5"), True),
    ],
)
def test_off_grid_depends_on_the_parameters(sampler, off):
    assert sampler.off_grid is off
    assert (sampler.refusal(True, False) is not None) is off
    assert sampler.refusal(False, False) is None


def test_a_grid_off_the_ladder_is_refused_before_the_first_call(snapped):
    with pytest.raises(ValueError, match=r"not one of the 40 discrete times .* grid\.snapped"):
        sample(snapped, DDIM(), grid.uniform(SDE, 6), (1, 1), seed=0)
    assert snapped.net.seen == []
    free = NetworkScore(snapped.net, SDE, Preconditioning("eps", "index"))
    # interpolation takes any time down to that of the first label
    sample(free, DDIM(), grid.uniform(SDE, 6, 1 / 40), (1, 1), seed=0)


def test_a_likelihood_is_refused_before_the_first_call(snapped):
    with pytest.raises(ValueError, match="model must be exact at every time, got one with rounded"):
        log_likelihood(snapped, torch.zeros(2, 3, dtype=torch.float64), Ode(t_min=0.05))
    assert snapped.net.seen == []


def _alpha_bars():
    product, found = 1.0, []
    for beta in SDE.betas:
        product *= 1 - beta
        found.append(product)
    return found


@pytest.mark.parametrize("steps", [1, 4, 13, N - 1])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_on_the_snapped_ladder_is_ddpm_s_discrete_one(snapped, steps, eta):
    """Song et al. 2020 (DDIM), eq. (12), on indices alone, ᾱ from the table; the last to ᾱ = 1."""
    ts = grid.snapped(SDE, grid.uniform(SDE, steps))
    out = sample(snapped, DDIM(eta), ts, (5, 3), seed=1, dtype=torch.float64)
    bars, indices = _alpha_bars(), [round(N * t - 1) for t in ts.tolist()]
    assert (indices[0], indices[-1], len(indices)) == (N - 1, 0, steps + 1)
    source = SampleNoise(1, range(5))
    x = source.prior((5, 3)).double()
    for i, j in zip(indices, [*indices[1:], None], strict=True):
        bar, previous = bars[i], 1.0 if j is None else bars[j]
        eps = snapped.net(x, torch.full((5,), float(i)), None).detach()
        x0 = (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        variance = 0.0
        if j is not None:
            variance = eta**2 * (1 - previous) / (1 - bar) * (1 - bar / previous)
        x = math.sqrt(previous) * x0 + math.sqrt(1 - previous - variance) * eps
        if variance > 0:
            x = x + math.sqrt(variance) * source.increment(x, (i + 1) / N, (j + 1) / N)
    # a few hundred roundings
    torch.testing.assert_close(out.x, x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("variance", "n"), [("beta_tilde", 1000), ("beta", 100)])
def test_the_chain_of_ancestral_is_algorithm_2(variance, n):
    """Ho et al. 2020, algorithm 2, on β and ᾱ alone: indices n − 1 … 0, no noise in the last."""
    betas = [1e-4 + i / (n - 1) * (0.02 - 1e-4) for i in range(n)]
    sde, seen = TabulatedVP(betas), []

    def net(x, label, y):
        seen.append(float(label[0]))
        return torch.sin(x + 0.01 * label[:, None])

    model = wrap(net, sde, "eps", label="index")
    ladder = sde.ladder()
    out = sample(model, Ancestral(variance), ladder, (2, 3), seed=1, dtype=torch.float64)
    assert out.nfe == n
    assert seen == pytest.approx(range(n - 1, -1, -1), abs=1e-9)
    source, bars = SampleNoise(1, range(2)), [1.0]
    for beta in betas:
        bars.append(bars[-1] * (1 - beta))
    x = source.prior((2, 3)).double()
    for i in range(n - 1, -1, -1):
        beta, bar, before = betas[i], bars[i + 1], bars[i]
        eps = torch.sin(x + 0.01 * i)
        x = (x - beta / math.sqrt(1 - bar) * eps) / math.sqrt(1 - beta)
        if i > 0:
            scale = beta if variance == "beta" else (1 - before) / (1 - bar) * beta
            x = x + math.sqrt(scale) * source.increment(x, (i + 1) / n, i / n)
    # a thousand steps of rounding
    torch.testing.assert_close(out.x, x, rtol=1e-9, atol=1e-9)


def test_interpolated_and_rounded_labels_give_the_same_samples_on_the_ladder(snapped):
    free = NetworkScore(snapped.net, SDE, Preconditioning("eps", "index", scale_input=False))
    ts = grid.snapped(SDE, grid.karras(SDE, 12))
    for sampler in (DDIM(), Ancestral(), EDM()):
        one, other = (sample(m, sampler, ts, (4, 2), seed=3).x for m in (snapped, free))
        assert torch.equal(one, other)
