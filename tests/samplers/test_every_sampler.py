"""Laws that hold for every sampler: counts, independence of the batch, shapes, failures."""

import math
import time
from typing import get_args

import pytest
import torch
from torch import nn

from scoresde import _deferred, grid
from scoresde._tensor import NonFiniteError, expand
from scoresde.noise import BatchNoise, SampleNoise
from scoresde.samplers import (
    DDIM,
    EDM,
    AdaptiveSDE,
    Ancestral,
    DPMSolverMultistep,
    EulerMaruyama,
    ProbabilityFlowODE,
    RungeKutta,
    UniPC,
    sample,
)
from scoresde.score import FunctionScore, NetworkScore, Preconditioning, Target
from scoresde.sde import VE, VP, Linear


def test_evaluations_are_those_promised(elementwise, grid_case):
    sde = VP()
    for steps in (1, 2, 3, 5, 10):
        ts = grid.GRIDS["uniform" if steps % 2 else "log_snr"](sde, steps)
        assert ts.shape == (steps + 1,)
        seen = []
        out = sample(
            elementwise(sde),
            grid_case.sampler,
            ts,
            (2, 1),
            seed=0,
            dtype=torch.float64,
            on_step=lambda i, t, x, seen=seen: seen.append((i, t)),
            denoise=False,
        )
        assert out.nfe == grid_case.nfe(steps)
        assert bool(torch.isfinite(out.x).all())
        assert seen == list(enumerate(ts[1:].tolist(), start=1))
        assert torch.equal(out.ts, ts)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", grid.GRIDS)
def test_evaluations_of_long_grids(elementwise, grid_case, spacing):
    sde = VP()
    # an even and an odd number of many steps, on one grid: hundreds take up to a second
    for steps in (20, 21, 37, *((100, 301) if spacing == "uniform" else ())):
        ts = grid.GRIDS[spacing](sde, steps)
        out = sample(
            elementwise(sde),
            grid_case.sampler,
            ts,
            (1, 1),
            seed=0,
            dtype=torch.float64,
            denoise=False,
        )
        assert out.nfe == grid_case.nfe(steps)
        assert bool(torch.isfinite(out.x).all())


def test_every_pair_of_sampler_and_sde_is_possible(elementwise, any_sampler, all_sdes):
    """Nothing is refused: all is said with α, σ, f, g and λ, which every SDE here has."""
    extreme = [sde for sde in all_sdes if isinstance(sde, (VE, Linear))]
    # an adaptive solver takes a hundred times as long
    for sde in extreme if any_sampler.nfe is None else all_sdes:
        sample(elementwise(sde), any_sampler.sampler, grid.log_snr(sde, 3), (4, 1), seed=1)
    sde = VE()  # others are its rescalings, and have tests of their limits in other files
    ts, noise = grid.log_snr(sde, 40), BatchNoise(1)
    out = sample(elementwise(sde), any_sampler.sampler, ts, (400, 1), noise=noise)
    # Not exact for some (3 Langevin steps a level), but none is off by half the data's
    # spread or by a factor of two; the Monte Carlo error of 400 samples is 0.025.
    assert float(out.x.mean()) == pytest.approx(0.3, abs=0.25)
    assert 0.25 < float(out.x.std()) < 1.0


def test_a_sample_is_the_same_alone_and_in_any_batch(mixture, alone_case, rng_untouched):
    model, ts = mixture(VP()), grid.log_snr(VP(), 6)
    run = {"seed": 7, "dtype": torch.float64}
    whole = sample(model, alone_case.sampler, ts, (6, 2), **run)
    parts = sample(model, alone_case.sampler, ts, (6, 2), batch=4, **run)
    assert torch.equal(parts.x_init, whole.x_init)
    # the order of sums inside a batch moves the last bits
    assert torch.allclose(parts.x, whole.x, rtol=1e-12, atol=1e-12)
    assert parts.nfe == whole.nfe
    order = [5, 0, 3]
    some = sample(
        model, alone_case.sampler, ts, (3, 2), noise=SampleNoise(7, order), dtype=torch.float64
    )
    assert torch.equal(some.x_init, whole.x_init[order])
    assert torch.allclose(some.x, whole.x[order], rtol=1e-12, atol=1e-12)


