"""Samples equal those of diffusers' pipelines from the same noise; clipping of x0."""

from pathlib import Path

import pytest
import torch

import scoresde
from scoresde.interop import as_scheduled, diffusers
from scoresde.noise import Noise
from scoresde.samplers import DDIM
from scoresde.score import Clipped
from scoresde.sde import VP

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


class Recorded(Noise):
    """The numbers that a generator gave to diffusers, in their order."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def _draw(self, shape, purpose, dtype, device):
        assert purpose in ("prior", "increment")
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)


DDPM, DDIM_, MULTISTEP = "DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"
FLOW = "FlowMatchEulerDiscreteScheduler"
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
ZERO_SNR |= {"timestep_spacing": "trailing", "clip_sample": False}
CASES = [
    (DDPM, 10, {}),
    (DDPM, 25, {"clip_sample": False, "timestep_spacing": "trailing"}),
    (DDPM, 12, {"variance_type": "fixed_large", "timestep_spacing": "linspace"}),
    (DDPM, 7, {"steps_offset": 1, "beta_schedule": "sigmoid"}),
    (DDPM, 8, {"variance_type": "learned_range", "clip_sample": False}),
    (DDIM_, 25, {}),
    (DDIM_, 10, {"set_alpha_to_one": False, "steps_offset": 1}),
    (DDIM_, 10, {"clip_sample": False, "timestep_spacing": "trailing"}),
    (MULTISTEP, 10, {}),
    (MULTISTEP, 20, {"timestep_spacing": "trailing"}),
    (MULTISTEP, 12, {"timestep_spacing": "leading", "steps_offset": 1, "solver_order": 1}),
    (DDIM_, 10, ZERO_SNR),
    (DDPM, 10, ZERO_SNR),
    (FLOW, 7, {}),
    (FLOW, 12, {"shift": 3.0, "num_train_timesteps": 500}),
    (FLOW, 5, {"shift": 0.5, "invert_sigmas": True}),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("kind", "steps", "options"), CASES)
def test_samples_are_those_of_the_pipeline(kind, steps, options, tmp_path):
    """In float64, because a random network amplifies rounding; the table of β is in float32."""
    import diffusers as library

    place = MODELS / "tiny-ddpm" / "unet"
    net = library.UNet2DModel.from_pretrained(place, torch_dtype=torch.float32)
    if options.get("variance_type") == "learned_range":
        torch.manual_seed(0)
        net = library.UNet2DModel.from_config(dict(net.config) | {"out_channels": 6})
    pipeline = library.DDIMPipeline if kind == DDIM_ else library.DDPMPipeline
    pipeline(net, getattr(library, kind)(**options)).save_pretrained(tmp_path / "m")
    run = pipeline.from_pretrained(tmp_path / "m")
    scheduler = getattr(library, kind).from_config(run.scheduler.config)
    scheduler.set_timesteps(steps)
    run.unet.double()
    draw = torch.Generator().manual_seed(3)
    want = torch.randn(4, 3, 8, 8, generator=draw, dtype=torch.float64)
    for t in scheduler.timesteps:  # the loop of the pipelines, which would clamp the result
        extra = {} if kind in (MULTISTEP, FLOW) else {"generator": draw}
        with torch.no_grad():
            want = scheduler.step(run.unet(want, t).sample, t, want, **extra).prev_sample

    made = diffusers.read(tmp_path / "m")
    again = as_scheduled(made.model.double(), made.provenance["scheduler"], steps)
    noise = Recorded(3)
    x_init = noise.prior((4, 3, 8, 8))
    got = scoresde.sample(
        again.model, again.sampler, again.ts, x_init=x_init, noise=noise, denoise=again.denoise
    )
    clamped = kind == DDIM_ and scheduler.config.clip_sample and again.denoise
    x = got.x.clamp(-1, 1) if clamped else got.x
    if again.denoise:
        assert got.nfe == len(scheduler.timesteps) == steps
    torch.testing.assert_close(x, want, rtol=0, atol=2e-5 * max(1, float(want.abs().max())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, "_class_name must be one of DDPMScheduler, DDIM"),
        ({"thresholding": True}, "thresholding must be false"),
        ({"variance_type": "learned"}, "variance_type must be one of fixed_small"),
        ({"_class_name": MULTISTEP, "solver_order": 3}, "solver_order must be 1 or 2 to be"),
        ({"_class_name": MULTISTEP, "use_karras_sigmas": True}, "use_karras_sigmas must be False"),
        ({"_class_name": DDIM_, "timestep_spacing": "linspace"}, "steps down by 100 labels, but"),
        ({"_class_name": FLOW}, "the SDE must be Linear, got TabulatedVP"),
        ({"_class_name": FLOW, "use_dynamic_shifting": True}, "use_dynamic_shifting must be False"),
        ({"_class_name": FLOW, "shift": 0}, "shift must be greater than 0, got 0"),
    ],
)
def test_what_cannot_be_repeated_is_refused(changes, message):
    made = diffusers.read(MODELS / "tiny-ddpm")
    with pytest.raises(ValueError, match=message):
        as_scheduled(made.model, made.provenance["scheduler"] | changes, 10)


def test_clipped_is_consistent():
    """x0 lies in the range, ε belongs to it, and evaluations are counted once."""
    model = diffusers.read(MODELS / "tiny-ddpm").model.double()
    x = 2 * torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    clipped, t = Clipped(model, -0.5, 1.0), 0.7
    with scoresde.score.count_nfe(clipped) as counted:
        x0, eps = clipped.x0(x, t), clipped.eps(x, t)
    assert counted.forward == 2
    torch.testing.assert_close(x0, model.x0(x, t).clamp(-0.5, 1.0))
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x)
    with pytest.warns(UserWarning, match="without clipping of x0"):
        found = scoresde.log_likelihood(clipped, x[:1], "path:steps=4", seed=0)
    assert torch.equal(
        found.log_prob, scoresde.log_likelihood(model, x[:1], "path:steps=4", seed=0).log_prob
    )


def test_a_condition_reaches_the_model_inside():
    made = diffusers.read(MODELS / "tiny-classes")
    x, y = torch.zeros(3, 1, 8, 4), torch.tensor([0, 1, 2])
    clipped = Clipped(made.model, -9, 9)
    want = made.model.given(y).x0(x, 0.9).clamp(-9, 9)
    assert torch.equal(clipped.given(y).x0(x, 0.9), want)
    assert torch.equal(Clipped(made.model.given(y), -9, 9).x0(x, 0.9), want)
    with pytest.raises(ValueError, match="y must be given"):
        clipped.x0(x, 0.9)


def test_ddim_clips_x0_alone():
    """x_s = α_s clip(x0) + σ_s ε for η = 0."""
    model = scoresde.FunctionScore(VP(), lambda x, t: x.sin())
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None]
    t, s = VP().nodes([0.8, 0.3])
    got, _ = DDIM(clip=1.0).step(model, x, t, s, None, None)
    x0 = ((x - t.sigma * x.sin()) / t.alpha).clamp(-1, 1)
    torch.testing.assert_close(got, s.alpha * x0 + s.sigma * x.sin())
    with pytest.raises(ValueError, match="clip must be greater than 0, got 0"):
        DDIM(clip=0)
