"""Right samplers get their orders, deliberately wrong ones the right verdict, of any library."""

import math

import numpy as np
import pytest
import torch

from scoresde import certify
from scoresde.interop.samplers import Denoiser, NotMeasured, foreign_sampler
from scoresde.verification.level_orders import Errors
from scoresde.verification.level_problems import EVEN, UNEVEN, mixture_denoiser, mixture_states

FEW = (15, 33, 63)
ORDERS = ("order on equal steps", "order on steps h, 3h")


def pairs(sigmas):
    return zip(sigmas[:-1], sigmas[1:], strict=True)


def euler(denoiser, x, sigmas):
    for t, s in pairs(sigmas):
        x = x + (s - t) * (x - denoiser(x, t)) / t
    return x


def euler_that_skips_the_last_step(denoiser, x, sigmas):
    return euler(denoiser, x, sigmas[:-1])


def heun(denoiser, x, sigmas, corrected=True):
    for t, s in pairs(sigmas):
        slope = (x - denoiser(x, t)) / t
        ahead = x + (s - t) * slope
        second = (ahead - denoiser(ahead, s)) / s
        x = x + (s - t) / 2 * (slope + second) if corrected else ahead
    return x


def heun_without_correction(denoiser, x, sigmas):
    return heun(denoiser, x, sigmas, corrected=False)


def multistep(ratio):
    """DPM-Solver++ 2M with a function of the lengths of the last two steps as its ratio r."""

    def sample(denoiser, x, sigmas):
        lam, before = -sigmas.log(), None
        for i, (t, s) in enumerate(pairs(sigmas)):
            h, now = lam[i + 1] - lam[i], denoiser(x, t.expand(len(x)))
            weight = 0 if before is None else 1 / (2 * ratio(lam[i] - lam[i - 1], h))
            used = now if before is None else now + weight * (now - before)
            x, before = s / t * x - torch.expm1(-h) * used, now
        return x

    return sample


def dpmpp_2m(denoiser, x, sigmas):
    return multistep(lambda before, h: before / h)(denoiser, x, sigmas)


def dpmpp_2m_of_equal_steps(denoiser, x, sigmas):
    return multistep(lambda before, h: 1.0)(denoiser, x, sigmas)


def dpmpp_2m_of_the_inverse_ratio(denoiser, x, sigmas):
    return multistep(lambda before, h: h / before)(denoiser, x, sigmas)


def ancestral(denoiser, x, sigmas, generator=None, scale=1.0, own=True):
    """The exact step of E[x_0]: it draws x_s given x_t and x_0."""
    for t, s in pairs(sigmas):
        x0 = denoiser(x, t)
        z = torch.randn(x.shape, dtype=x.dtype, generator=generator if own else None)
        x = x0 + (s / t) ** 2 * (x - x0) + scale * s * (1 - (s / t) ** 2).sqrt() * z
    return x


def ancestral_too_loud(denoiser, x, sigmas, generator):
    return ancestral(denoiser, x, sigmas, generator, scale=1.1)


def ancestral_from_global_state(denoiser, x, sigmas, generator):
    return ancestral(denoiser, x, sigmas, own=False)


def ancestral_without_generator(denoiser, x, sigmas):
    return ancestral(denoiser, x, sigmas)


def euler_that_mixes(denoiser, x, sigmas):
    return euler(lambda x, sigma: denoiser(x, sigma) + 1e-3 * x.mean(0), x, sigmas)


def euler_of_private_noise(denoiser, x, sigmas):
    shift = torch.from_numpy(np.random.default_rng().normal(size=x.shape))
    return euler(denoiser, x + 1e-3 * shift, sigmas)


RIGHT = [(euler, 1), (heun, 2), (dpmpp_2m, 2)]
UNCORRECTED = {ORDERS[0]: "not order 2", "last step": "equals the state"}
SKIPPED = {"end point": "1.0 steps too early"}
WRONG = [
    pytest.param(euler_that_skips_the_last_step, 1, SKIPPED, marks=pytest.mark.slow),
    pytest.param(heun_without_correction, 2, UNCORRECTED, marks=pytest.mark.slow),
    (dpmpp_2m_of_equal_steps, 2, {ORDERS[1]: "not order 2"}),
    (euler_that_mixes, 1, {"batch mates": "a sample changes by"}),
]
NOISY = [
    (ancestral_too_loud, 1, {"moments": "not those of the data"}),
    (ancestral_from_global_state, 1, {"repeatability": "global random state"}),
    (euler_of_private_noise, 1, {"repeatability": "equal seeds give other results"}),
]