class _Net(nn.Module):
    """A small network whose output for a sample depends on that sample alone."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)

    def forward(self, x, label, y):
        level = label.to(x.dtype)[:, None, None, None].expand_as(x)
        return self.last(torch.tanh(self.first(torch.cat([x, level], dim=1))))


@pytest.mark.parametrize("sampler", [DDIM(), DPMSolverMultistep(), Ancestral(), EDM(5.0)], ids=str)
def test_a_sample_of_a_network_is_the_same_in_any_batch(sampler):
    model, ts = NetworkScore(_Net(), VP(), Preconditioning()), grid.log_snr(VP(), 8)
    whole = sample(model, sampler, ts, (6, 1, 7, 5), seed=7)
    parts = sample(model, sampler, ts, (6, 1, 7, 5), seed=7, batch=4)
    assert torch.allclose(parts.x, whole.x, rtol=1e-5, atol=1e-5)


def test_the_seed_fixes_every_bit(elementwise, any_sampler, rng_untouched):
    model, ts = elementwise(VP()), grid.log_snr(VP(), 3)
    a, b, c = (sample(model, any_sampler.sampler, ts, (3, 2), seed=s).x for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_stochastic_sampler_draws_and_a_deterministic_one_does_not(elementwise, any_sampler):
    class Silent(BatchNoise):
        def _draw(self, shape, purpose, dtype, device):
            drawn.append(purpose)
            return super()._draw(shape, purpose, dtype, device)

    drawn: list[str] = []
    x = torch.zeros(2, 1, dtype=torch.float64)
    any_sampler.sampler.run(elementwise(VP()), x, grid.uniform(VP(), 4), Silent(0))
    assert bool(drawn) == any_sampler.stochastic
    assert torch.equal(x, torch.zeros_like(x))  # inputs are never changed


def test_the_grid_and_the_start_are_not_changed(elementwise, any_sampler):
    sde = VP()
    ts = grid.log_snr(sde, 4)
    start = torch.ones(2, 3, dtype=torch.float64)
    kept = ts.clone()
    sample(
        elementwise(sde), any_sampler.sampler, ts, (2, 3), seed=0, x_init=start, dtype=torch.float64
    )
    assert torch.equal(ts, kept)
    assert torch.equal(start, torch.ones_like(start))


def test_shapes_and_dtypes(elementwise, any_sampler):
    """Of single numbers and images; most other tests have vectors."""
    model, ts = elementwise(VP()), grid.log_snr(VP(), 2)
    numbers = sample(model, any_sampler.sampler, ts, (4,), seed=0)
    single = sample(model, any_sampler.sampler, ts, (2, 3, 7, 5), seed=0)
    double = sample(model, any_sampler.sampler, ts, (2, 3, 7, 5), seed=0, dtype=torch.float64)
    assert (numbers.x.shape, numbers.x.dtype) == ((4,), torch.float32)
    assert single.x.shape == double.x.shape == (2, 3, 7, 5)
    assert (single.x.dtype, double.x.dtype) == (torch.float32, torch.float64)
    if any_sampler.nfe is not None:  # an adaptive solver may choose other steps
        # float32 keeps 6e-8 of states and their factors, which reach σ/α = 152
        scale = max(1.0, float(double.x.abs().max()))
        assert torch.allclose(single.x.double(), double.x, rtol=1e-4, atol=5e-4 * scale)


def test_no_samples_cost_nothing(elementwise, any_sampler):
    out = sample(elementwise(VP()), any_sampler.sampler, grid.uniform(VP(), 3), (0, 2), seed=0)
    assert out.x.shape == out.x_init.shape == (0, 2)
    assert out.nfe == 0


class _Faulty:
    """ε of N(0, 1) data, but for one call."""

    def __init__(self, fault, at):
        self.fault, self.at, self.calls = fault, at, 0

    def __call__(self, x, t):
        self.calls += 1
        # a factor that keeps adaptive solvers at work
        out = x * expand(torch.sqrt(1 - torch.exp(-t)), x).to(x)
        return self.fault(out) if self.calls == self.at else out


FAULTS = {
    # of a batch that samples may have left already
    "1 non-finite values of [246]": lambda out: out.index_put(
        (torch.tensor([0]), torch.tensor([1])), torch.tensor(float("inf"), dtype=out.dtype)
    ),
    r"network returned \([123], 1\)": lambda out: out[:, :1],
    "network returned torch.int64": lambda out: out.long(),
    "network returned a list whose first entry is str": lambda out: ["out", out],
}


def _not_finite(out):
    return out * float("nan")


def _named_at_once(sampler, fault, message, at):
    """Whether a fault of one call is named, before anything is computed with it."""
    network, begin = _Faulty(fault, at), time.process_time()
    with pytest.raises(RuntimeError, match=message):
        sample(FunctionScore(VP(), network), sampler, grid.log_snr(VP(), 5), (3, 2), seed=0)
    return network.calls == at and time.process_time() - begin < 2


def test_a_fault_of_the_network_is_named_at_once(any_sampler):
    """Every call is checked in the same way, so that one fault shows that none is left out."""
    healthy = _Faulty(None, 0)
    model, ts = FunctionScore(VP(), healthy), grid.log_snr(VP(), 5)
    sample(model, any_sampler.sampler, ts, (3, 2), seed=0)
    for at in {1, (healthy.calls + 1) // 2, healthy.calls}:
        assert _named_at_once(any_sampler.sampler, _not_finite, "non-finite", at)


def test_on_an_accelerator_the_same_time_is_named_at_the_end(any_sampler, monkeypatch):
    said = []
    for deferred in (False, True):
        monkeypatch.setattr(_deferred, "on_accelerator", lambda x, deferred=deferred: deferred)
        model = FunctionScore(VP(), _Faulty(_not_finite, 2))
        with pytest.raises(NonFiniteError) as found:
            sample(model, any_sampler.sampler, grid.log_snr(VP(), 3), (3, 2), seed=0)
        said.append(str(found.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("message", FAULTS)
@pytest.mark.parametrize(
    "sampler",
    [DDIM(), ProbabilityFlowODE(), ProbabilityFlowODE(per_sample=True), AdaptiveSDE()],
    ids=repr,
)
def test_every_fault_is_named(sampler, message):
    """By each of the loops that call a network."""
    assert _named_at_once(sampler, FAULTS[message], message, 4)


def test_the_limit_of_evaluations_names_the_time_reached(elementwise, any_sampler):
    ts = grid.log_snr(VP(), 20)
    with pytest.raises(RuntimeError, match=r"limit of 7 network evaluations was reached at t=0\."):
        sample(elementwise(VP()), any_sampler.sampler, ts, (2, 2), seed=0, max_nfe=7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DDIM(-0.1), ValueError, "eta must be at least 0, got -0.1"),
        (lambda: DDIM(1.5), ValueError, "eta must be at most 1, got 1.5"),
        (lambda: DDIM("1"), TypeError, "eta must be a number"),
        (
            lambda: Ancestral("posterior"),
            ValueError,
            "variance must be one of beta, beta_tilde, learned",
        ),
        (lambda: EulerMaruyama(-1.0), ValueError, "eta must be at least 0"),
        (lambda: EDM(churn=-1.0), ValueError, "churn must be at least 0"),
        (lambda: EDM(s_min=2.0, s_max=1.0), ValueError, "s_max must be at least 2.0, got 1.0"),
        (lambda: EDM(s_max=float("nan")), ValueError, "s_max must be finite"),
        (lambda: EDM(s_noise=0.0), ValueError, "s_noise must be greater than 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def _reusing(eps, returned):
    """ε of a function that spoils its arguments, and returns its input or one buffer each time."""
    buffers = {}

    def function(x, t):
        out = eps(x, t)
        buffer = buffers.setdefault(x.shape, torch.empty_like(x))
        buffer.copy_(out)
        x.data.numpy()[:] = out.numpy() if returned == "input" else math.nan
        t.mul_(0.5)
        return x.view_as(x) if returned == "input" else buffer

    return function


def test_functions_that_reuse_memory(elementwise, any_sampler):
    """They give the numbers of other functions, though steps keep several outputs at a time."""
    model = elementwise(VP())
    ts = grid.log_snr(VP(), 5)
    want = sample(model, any_sampler.sampler, ts, (3, 2), seed=0)
    for returned in ("input", "buffer"):
        other = FunctionScore(VP(), _reusing(model.function, returned))
        got = sample(other, any_sampler.sampler, ts, (3, 2), seed=0)
        assert torch.equal(got.x, want.x)
        assert got.nfe == want.nfe


class _OneBuffer(nn.Module):
    """A network with a buffer for its output, which it writes into its input as well."""

    def __init__(self, reuse):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        nn.init.constant_(self.linear.weight, 0.3)
        nn.init.constant_(self.linear.bias, 0.1)
        self.reuse, self.kept = reuse, {}

    def forward(self, x, label, y=None):
        out = self.linear(x) * label.to(x).tanh()[:, None]
        if not self.reuse:
            return out
        label.zero_()
        return self.kept.setdefault(x.shape, torch.empty_like(out)).copy_(x.copy_(out))


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize(
    "sampler",
    [UniPC(3, prediction="eps"), DPMSolverMultistep(3), RungeKutta("heun2")],
    ids=["keeps ε", "keeps x0", "keeps dx/dt"],
)
def test_networks_that_reuse_memory(sampler, target):
    """A sampler asks for ε, x0 or the slope of x, each computed from every target."""
    ts = grid.log_snr(VE(), 6)
    want, got = (
        sample(
            NetworkScore(_OneBuffer(reuse), VE(), Preconditioning(target)),
            sampler,
            ts,
            (3, 2),
            seed=0,
        )
        for reuse in (False, True)
    )
    assert torch.equal(got.x, want.x)


@pytest.mark.slow
def test_surroundings_do_not_matter(any_sampler):
    """Autocast, inference mode, default dtype and default device around a call change no bit."""
    model = NetworkScore(_OneBuffer(False), VP(), Preconditioning())
    ts = grid.log_snr(VP(), 5)
    want = sample(model, any_sampler.sampler, ts, (3, 2), seed=0)
    torch.set_default_dtype(torch.float64)
    try:
        with (
            torch.autocast("cpu", torch.bfloat16),
            torch.inference_mode(),
            torch.device("meta"),
        ):
            got = sample(model, any_sampler.sampler, ts, (3, 2), seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.x.dtype == want.x.dtype
    assert torch.equal(got.x, want.x)
    assert torch.equal(got.x_init, want.x_init)
