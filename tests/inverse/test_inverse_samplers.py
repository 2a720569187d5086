"""Samplers for a measured model: their laws, their independence, and who runs on what."""

import math

import pytest
import torch

import scoresde
from scoresde.exact import GaussianMixture
from scoresde.inverse import (
    DDNM,
    DDRM,
    DPS,
    Foreign,
    Mask,
    Measured,
    PiGDM,
    Projection,
    RePaint,
    Replacement,
    TwistedSMC,
    posterior,
)
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import DDIM, UniPC

FIRST = Mask(torch.tensor([True, False]))
ROW = Projection(torch.tensor([[1.0, -0.5]]))
OURS = (Replacement(), RePaint(2, 2), DDRM(), TwistedSMC(3))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def both(model, operator=ROW, noise=0.3):
    return Measured(model, operator, noise)


@pytest.mark.parametrize("sampler", OURS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.by_default("VE", "Linear")
def test_every_sde_gives_finite_samples_that_do_not_depend_on_others(sde, mixture, sampler):
    model, y = both(mixture(sde)), double([0.4], [-0.3], [1.0])
    steps = {"n": 3, "nfe": 19, "y": y, "seed": 1, "dtype": torch.float64}
    out = scoresde.sample(model, sampler, **steps)
    assert bool(out.x.isfinite().all())
    assert out.nfe <= 19
    parts = scoresde.sample(model, sampler, **steps, batch=2)
    torch.testing.assert_close(parts.x, out.x, rtol=1e-9, atol=1e-9)
    if isinstance(sampler, TwistedSMC):
        torch.testing.assert_close(parts.effective, out.effective, rtol=1e-9, atol=0)
        assert bool(((out.effective >= 1 - 1e-12) & (out.effective <= 3 + 1e-12)).all())
    else:
        assert out.effective is None


@pytest.mark.parametrize("sampler", [Replacement(), RePaint(2, 1), DDRM()])
def test_measured_entries_have_the_noise_of_the_state(mixture, sampler):
    sde, y, n = scoresde.VP(), 0.7, 4000
    ts, model = [0.9, 0.5, 0.2], both(mixture(sde), FIRST, 0.0)
    start = torch.zeros(n, 2, dtype=torch.float64)
    x = scoresde.sample(model, sampler, ts, y=double([y]), x_init=start, denoise=False).x[:, 0]
    z = (x - float(sde.alpha(0.2)) * y) / float(sde.sigma(0.2))
    # Three standard errors of the mean and of the variance.
    assert abs(float(z.mean())) < 3 / math.sqrt(n)
    assert abs(float(z.var()) - 1) < 3 * math.sqrt(2 / n)


def test_ddrm_takes_ddim_steps_where_nothing_is_measured(mixture):
    """η = 0, of which both are deterministic there; and with noise, η = 0 and little noise left."""
    sde = scoresde.VP()
    model, ts, start = mixture(sde), [0.6, 0.3], double([0.4, -0.2], [1.0, 0.3])
    steps = {"x_init": start, "denoise": False}
    wanted = scoresde.sample(model, DDIM(), ts, **steps).x
    given = {**steps, "y": double([0.4])}
    found = scoresde.sample(both(model, FIRST), DDRM(eta=0.0), ts, **given).x
    torch.testing.assert_close(found[:, 1], wanted[:, 1], rtol=1e-12, atol=1e-12)
    # The measured entry of a noisy measurement: towards y by the share σ̂_s/σ_y, without noise.
    std = 100.0
    found = scoresde.sample(both(model, FIRST, std), DDRM(eta=0.0), ts, **given).x
    x0, node = model.x0(start, 0.6)[:, 0], sde.nodes([0.3])[0]
    share = node.sigma / node.alpha / std
    wanted = node.alpha * (x0 + share * (0.4 - x0))
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-12, atol=1e-12)


def test_repaint_without_repetition_is_replacement_and_costs_are_counted(mixture):
    model, y = both(mixture(scoresde.VP())), double([0.4])
    ts = scoresde.grid.log_snr(model.sde, steps=7)
    plain = scoresde.sample(model, Replacement(), ts, y=y, n=3)
    assert torch.equal(scoresde.sample(model, RePaint(1, 3), ts, y=y, n=3).x, plain.x)
    assert plain.nfe == 8
    # Parts of 3, 3 and 1 steps, each done four times, and the last denoising.
    assert scoresde.sample(model, RePaint(4, 3), ts, y=y, n=3).nfe == 29
    with scoresde.score.count_nfe(model) as counted:
        scoresde.sample(model, TwistedSMC(5), ts, y=y, n=3)
    assert (counted.forward, counted.derivative) == (5 * 8 + 1, 5 * 8)