def test_a_right_sampler_passes_every_law():
    report = certify(heun, order=2, like="heun", steps=FEW)
    assert report.passed, report
    for law in ORDERS:
        assert report[law].value == pytest.approx(2, abs=0.15)
        assert "claimed 2" in report[law].measured
        assert "consistent with order 2" in report[law].measured
    assert report["evaluations"].measured == "2 N"
    assert report["last level 0"].verdict == "warn"  # (0 − 0)/0


@pytest.mark.parametrize(("sampler", "order", "found"), WRONG)
def test_a_wrong_copy_is_found_out(sampler, order, found):
    report = certify(sampler, order=order, steps=FEW)
    assert set(found) <= set(report.failures), report
    assert all(text in report[law].measured for law, text in found.items()), report


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "order"), RIGHT)
def test_right_samplers_have_their_orders(sampler, order):
    report = certify(sampler, order=order)
    assert report.passed, report
    assert all(report[law].value == pytest.approx(order, abs=0.05) for law in ORDERS)
    # a neighbouring order is refused
    assert set(ORDERS) <= set(certify(sampler, order=order + 1, steps=FEW).failures)
    if order > 1:
        lower = certify(sampler, order=order - 1, steps=FEW)
        assert all("higher than" in lower[law].measured for law in ORDERS)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "order", "found"), NOISY)
def test_wrong_noise_is_found_out(sampler, order, found):
    report = certify(sampler, order=order)
    assert set(found) <= set(report.failures), report
    assert all(text in report[law].measured for law, text in found.items()), report


@pytest.mark.slow
def test_right_noise_passes():
    report = certify(ancestral, order=1)
    assert report.passed, report
    assert report["moments"].value == pytest.approx(1, abs=0.02)
    assert report["weak order"].value == pytest.approx(1, abs=0.4)
    warned = certify(ancestral_without_generator)["repeatability"]
    assert (warned.verdict, "torch.manual_seed" in warned.measured) == ("warn", True)


@pytest.mark.slow
def test_a_mistake_that_keeps_the_order_is_found_by_comparison():
    """With the inverse ratio the errors of neighbouring steps cancel: the order stays 2."""
    report = certify(dpmpp_2m_of_the_inverse_ratio, order=2, like="dpmpp-2m")
    assert report.failures == ("same method",)
    assert certify(dpmpp_2m, like="dpmpp-2m", steps=FEW)["same method"].value < 1e-12


class TableScheduler:
    """DDIM with the interface of a scheduler: x = α x_0 + σ ε of a table of β."""

    def __init__(self, num_train_timesteps=1000, beta_schedule="linear", trained_betas=None):
        self.config = {"beta_schedule": beta_schedule}
        self.alphas_cumprod = (1 - torch.tensor(trained_betas, dtype=torch.float64)).cumprod(0)

    def set_timesteps(self, steps):
        self.timesteps = torch.linspace(len(self.alphas_cumprod) - 1, 0, steps).round().long()

    def scale_model_input(self, x, t):
        return x

    def step(self, eps, t, x):
        at = int((self.timesteps == t).nonzero()) + 1
        ends = len(self.timesteps) == at
        next_ = torch.tensor(1.0) if ends else self.alphas_cumprod[self.timesteps[at]]
        now = self.alphas_cumprod[t]
        x0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
        self.prev_sample = next_.sqrt() * x0 + (1 - next_).sqrt() * eps
        return self


def test_a_scheduler_is_judged_before_its_step_to_zero():
    report = certify(TableScheduler, order=1, like="ddim", steps=FEW)
    assert report.passed, report
    assert report["same method"].value < 1e-10
    assert "E[x_0]" in report["last step"].measured
    assert report["end point"].measured.startswith("ends at the data")
    with pytest.raises(ValueError, match="'gamma' is no option of TableScheduler"):
        certify(TableScheduler, arguments={"gamma": 1})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers calls an old form of NumPy
