import pytest
import torch

from scoresde import samplers
from scoresde.grid import GRIDS
from scoresde.names.grids import parse_grid
from scoresde.names.samplers import SAMPLERS, parse_sampler, sampler_label
from scoresde.plain import ConfigError
from scoresde.samplers import (
    DDIM,
    EDM,
    AdaptiveSDE,
    Ancestral,
    DPMSolverMultistep,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseDiffusion,
    RungeKutta,
    sample,
)
from scoresde.sde import VP


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_name_makes_a_sampler_that_runs(name, gaussian):
    sampler = parse_sampler(name)
    assert isinstance(sampler, samplers.Sampler)
    ts = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    out = sample(gaussian(VP(), 2), sampler, ts, (3, 2), seed=0)
    assert bool(torch.isfinite(out.x).all())


@pytest.mark.parametrize(
    ("text", "sampler"),
    [
        ("ddim", DDIM()),
        ("ddim:eta=0.5", DDIM(eta=0.5)),
        ("ddim:eta=1", DDIM(eta=1)),
        (" ddim ", DDIM()),
        ("dpmpp-2m", DPMSolverMultistep()),
        ("ancestral:variance=beta_tilde", Ancestral("beta_tilde")),
        ("heun", EDM()),
        ("edm:churn=20:s_noise=1", EDM(churn=20, s_noise=1)),
        ("euler-maruyama:eta=0", EulerMaruyama(eta=0)),
        ("rk4:variable=lam", RungeKutta("rk4", "lam")),
        ("adaptive-heun", ProbabilityFlowODE("adaptive_heun")),
        ("dopri5:rtol=1e-3:atol=1e-4", ProbabilityFlowODE("dopri5", 1e-3, 1e-4)),
        ("dopri5:per_sample=true", ProbabilityFlowODE("dopri5", per_sample=True)),
        ("dop853", ProbabilityFlowODE("dop853", per_sample=True)),
        ("gotta-go-fast:rtol=0.05", AdaptiveSDE(rtol=0.05)),
        ("pc", PredictorCorrector(ReverseDiffusion(), Langevin())),
        (
            "pc:predictor=ancestral:snr=0.1:steps=2:norm=batch",
            PredictorCorrector(Ancestral(), Langevin(0.1, 2, "batch")),
        ),
    ],
)
def test_texts_and_their_samplers(text, sampler):
    assert parse_sampler(text) == sampler


@pytest.mark.parametrize("name", ["dpm-2", "dpm-3", "dpmpp-2s", "dpmpp-3s", "dpmpp-2m", "dpmpp-3m"])
def test_dpm_solvers_are_in_eps_and_their_plus_plus_forms_in_x0(name):
    sampler = parse_sampler(name)
    assert sampler.prediction == ("x0" if "pp" in name else "eps")
    assert str(sampler.order) in name


def test_edm_churns_by_name_alone():
    assert parse_sampler("edm").churn > 0


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
        (
            "dopri8:per_sample=true",
            "sampler dopri8: method with per_sample=True must be one of dop853, dopri5, bosh3",
        ),
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
    whole_batch = {"dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive-heun"}
    assert adaptive == whole_batch | {"dop853", "gotta-go-fast"}


@pytest.mark.parametrize("name", GRIDS)
def test_a_name_is_the_grid_itself(name):
    assert torch.equal(parse_grid(name)(VP(), 5, 0.01), GRIDS[name](VP(), 5, 0.01))


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("karras:rho=5", "karras", {"rho": 5}),
        (" arctan:data_std=0.5 ", "arctan", {"data_std": 0.5}),
        ("logit:scale=0.5:shift=-1.2", "logit", {"scale": 0.5, "shift": -1.2}),
    ],
)
def test_grids_with_parameters(text, name, arguments):
    wanted = GRIDS[name](VP(), 7, 1e-4, **arguments)
    assert torch.equal(parse_grid(text)(VP(), 7, 1e-4), wanted)
    assert not torch.equal(GRIDS[name](VP(), 7, 1e-4), wanted)


@pytest.mark.parametrize("text", ["uniform:t_min=0.05", "karras:rho=5:t_min=0.01"])
def test_a_grid_with_its_own_last_time(text):
    grid = parse_grid(text)
    own = GRIDS[grid.name](VP(), 7, grid.t_min, **dict(grid.parameters))
    assert torch.equal(grid(VP(), 7), own)
    assert torch.equal(grid(VP(), 7, 0.3), own)  # 0.3 is for grids without their own
    assert str(grid) == text


@pytest.mark.parametrize(
    "text", [*SAMPLERS, "ddim:eta=0.5", "unipc:order=2:corrector=false", "restart:steps=3"]
)
def test_the_text_of_a_sampler(text):
    made = parse_sampler(text)
    found = sampler_label(made)
    assert found == text or (text.startswith("restart:") and found == repr(made))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("karas", "grid 'karas' is unknown; did you mean karras"),
        ("karras:", "grid 'karras:': write parameters as key=value, got ''"),
        ("karras:5", "grid 'karras:5': write parameters as key=value, got '5'"),
        ("karras:roh=5", "grid karras: unknown key 'roh'; did you mean rho"),
        ("karras:rho=x", "grid karras.rho must be a number, got 'x'"),
        ("karras:rho=0", "grid karras: rho must be greater than 0, got 0"),
        ("karras:rho=nan", "grid karras: rho must be finite"),
        ("karras:rho=1:rho=2", "rho is given twice"),
        ("karras:steps=5", "grid karras: unknown key 'steps'; .*allowed: t_min, rho"),
        ("karras:t_max=0.1", "grid karras: unknown key 't_max'; .*allowed: t_min, rho"),
        ("uniform:rho=5", "grid uniform: unknown key 'rho'; allowed: t_min"),
        ("uniform:t_min=0", "grid uniform: t_min must be greater than 0, got 0"),
        ("uniform:t_min=1", "grid uniform: t_min must be less than 1, got 1"),
        ("uniform:t_min=x", "grid uniform.t_min must be a number, got 'x'"),
        ("logit:scale=-1", "grid logit: scale must be greater than 0, got -1"),
        ("nowhere/grid.json", "nowhere/grid.json: no such file"),
        ("list:nowhere", "nowhere: no such file"),
    ],
)
def test_wrong_grids_are_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        parse_grid(text)


@pytest.mark.parametrize(("name", "prefix"), [("mine.json", ""), ("mine", "list:")])
def test_a_grid_from_a_file(tmp_path, name, prefix):
    (tmp_path / name).write_text("[1, 0.5]")
    assert parse_grid(f"{prefix}{tmp_path / name}").values == (1.0, 0.5)
