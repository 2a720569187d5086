"""Schedulers of flow matching of diffusers: their times, and how they run on any model."""

import math

import pytest
import torch

import scoresde
from scoresde.interop.diffusers_flow import EULER, flow_times
from scoresde.interop.samplers import Denoiser, Levels, NotMeasured, foreign_sampler
from scoresde.samplers import RungeKutta
from scoresde.sde import Linear


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.4])
def test_times_are_shifted(shift):
    """The odds of the noise, u/(1 − u), are multiplied by the shift."""
    times = flow_times({"_class_name": EULER, "shift": shift}, 11)
    assert float(times[0]) == 1
    plain = flow_times({"_class_name": EULER}, 11)
    odds = times[1:-1] / (1 - times[1:-1])
    least = shift * 1e-3 / (1 + (shift - 1) * 1e-3)
    u = torch.linspace(1, least, 11, dtype=torch.float64)[1:-1]
    torch.testing.assert_close(odds, shift * u / (1 - u), rtol=1e-9, atol=0)
    if shift == 1:
        torch.testing.assert_close(times, plain, rtol=1e-12, atol=0)


def test_times_that_cannot_be_repeated_are_refused():
    with pytest.raises(ValueError, match="shift_terminal must be None to be repeated here, got 0"):
        flow_times({"_class_name": EULER, "shift_terminal": 0.02}, 5)
    with pytest.raises(ValueError, match="_class_name must be FlowMatchEulerDiscreteScheduler to"):
        flow_times({"_class_name": "FlowMatchHeunDiscreteScheduler"}, 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("options", [{}, {"shift": 3.0}, {"num_train_timesteps": 50}])
def test_the_scheduler_is_euler_in_t_on_the_linear_schedule(options, mixture):
    """The scheduler has float32; the levels and the start are given to both."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    model, levels, steps = mixture(Linear()), Levels(50.0, 0.05), 9

    def x0(y, sigma):
        alpha = 1 / (1 + sigma)
        return model.x0(alpha * y, 1 - alpha)

    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(20, 2, dtype=torch.float64, generator=generator)
    denoiser = Denoiser(x0)
    sampler = foreign_sampler(FlowMatchEulerDiscreteScheduler, options)
    end = sampler.run(denoiser, lambda sigma: sigma * eps, levels, steps, generator)
    sigmas = levels.sigmas(steps - 1)
    assert end.sigma == 0
    assert [call.sigma for call in denoiser.calls] == pytest.approx(sigmas.tolist(), rel=1e-5)
    ts = sigmas / (1 + sigmas)
    want = scoresde.sample(
        model, RungeKutta("euler", "t"), ts, x_init=float(ts[0]) * eps, denoise=True
    )
    assert want.nfe == len(denoiser.calls) == steps
    torch.testing.assert_close(end.y, want.x, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_turns_its_times_is_not_measured():
    from diffusers import FlowMatchEulerDiscreteScheduler

    sampler = foreign_sampler(FlowMatchEulerDiscreteScheduler, {"invert_sigmas": True})
    with pytest.raises(NotMeasured, match="invert_sigmas must not be set"):
        sampler.run(None, None, Levels(math.e, 1.0), 2, None)