def test_schedulers_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    diffusers.logging.set_verbosity_error()
    report = certify(diffusers.DPMSolverMultistepScheduler(), order=2, like="dpmpp-2m")
    assert report.passed, report
    # the third order of its multistep form is order 2
    third = {"solver_order": 3}
    assert set(ORDERS) <= set(
        certify("diffusers:DPMSolverMultistepScheduler", order=3, arguments=third).failures
    )
    report = certify(diffusers.HeunDiscreteScheduler, order=2, steps=FEW)
    assert report.passed, report
    assert report["evaluations"].measured == "2 N − 1"
    assert certify(diffusers.DDPMScheduler, order=1, steps=FEW)["moments"].verdict == "pass"


@pytest.mark.slow
def test_samplers_of_azula():
    azula = pytest.importorskip("azula.sample")
    assert certify(azula.HeunSampler, order=2, steps=FEW).passed
    assert certify(azula.zABSampler, order=2, arguments={"order": 2}).passed
    report = certify(azula.DDPMSampler, order=1)
    assert report["moments"].verdict == "pass"
    assert "torch.manual_seed" in report["repeatability"].measured


def test_levels_end_where_they_should():
    assert torch.allclose(EVEN.sigmas(6).log().diff(), EVEN.sigmas(6).log().diff()[:1])
    steps = UNEVEN.sigmas(6).log().diff()
    assert torch.allclose(steps[1::2], 3 * steps[::2])
    for levels in (EVEN, UNEVEN):
        ends = levels.sigmas(5)[[0, -1]].tolist()
        assert ends == [levels.sigma_max, levels.sigma_min]


def test_exact_states_solve_the_ode_of_their_denoiser():
    """dy/dσ = (y − D)/σ, by central differences."""
    sigma, h = 0.4, 1e-4
    y = mixture_states(sigma)
    slope = (mixture_states(sigma + h) - mixture_states(sigma - h)) / (2 * h)
    assert torch.allclose(slope, (y - mixture_denoiser()(y, sigma)) / sigma, atol=1e-6)


def test_an_order_is_read_from_errors_above_rounding():
    steps = (10, 20, 40, 80)
    errors = [3 * n**-2.0 for n in steps]
    clean = Errors(steps, tuple(errors), 0.0, ()).order
    assert clean.value == pytest.approx(2)
    assert clean.bar == pytest.approx(0, abs=1e-9)
    assert clean.steps == (20, 40, 80)
    rounded = Errors(steps, tuple(errors), errors[-1] / 19, ()).order
    assert rounded.steps == (10, 20, 40)
    assert Errors(steps, tuple(errors), errors[1], ()).order is None


def test_other_objects_and_levels_are_refused():
    with pytest.raises(TypeError, match="sampler must be a sampler of scoresde, a scheduler of"):
        foreign_sampler(3)
    with pytest.raises(TypeError, match="or make one: missing a required argument: 'x'"):
        foreign_sampler(lambda x: x)
    with pytest.raises(ValueError, match="'eta' is no argument of euler"):
        foreign_sampler(euler, {"eta": 1})
    with pytest.raises(ValueError, match="steps must be at least three increasing numbers"):
        certify(euler, steps=(10, 20))
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        certify(euler, order=0)
    denoiser = Denoiser(lambda y, sigma: y)
    with pytest.raises(NotMeasured, match="several noise levels, 0.1 to 0.2"):
        denoiser(torch.zeros(2, 1), torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match="sigma must be finite and at least 0, got nan"):
        denoiser(torch.zeros(2, 1), math.nan)
    with pytest.raises(ValueError, match="needs eta besides .denoiser, x, sigmas.: give eta=VALUE"):
        foreign_sampler(lambda denoiser, x, sigmas, eta: x)
    report = certify(lambda denoiser, x, sigmas: x * math.nan, steps=FEW)
    assert "made no evaluation" in report["call"].measured