def test_particles_follow_the_exact_posterior_of_gaussian_data(sde):
    """The chain without measurement is exact there for any steps, so that only K is finite."""
    variance, n, k = 0.6, 300, 40
    prior = GaussianMixture(sde, [1.0], [[0.4]], [variance])
    operator, noise, y = Projection(torch.tensor([[1.5]])), 0.4, double([1.2])
    exact = posterior(prior, operator, y[0], noise)
    ts = scoresde.grid.log_snr(sde, 4, 0.1, sde.t_regular)
    sampler = TwistedSMC(k, data_var=variance)
    steps = {"n": n, "seed": 2, "denoise": False, "dtype": torch.float64}
    x = scoresde.sample(both(prior, operator, noise), sampler, ts, y=y, **steps).x[:, 0]
    node = sde.nodes(ts[-1:])[0]  # the twist is exact there, and so is the law of x
    mean = float(node.alpha * exact.mean())
    std = math.sqrt(node.alpha**2 * float(exact.cov()) + node.sigma**2)
    # Three standard errors; the first state has the prior's mean 0, whose share in x0 is below 1 %.
    assert abs(float(x.mean()) - mean) < 3 * std / math.sqrt(n)
    assert abs(float(x.var()) / std**2 - 1) < 3 * math.sqrt(2 / n)


@pytest.mark.slow  # 400 samples of 16 particles at 60 times
def test_particles_follow_the_exact_posterior_of_a_mixture(mixture):
    prior, y, n = mixture(scoresde.VP()), double([0.4]), 400
    exact = posterior(prior, ROW, y[0], 0.3)
    ts = scoresde.grid.log_snr(prior.sde, steps=60)
    out = scoresde.sample(both(prior), TwistedSMC(16), ts, n=n, y=y, seed=3, dtype=torch.float64)
    std = exact.cov().diagonal().sqrt()
    assert bool(((out.x.mean(0) - exact.mean()).abs() < 3 * std / math.sqrt(n)).all())
    reference = exact.sample(20_000, seed=4)
    floor = scoresde.metrics.sliced_wasserstein(exact.sample(n, seed=5), reference)
    found = scoresde.metrics.sliced_wasserstein(out.x, reference)
    assert found.value - floor.value < 3 * math.hypot(found.std_error, floor.std_error)


@pytest.mark.slow  # 80 measurements, 39 samples of 8 particles for each
def test_intervals_of_particles_cover_the_truth(mixture):
    """The rank of the truth among 39 samples is uniform in 0 … 39: 38 of 40 are inside."""
    prior, many, each = mixture(scoresde.VP()), 80, 39
    truth = prior.sample(many, seed=6)
    y = ROW.A(truth) + 0.3 * torch.randn(many, 1, generator=torch.Generator().manual_seed(7))
    ts = scoresde.grid.log_snr(prior.sde, steps=40)
    y = y.double().repeat_interleave(each, 0)
    x = scoresde.sample(both(prior), TwistedSMC(8), ts, y=y, seed=8, dtype=torch.float64).x
    rank = (x.reshape(many, each, 2) < truth[:, None]).sum(1)
    share = float(((rank >= 1) & (rank <= 38)).double().mean())
    assert share == pytest.approx(0.95, abs=0.03)  # 1.8 standard errors of 160 numbers


def test_one_particle_is_guided_alone(mixture):
    model = both(mixture(scoresde.VP()))
    out = scoresde.sample(model, TwistedSMC(1), n=3, y=double([0.4]), nfe=8)
    assert out.effective.tolist() == [1.0] * 3


def wrapped(kind, model):
    """A wrapped model and its measurement."""
    return {
        "PiGDM": lambda: PiGDM(model, ROW, 0.3),
        "DDNM": lambda: DDNM(model, ROW, 0.3),
        "DPS": lambda: DPS(model, ROW, 2.0),
    }[kind]()


