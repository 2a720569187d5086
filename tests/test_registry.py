import pytest
import torch

from scoresde import samplers
from scoresde.grid import GRIDS
from scoresde.plain import ConfigError
from scoresde.registry import SAMPLERS, parse_grid, parse_sampler
from scoresde.samplers import (
    DDIM,
    EDM,
    Ancestral,
    DPMSolverPP2M,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseDiffusion,
    sample,
)
from scoresde.sde import VP


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_name_makes_a_sampler_that_runs(name, gaussian):
    named = parse_sampler(name)
    assert isinstance(named.sampler, samplers.Sampler)
    assert named.text == name
    ts = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    out = sample(gaussian(VP(), 2), named.sampler, ts, (3, 2), seed=0)
    assert bool(torch.isfinite(out.x).all())


@pytest.mark.parametrize(
    ("text", "sampler"),
    [
        ("ddim", DDIM()),
        ("ddim:eta=0.5", DDIM(eta=0.5)),
        ("ddim:eta=1", DDIM(eta=1)),
        (" ddim ", DDIM()),
        ("dpmpp-2m", DPMSolverPP2M()),
        ("ancestral:variance=beta_tilde", Ancestral("beta_tilde")),
        ("heun", EDM()),
        ("edm:churn=20:s_noise=1", EDM(churn=20, s_noise=1)),
        ("euler-maruyama:eta=0", EulerMaruyama(eta=0)),
        ("rk4", ProbabilityFlowODE("rk4")),
        ("adaptive-heun", ProbabilityFlowODE("adaptive_heun")),
        ("dopri5:rtol=1e-3:atol=1e-4", ProbabilityFlowODE("dopri5", 1e-3, 1e-4)),
        ("pc", PredictorCorrector(ReverseDiffusion(), Langevin())),
        (
            "pc:predictor=ancestral:snr=0.1:steps=2:norm=batch",
            PredictorCorrector(Ancestral(), Langevin(0.1, 2, "batch")),
        ),
    ],
)
def test_texts_and_their_samplers(text, sampler):
    assert parse_sampler(text).sampler == sampler


def test_edm_churns_by_name_alone():
    assert parse_sampler("edm").sampler.churn > 0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("dim", "sampler 'dim' is unknown; did you mean ddim"),
        ("", "sampler '' is unknown"),
        ("DDIM", "sampler 'DDIM' is unknown"),
        ("ddim:", "write parameters as key=value, got ''"),
        ("ddim:0.5", "write parameters as key=value, got '0.5'"),
        ("ddim:etta=0.5", "sampler ddim: unknown key 'etta'; did you mean eta"),
        ("ddim:eta=much", "sampler ddim.eta must be a number, got 'much'"),
        ("ddim:eta=true", "sampler ddim.eta must be a number, got True"),
        ("ddim:eta=-0.1", "sampler ddim: eta must be"),
        ("ddim:eta=nan", "sampler ddim: eta must be finite"),
        ("ddim:eta=0:eta=1", "eta is given twice"),
        ("heun:churn=-1", "sampler heun: churn must be"),
        ("rk4:method=dopri5", "sampler rk4: unknown key 'method'"),
        ("dopri5:rtol=0", "sampler dopri5: rtol must be"),
        ("pc:snr=0", "sampler pc: snr must be greater than 0"),
        ("pc:steps=1.5", "sampler pc.steps must be an integer"),
        ("pc:predictor=dim", "sampler 'dim' is unknown"),
        ("pc:predictor=dpmpp-2m", "sampler pc: predictor must be a one-step method"),
        ("pc:predictor=dopri5", "sampler pc: predictor must be a GridSampler"),
        ("annealed-langevin:steps=0", "sampler annealed-langevin: steps must be at least 1"),
    ],
)
def test_wrong_texts_are_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        parse_sampler(text)


def test_adaptive_samplers():
    adaptive = {name for name in SAMPLERS if parse_sampler(name).adaptive}
    assert adaptive == {"dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive-heun"}


def test_grids():
    assert parse_grid("karras") is GRIDS["karras"]
    with pytest.raises(ConfigError, match="grid 'karas' is unknown; did you mean karras"):
        parse_grid("karas")