def check_run(model, name):
    """Two steps run, or are refused by one line before any evaluation."""
    sampler = parse_sampler(name)
    times = scoresde.samplers.choice.start_time(model, sampler)
    ts = scoresde.grid.log_snr(model.sde, 2, 0.2, times if times < 1 else model.sde.t_regular)
    try:
        out = scoresde.sample(model, sampler, ts, n=2, y=double([0.4]))
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert bool(out.x.isfinite().all())
    assert "\n" not in refusal
    assert (model.nfe.forward > 0) == (refusal == "")


KINDS = ("PiGDM", "DDNM", "DPS")
FEW = ("ddim", "angular", "heun", "sde-dpmpp-2m", "euler-maruyama")


def test_wrappers_run_with_samplers_of_every_family(sde, mixture):
    for i, name in enumerate(FEW):
        check_run(wrapped(KINDS[i % len(KINDS)], mixture(sde)), name)


LOOSE = {  # few evaluations: only whether it runs is asked
    "annealed-langevin": ":steps=1",
    **dict.fromkeys(
        (name for name in SAMPLERS if hasattr(parse_sampler(name), "rtol")), ":rtol=0.1:atol=0.1"
    ),
}


@pytest.mark.slow  # all of them, about 2 s for each SDE
def test_wrappers_run_with_every_sampler_or_are_refused(all_sdes, mixture):
    """Each sampler with each SDE, and with each wrapper under two or three of them."""
    for first, sde in enumerate(all_sdes):
        for i, name in enumerate(SAMPLERS):
            model = wrapped(KINDS[(first + i) % len(KINDS)], mixture(sde))
            check_run(model, name + LOOSE.get(name, ""))


@pytest.mark.parametrize("sampler", OURS, ids=lambda sampler: type(sampler).__name__)
def test_our_samplers_need_a_model_with_a_measurement(mixture, sampler):
    model = mixture(scoresde.VP())
    for wrong in (model, PiGDM(model, ROW, 0.3)):
        y = None if wrong is model else double([0.4])
        words = f"needs a model with a measurement .* got {type(wrong).__name__}"
        with pytest.raises(ValueError, match=words):
            scoresde.sample(wrong, sampler, [0.9, 0.5], n=2, y=y, x_init=torch.zeros(2, 2))
        assert wrong.nfe.forward == 0


def test_gradients_pass_through_ddrm(mixture):
    model, y = both(mixture(scoresde.VP())), double([0.4]).requires_grad_()
    ts, start = [0.8, 0.4, 0.1], double([0.4, -0.2])
    out = scoresde.sample(model, DDRM(), ts, x_init=start, y=y, grad=True)
    (slope,) = torch.autograd.grad(out.x.sum(), y)
    moved = [float(scoresde.sample(model, DDRM(), ts, x_init=start, y=y.detach() + step).x.sum())
             for step in (1e-6, -1e-6)]  # fmt: skip
    assert float(slope) == pytest.approx((moved[0] - moved[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: DDRM(eta=1.5), "eta must be at most 1, got 1.5"),
        (lambda m: DDRM(eta_b=-1), "eta_b must be at least 0, got -1"),
        (lambda m: RePaint(0), "repeats must be at least 1, got 0"),
        (lambda m: Replacement(inner=UniPC()), "inner must be a one-step method"),
        (lambda m: TwistedSMC(0), "particles must be at least 1, got 0"),
        (lambda m: TwistedSMC(2, resample=2), "resample must be at most 1, got 2"),
        (lambda m: TwistedSMC(2, data_var=0), "data_var must be greater than 0, got 0"),
        (lambda m: scoresde.sample(both(m, noise=0.0), TwistedSMC(2), [1.0, 0.5], n=2,
                                   y=double([0.4])), "noise must be above 0 for TwistedSMC"),
        (lambda m: scoresde.sample(both(m, Foreign(ROW, (2,))), DDRM(), [1.0, 0.5], n=2,
                                   y=double([0.4])), "does not tell its singular values"),
    ],
)  # fmt: skip
def test_bad_samplers_are_refused_before_an_evaluation(mixture, make, words):
    model = mixture(scoresde.VP())
    with pytest.raises(ValueError, match=words):
        make(model)
    assert model.nfe.forward == 0
